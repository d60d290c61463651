"""From a run's configuration to what is trained: sizes, settings, the network, the task."""

from dataclasses import replace
from typing import Any

import numpy as np

from densemble.config import MemberConfig, RunConfig
from densemble.data.decoded_cache import DecodedSplit
from densemble.errors import UsageError
from densemble.nets.automatic_cut import Limits, choose
from densemble.nets.backbones import OWN, resolve
from densemble.nets.cut import Cut
from densemble.nets.cuts import all_nodes
from densemble.nets.dense import DenseModel, default_head
from densemble.shapes import Size
from densemble.tasks import Task, balanced_weights
from densemble.training.fit import bf16_is_fast
from densemble.training.settings import FitSettings

BACKBONE_SHARE = 0.2


def sizes(config: RunConfig, member: MemberConfig) -> tuple[Size, Size, Size]:
    """Sizes of a member's images, of the maps it is trained on, and of the maps that are kept of it."""
    size = member.input_size or config.input_size
    return size, config.out_size or size, config.out_size or (max(size[0] // 2, 1), max(size[1] // 2, 1))


def member_cut(config: RunConfig, member: MemberConfig) -> Cut:
    """Where a member's backbone is cut.

    Raises:
        UsageError: unknown backbone.
        CutError: the cut does not exist, or no cut keeps to the member's limits.
    """
    backbone, _ = resolve(member.backbone, member.weights)
    size = member.input_size or config.input_size
    asked = Limits(member.min_size, member.max_stride, member.max_macs)
    within = asked.for_head(member.head or default_head(backbone), size, config.out_size)
    return choose(all_nodes(backbone, size), member.cut, within, backbone)


def trained_task(task: Task, config: RunConfig, train: DecodedSplit) -> Task:
    """The task with the run's loss and class weights.

    Raises:
        UsageError: a loss that the task does not know, or weights for a task without classes.
    """
    changes: dict[str, Any] = {"loss_name": config.loss} if config.loss else {}
    if config.loss and "loss_name" not in task.choices():
        raise UsageError(f"loss: {task.name} has no choice of losses; leave it out")
    if config.class_weights is not None:
        if "class_weights" not in task.choices():
            raise UsageError(f"class_weights: {task.name} has no classes; leave it out")
        given = _balanced(task, train) if config.class_weights == "balanced" else tuple(config.class_weights)
        if len(given) != task.out_channels:
            raise UsageError(f"class_weights: {len(given)} weights for {task.out_channels} classes; give one each")
        changes["class_weights"] = given
    return replace(task, **changes) if changes else task  # type: ignore[type-var]


def _balanced(task: Task, train: DecodedSplit) -> tuple[float, ...]:
    counts = np.zeros(task.out_channels, np.int64)
    for target in train.targets:
        if target.ndim == 3:
            counts += (target == 1).sum((1, 2))
        else:
            known = target[(target < task.out_channels) & (target != int(task.fill))]
            counts += np.bincount(known, minlength=task.out_channels)
    return balanced_weights(counts.tolist())


def fit_settings(config: RunConfig, member: MemberConfig, seconds: float | None) -> FitSettings:
    """How a member is trained; ``seconds`` is what it may take."""
    own = member.training(config.training)
    pretrained = member.weights is not None and member.backbone not in OWN
    share = BACKBONE_SHARE if pretrained else 1.0
    if own.backbone_learning_rate is not None:
        if own.learning_rate == "auto":
            raise UsageError("learning_rate: auto finds both rates together; leave backbone_learning_rate out")
        share = own.backbone_learning_rate / own.learning_rate
    decided = {
        "backbone_share": share,
        "precision": ("bf16" if bf16_is_fast() else "fp32") if own.precision == "auto" else own.precision,
        "freeze_statistics": pretrained if own.freeze_statistics is None else own.freeze_statistics,
    }
    return FitSettings(**{**own.model_dump(), **decided}, seconds=seconds, machine=config.trainer)


def build_model(config: RunConfig, member: MemberConfig, task: Task, in_channels: int) -> DenseModel:
    """The network of a member.

    Raises:
        DensembleError: weights that cannot be read, a cut that does not exist, ...
    """
    return DenseModel(
        member.backbone,
        out_channels=task.out_channels,
        in_channels=in_channels,
        out_size=config.out_size,
        cut=member.cut,
        head=member.head,
        weights=member.weights,
        input_size=sizes(config, member)[0],
        min_size=member.min_size,
        max_stride=member.max_stride,
        max_macs=member.max_macs,
        allow_partial=member.allow_partial,
        weights_dir=config.weights_dir,
    )
