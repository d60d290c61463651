"""Experiment loggers by name; they receive the curves in addition to ``metrics.csv``."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from densemble.errors import UsageError, unknown_name


def _tensorboard(folder: Path, member: str) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(save_dir=str(folder), name="tensorboard", version=member)


def _mlflow(folder: Path, member: str) -> Any:
    import os

    from lightning.pytorch.loggers import MLFlowLogger

    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
    return MLFlowLogger(experiment_name=folder.parent.name, run_name=member, tracking_uri=uri)


def _wandb(folder: Path, member: str) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(project="densemble", group=folder.parent.name, name=member, save_dir=str(folder), reinit=True)


LOGGERS: dict[str, Callable[[Path, str], Any]] = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}
"""Called with the folder ``RUN/logs`` and the member's name. MLflow and W&B also read their environment variables."""


def make_loggers(names: Sequence[str], folder: Path, member: str) -> list[Any]:
    """Create the loggers of Lightning's trainer.

    Raises:
        UsageError: unknown name, or a package that is not installed.
    """
    loggers = []
    for name in names:
        if name not in LOGGERS:
            raise UsageError(unknown_name("logger", name, LOGGERS))
        try:
            folder.mkdir(parents=True, exist_ok=True)
            loggers.append(LOGGERS[name](folder, member))
        except (ImportError, ModuleNotFoundError) as error:
            raise UsageError(
                f"logger '{name}' needs a package that is not installed ({str(error).splitlines()[0]}); "
                'run pip install "densemble[log]"'
            ) from error
    return loggers
