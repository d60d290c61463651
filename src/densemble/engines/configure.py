"""Make the validated configuration of a run from a data folder and settings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemble.config import RunConfig, make_config
from densemble.data.folder import FolderData
from densemble.errors import ConfigError, UsageError
from densemble.presets import fill_in, preset_settings
from densemble.shapes import Size
from densemble.tasks import TASKS
from densemble.tasks.losses.mixture import loss_names
from densemble.user_code import is_user_function, require_allowed

_SIZED_IMAGES = 20


def complete_config(values: Mapping[str, Any], data: FolderData, source: str = "the settings") -> RunConfig:
    """Return the validated configuration of the values of a run.yaml; preset and task supply missing values.

    Raises:
        ConfigError: unknown or wrong settings, or densities without a fixed size.
    """
    name, task = values.get("preset"), TASKS[data.task_name]
    preset = {} if name is None else preset_settings(str(name), task, typical_size(data))
    config = make_config(fill_in(values, preset), source)
    if "out_size" not in values:
        config = config.model_copy(update={"out_size": task.default_out_size(config.input_size)})
    if data.kind == "density" and config.out_size is None:
        raise ConfigError(
            f"{source}: a density task needs a fixed out_size, because the sum of a map is a count; set it, for "
            "instance to 60x80"
        )
    return config


def typical_size(data: FolderData) -> Size:
    """Return the median height and width of about 20 training images."""
    shapes = [data.read_image(sample).shape[:2] for sample in data.train[:: max(1, len(data.train) // _SIZED_IMAGES)]]
    height, width = np.median(np.array(shapes), axis=0)
    return int(height), int(width)


def open_data(
    path: str | Path, values: Mapping[str, Any], source: str = "the settings"
) -> tuple[FolderData, RunConfig]:
    """Open a data folder and return it with the validated configuration of the values of a run.yaml.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: unusable images or targets.
    """
    config = make_config(dict(values), source)
    data = FolderData(path, config.task, **config.data)
    values = {**values, "data": {**(values.get("data") or {}), **data.settle()}}
    return data, complete_config(values, data, source)


def resolve_data(
    data: FolderData | str | Path, task: str | None, settings: Mapping[str, Any]
) -> tuple[FolderData, RunConfig]:
    """Do the same as :func:`open_data` for a FolderData, or for a path and a task.

    Raises:
        UsageError: a path without a task, or a task that differs from the FolderData's.
    """
    if not isinstance(data, FolderData):
        if task is None:
            raise UsageError("a data path needs task=, for instance task='saliency'")
        return open_data(data, {**settings, "task": task})
    if task not in (None, data.task_name):
        raise UsageError(f"task='{task}' contradicts the FolderData's '{data.task_name}'; leave it out")
    values = {**settings, "task": data.task_name, "data": {**data.options, **data.settle()}}
    return data, complete_config(values, data)


def require_functions(config: RunConfig, functions: Sequence[str], source: str) -> None:
    """Check the names in a configuration file before anything is built.

    Raises:
        ArtifactError: user code that is not in ``functions``; see :func:`require_allowed`.
    """
    members = zip(config.member_names(), config.members, strict=True)
    parts = [(f"member '{name}'", part) for name, m in members for part in (m.backbone, m.head or "")]
    require_allowed(source, [*parts, *(("the loss", term) for term in loss_names(config.loss))], functions)


def user_functions(config: RunConfig) -> list[str]:
    """Return the names of user code in a configuration: backbones, heads and losses, without repetitions."""
    parts = [part for member in config.members for part in (member.backbone, member.head or "")]
    return list(dict.fromkeys(name for name in (*parts, *loss_names(config.loss)) if is_user_function(name)))
