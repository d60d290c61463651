"""The data that an artifact is scored on, read as it was in training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densemble.data.folder import FolderData
    from densemble.ensemble.ensemble import Ensemble


def data_for(ensemble: "Ensemble", data: Path, settings: list[str] | None) -> "FolderData":
    """A data set for an ensemble's task.

    Args:
        ensemble: whose task and reading are taken.
        data: the folder.
        settings: ``KEY=VALUE`` of run.yaml that go before these.

    Raises:
        ConfigError: a setting that cannot be used.
        DataError: nothing there, or nothing that is known.
    """
    from densemble.commands.overrides import with_settings
    from densemble.config import make_config
    from densemble.data.folder import FolderData

    config = make_config(with_settings({"task": ensemble.task.name, "data": _reading(ensemble)}, settings or []))
    return FolderData(data, ensemble.task.name, **config.data)


def require_split(split: str | None) -> None:
    """Checks the name of a split.

    Raises:
        UsageError: no split is named so.
    """
    from densemble.errors import UsageError

    if split not in (None, "train", "val", "test"):
        raise UsageError(f"no split is named '{split}'; there are: train, val, test")


def _reading(ensemble: "Ensemble") -> dict[str, Any]:
    task = ensemble.task.describe()
    names = {"classes": "classes", "ignore_index": "ignore_index", "file_scale": "scale", "mode": "heatmap"}
    known = {ours: task[theirs] for theirs, ours in names.items() if theirs in task}
    return {**known, "invalid_below": task.get("invalid_below", 0.0), **ensemble.reading}
