"""Tuning: search cut, head, learning rates and augmentation of one backbone by training trials (Optuna)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemble.data.folder import FolderData
from densemble.data.torch_dataset import TorchData, store_dataset
from densemble.engines.budget import parse_time
from densemble.engines.configure import resolve_data
from densemble.messages import shown
from densemble.progress.display import shown_progress
from densemble.tuning.result import TrialRecord, TuneResult
from densemble.tuning.search import run_search

__all__ = ["TrialRecord", "TuneResult", "run_search", "tune"]


def tune(
    data: FolderData | TorchData | str | Path,
    backbone: str | Mapping[str, Any],
    out: str | Path,
    task: str | None = None,
    trials: int = 20,
    time: str | float | None = None,
    space: Sequence[str] | None = None,
    report: Callable[[str], None] | None = print,
    **settings: Any,
) -> TuneResult:
    """Search the best settings of one backbone; a second call with the same arguments continues the search.

    Args:
        data: a :class:`FolderData`, or the path of one together with ``task``, or a torch data set as in
            :func:`densemble.train`.
        backbone: name of the backbone, or a mapping with the keys of a member in run.yaml.
        out: folder of the search.
        task: row of ``TASKS``; required if ``data`` is a path.
        trials: total number of trials, including those of earlier calls.
        time: limit in seconds, or as text such as ``"30m"``; after it no trial starts, and the running one ends.
        space: some of ``cut``, ``head``, ``learning_rate``, ``backbone_share`` and ``augment``; default all that apply.
        report: called with each line that the loggers ``densemble.*`` write; ``None`` leaves it to their handlers.
        settings: keys of run.yaml that are not searched.

    Raises:
        UsageError: wrong settings, Optuna is missing, or ``out`` holds another search.
        DataError: unusable images or targets.
        DensembleError: every trial failed.
    """
    with shown(report), shown_progress():
        if not isinstance(data, FolderData | str | Path):
            data = store_dataset(data, Path(out) / "data", task)
        folder, config = resolve_data(data, task, {**settings, "members": [backbone]})
        return run_search(folder, config, Path(out), trials, parse_time(time), space)
