"""Tuning: searches cut, head, rates and augmentation of one backbone by training trials (Optuna)."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from densemble.data.folder import FolderData
from densemble.engines.budget import parse_time
from densemble.engines.configure import open_given
from densemble.messages import shown
from densemble.tuning.result import TrialRecord, TuneResult
from densemble.tuning.search import run_search

__all__ = ["TrialRecord", "TuneResult", "run_search", "tune"]


def tune(
    data: FolderData | str | Path,
    backbone: str | Mapping[str, Any],
    out: str | Path,
    task: str | None = None,
    trials: int = 20,
    time: str | float | None = None,
    space: Sequence[str] | None = None,
    report: Callable[[str], None] | None = print,
    **settings: Any,
) -> TuneResult:
    """Searches the best settings of one backbone; called again with the same words it goes on.

    Args:
        data: a :class:`FolderData`, or the path of one together with ``task``.
        backbone: its name, or a mapping with the keys of a member in run.yaml.
        out: folder of the search.
        task: row of ``TASKS``, where ``data`` is a path.
        trials: how many there are to be in the end, those of earlier calls included.
        time: after which no trial begins and the running one comes to its end: seconds, or ``"30m"``.
        space: some of ``cut``, ``head``, ``learning_rate``, ``backbone_share`` and ``augment``; default all that apply.
        report: called with each line that the loggers ``densemble.*`` give; ``None``: only their own handlers.
        settings: keys of run.yaml that are not searched.

    Raises:
        UsageError: wrong settings, Optuna is missing, or ``out`` holds another search.
        DataError: images or maps that cannot be used.
        DensembleError: every trial failed.
    """
    folder, config = open_given(data, task, {**settings, "members": [backbone]})
    with shown(report):
        return run_search(folder, config, Path(out), trials, parse_time(time), space)
