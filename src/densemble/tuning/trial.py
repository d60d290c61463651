"""One trial: one member, trained under the watch of a study."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.config import RunConfig
from densemble.data.decoded_cache import DecodedSplit, decode_split
from densemble.data.folder import FolderData
from densemble.engines.plan import build_model, fit_settings, sizes, trained_task
from densemble.storage.runs import MemberFolder, require_writable
from densemble.tasks import Task
from densemble.training.fit import fit_member, seed_everything
from densemble.training.settings import MemberFit
from densemble.training.watching import EpochScore


@dataclass(frozen=True)
class Material:
    """What all trials share: images and maps in their size, and the task as it is trained."""

    task: Task
    train: DecodedSplit
    val: DecodedSplit
    cache: Path

    @property
    def metric(self) -> str:
        """What trials are compared by, as it is called in the log."""
        return f"val_{self.task.primary}"


def prepare(data: FolderData, config: RunConfig, cache: Path) -> Material:
    """Decodes what the trials share, and proves that a network can be built from the settings.

    Raises:
        DataError: images or maps that cannot be used.
        UsageError, WeightsError: settings with which no trial could work.
    """
    size = sizes(config, config.members[0])[0]
    train, val = (decode_split(data, split, size, cache) for split in ("train", "val"))
    material = Material(trained_task(data.task, config, train), train, val, cache)
    build_model(config, config.members[0], material.task, train.images.shape[1])
    return material


def train_trial(
    material: Material,
    config: RunConfig,
    folder: Path,
    title: str,
    seconds: float | None,
    tell: Callable[[int, float], None],
) -> dict[str, Any]:
    """Trains the settings' first member into ``folder``; goes on where a trial was cut off.

    Args:
        seconds: that it may take at most.
        tell: called with (epoch, score) after every epoch; what it raises ends the training.

    Returns:
        What :func:`fit_member` found.
    """
    member, train, task = config.members[0], material.train, material.task
    settings = fit_settings(config, member, seconds)
    seed_everything(settings.seed)
    model, target_size = build_model(config, member, task, train.images.shape[1]), sizes(config, member)[1]
    place = MemberFolder(require_writable(folder))
    fit = MemberFit(model, task, settings, train, material.val, target_size, place, title, material.cache)
    return fit_member(fit, (EpochScore(material.metric, tell),))
