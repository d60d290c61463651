"""What the training of one member needs: its settings and its material."""

from dataclasses import dataclass
from pathlib import Path

from densemble.config import TrainerConfig, TrainingConfig
from densemble.data.decoded_cache import DecodedSplit
from densemble.nets.dense import DenseModel
from densemble.shapes import Size
from densemble.storage.runs import MemberFolder
from densemble.tasks import Task


class FitSettings(TrainingConfig):
    """Training options of one member, with all that follows from its backbone and from the machine.

    ``precision`` is not ``auto``, and ``freeze_statistics`` not ``None``.

    Attributes:
        backbone_share: peak of the backbone's learning rate, as a share of the head's.
        seconds: time that the training may take; the schedule then ends with the time.
        machine: what it runs on.
    """

    backbone_share: float
    seconds: float | None = None
    machine: TrainerConfig = TrainerConfig()


@dataclass(frozen=True)
class MemberFit:
    """One member that is trained.

    Attributes:
        model, task, settings: what is trained, for what, and how.
        train, val: decoded at the input size of the model.
        target_size: (h, w) of the targets that it is trained on.
        folder: of the member, where results are written.
        title: name of the member in messages.
        cache: folder of features that are kept.
        build_seconds: that building the model took.
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
