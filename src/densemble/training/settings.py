"""Settings and inputs of the training of one member."""

from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.callbacks import Callback

from densemble.config import TrainerConfig, TrainingConfig
from densemble.data.decoded_cache import DecodedSplit
from densemble.nets.dense import DenseModel
from densemble.shapes import Size
from densemble.storage.runs import MemberFolder
from densemble.tasks import Task
from densemble.training.soft_targets import SoftTargets


class FitSettings(TrainingConfig):
    """Resolved training options of one member: ``precision`` is not ``auto``, ``freeze_statistics`` not ``None``.

    Attributes:
        backbone_share: peak learning rate of the backbone divided by that of the head.
        seconds: time limit of the training; the schedule ends with it.
        machine: hardware settings.
    """

    backbone_share: float
    seconds: float | None = None
    machine: TrainerConfig = TrainerConfig()


@dataclass(frozen=True)
class MemberFit:
    """Everything that the training of one member needs.

    Attributes:
        model: network to train.
        task: task to train it on.
        settings: resolved training options.
        train, val: splits decoded at the input size of the model.
        target_size: (h, w) of the training targets.
        folder: member folder, where results are written.
        title: name of the member in messages.
        cache: folder of cached features.
        build_seconds: time that building the model took.
        soft: predictions of an ensemble to train on, beside or instead of the targets.
        callbacks: callbacks of the user for the trainer.
    """

    model: DenseModel
    task: Task
    settings: FitSettings
    train: DecodedSplit
    val: DecodedSplit
    target_size: Size
    folder: MemberFolder
    title: str
    cache: Path
    build_seconds: float = 0.0
    soft: SoftTargets | None = None
    callbacks: tuple[Callback, ...] = ()
