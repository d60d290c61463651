"""Resolve the configuration of a run: sizes, settings, network and task of each member."""

from dataclasses import replace
from typing import Any, NamedTuple

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
"""Default learning rate of a pretrained backbone divided by that of the head."""


class Sizes(NamedTuple):
    """Sizes (height, width) of one member: its images, its training targets, and its stored predictions."""

    image: Size
    target: Size
    stored: Size


def sizes(config: RunConfig, member: MemberConfig) -> Sizes:
    """Return the sizes of a member; without ``out_size`` stored predictions have half the image size."""
    size = member.input_size or config.input_size
    return Sizes(size, config.out_size or size, config.out_size or (max(size[0] // 2, 1), max(size[1] // 2, 1)))


def member_limits(member: MemberConfig) -> Limits:
    """Return the limits that a member sets for its cut."""
    return Limits(member.min_size, member.max_stride, member.max_macs)


def member_cut(config: RunConfig, member: MemberConfig) -> Cut:
    """Return the cut of a member's backbone.

    Raises:
        UsageError: unknown backbone.
        CutError: the cut does not exist, or no cut is within the member's limits.
    """
    backbone, _ = resolve(member.backbone, member.weights)
    size = sizes(config, member).image
    limits = member_limits(member).for_head(member.head or default_head(backbone), size, config.out_size)
    return choose(all_nodes(backbone, size), member.cut, limits, backbone)


def trained_task(task: Task, config: RunConfig, train: DecodedSplit) -> Task:
    """Return the task with the run's loss and class weights.

    Raises:
        UsageError: the task does not know the loss, or has no classes for the weights.
    """
    changes: dict[str, Any] = {"loss_name": config.loss} if config.loss else {}
    if config.loss and "loss_name" not in task.choices():
        raise UsageError(f"loss: {task.name} has no choice of losses; leave it out")
    if config.class_weights is not None:
        if "class_weights" not in task.choices():
            raise UsageError(f"class_weights: {task.name} has no classes; leave it out")
        weights = _balanced(task, train) if config.class_weights == "balanced" else tuple(config.class_weights)
        if len(weights) != task.out_channels:
            raise UsageError(
                f"class_weights: {len(weights)} weights for {task.out_channels} classes; give one per class"
            )
        changes["class_weights"] = weights
    return replace(task, **changes) if changes else task  # type: ignore[type-var]


def _balanced(task: Task, train: DecodedSplit) -> tuple[float, ...]:
    counts = np.zeros(task.out_channels, np.int64)
    for target in train.targets:
        if target.ndim == 3:
            counts += (target == 1).sum((1, 2))
        else:
            labels = target[(target < task.out_channels) & (target != int(task.fill))]
            counts += np.bincount(labels, minlength=task.out_channels)
    return balanced_weights(counts.tolist())


def fit_settings(config: RunConfig, member: MemberConfig, seconds: float | None) -> FitSettings:
    """Return the resolved settings of a member's training, which may take ``seconds``.

    Raises:
        UsageError: a backbone learning rate together with an automatic learning rate.
    """
    training = member.training(config.training)
    if training.backbone_learning_rate is not None and training.learning_rate == "auto":
        raise UsageError("learning_rate: auto finds both rates together; leave backbone_learning_rate out")
    resolved: dict[str, Any] = {"backbone_share": backbone_share(config, member)}
    if training.precision == "auto":
        resolved["precision"] = "bf16" if bf16_is_fast() else "fp32"
    if training.freeze_statistics is None:
        resolved["freeze_statistics"] = is_pretrained(member)
    return FitSettings(**{**training.model_dump(), **resolved}, seconds=seconds, machine=config.trainer)


def is_pretrained(member: MemberConfig) -> bool:
    """Return whether a member starts from pretrained weights."""
    return member.weights is not None and member.backbone not in OWN


def backbone_share(config: RunConfig, member: MemberConfig) -> float:
    """Return the peak learning rate of the backbone divided by that of the head."""
    training = member.training(config.training)
    if training.backbone_learning_rate is not None and training.learning_rate != "auto":
        return training.backbone_learning_rate / training.learning_rate
    return BACKBONE_SHARE if is_pretrained(member) else 1.0


def build_model(config: RunConfig, member: MemberConfig, task: Task, in_channels: int) -> DenseModel:
    """Build the network of a member.

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
        input_size=sizes(config, member).image,
        min_size=member.min_size,
        max_stride=member.max_stride,
        max_macs=member.max_macs,
        allow_partial=member.allow_partial,
        weights_dir=config.weights_dir,
    )
