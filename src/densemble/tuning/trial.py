"""Train one trial of a study, which is one member."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densemble.config import RunConfig
from densemble.data.decoded_cache import DecodedSplit, decode_split
from densemble.data.folder import FolderData
from densemble.engines.plan import build_model, fit_settings, sizes, trained_task
from densemble.storage.runs import MemberFolder
from densemble.storage.writing import require_writable
from densemble.tasks import Task
from densemble.training.fit import fit_member, seed_everything
from densemble.training.settings import MemberFit
from densemble.training.watching import EpochScore


@dataclass(frozen=True)
class TrialInputs:
    """Inputs that all trials share: decoded splits, and the task with its loss and class weights."""

    task: Task
    train: DecodedSplit
    val: DecodedSplit
    cache: Path

    @property
    def metric(self) -> str:
        """Name in the log of the metric that compares trials."""
        return f"val_{self.task.primary}"


def prepare(data: FolderData, config: RunConfig, cache: Path) -> TrialInputs:
    """Decode the data that all trials share, and check that a network can be built from the settings.

    Raises:
        DataError: unusable images or targets.
        UsageError, WeightsError: settings that would fail in every trial.
    """
    size = sizes(config, config.members[0]).image
    train, val = (decode_split(data, split, size, cache) for split in ("train", "val"))
    inputs = TrialInputs(trained_task(data.task, config, train), train, val, cache)
    build_model(config, config.members[0], inputs.task, train.images.shape[1])
    return inputs


def train_trial(
    inputs: TrialInputs,
    config: RunConfig,
    folder: Path,
    title: str,
    seconds: float | None,
    report: Callable[[int, float], None],
) -> dict[str, Any]:
    """Train the first member of ``config`` into ``folder``, or resume an interrupted trial.

    Args:
        inputs: decoded data and task.
        config: configuration with the values of the trial.
        folder: folder of the trial.
        title: name of the trial in messages.
        seconds: time limit.
        report: called with (epoch, score) after every epoch; an exception from it ends the training.

    Returns:
        Result of :func:`fit_member`.
    """
    member, train, task = config.members[0], inputs.train, inputs.task
    settings = fit_settings(config, member, seconds)
    seed_everything(settings.seed)
    model, target_size = build_model(config, member, task, train.images.shape[1]), sizes(config, member).target
    member_folder = MemberFolder(require_writable(folder))
    fit = MemberFit(model, task, settings, train, inputs.val, target_size, member_folder, title, inputs.cache)
    return fit_member(fit, (EpochScore(inputs.metric, report),))
