"""Open the data set that an artifact is scored on, with the data options of its training."""

from pathlib import Path
from typing import TYPE_CHECKING

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
    from densemble.data.trained_options import trained_options

    config = make_config(with_settings({"task": ensemble.task.name, "data": trained_options(ensemble)}, settings or []))
    return FolderData(data, ensemble.task.name, **config.data)


def require_split(split: str | None) -> None:
    """Check the name of a split; ``None`` is valid.

    Raises:
        UsageError: there is no split of this name.
    """
    from densemble.data.layouts import SPLITS
    from densemble.errors import UsageError, unknown_name

    if split is not None and split not in SPLITS:
        raise UsageError(unknown_name("split", split, SPLITS))
