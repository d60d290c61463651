"""Open the data set that an artifact is scored on, with the data options of its training."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densemble.data.folder import FolderData
    from densemble.ensemble.ensemble import Ensemble


def data_for(ensemble: "Ensemble", data: Path, settings: list[str] | None) -> "FolderData":
    """Open a data set for the task of an ensemble.

    Args:
        ensemble: gives the task and the data options.
        data: the folder.
        settings: ``KEY=VALUE`` of run.yaml; they override the options of the ensemble.

    Raises:
        ConfigError: a setting is invalid.
        DataError: the folder does not exist or has no known layout.
    """
    from densemble.commands.overrides import with_settings
    from densemble.config import make_config
    from densemble.data.folder import FolderData

    config = make_config(with_settings({"task": ensemble.task.name, "data": _data_options(ensemble)}, settings or []))
    return FolderData(data, ensemble.task.name, **config.data)


def require_split(split: str | None) -> None:
    """Check the name of a split; ``None`` is valid.

    Raises:
        UsageError: there is no split of this name.
    """
    from densemble.errors import UsageError

    if split not in (None, "train", "val", "test"):
        raise UsageError(f"no split is named '{split}'; there are: train, val, test")


def _data_options(ensemble: "Ensemble") -> dict[str, Any]:
    """Data options that the task and the artifact store."""
    task = ensemble.task.describe()
    option_of_field = {"classes": "classes", "ignore_index": "ignore_index", "file_scale": "scale", "mode": "heatmap"}
    known = {option: task[field] for field, option in option_of_field.items() if field in task}
    return {**known, "invalid_below": task.get("invalid_below", 0.0), **ensemble.reading}
