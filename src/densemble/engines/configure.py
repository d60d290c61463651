"""From a data folder and settings to a checked configuration of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from densemble.config import RunConfig, make_config
from densemble.data.folder import FolderData
from densemble.errors import ConfigError, UsageError
from densemble.presets import preset_settings, under
from densemble.shapes import Size
from densemble.storage.artifact import require_function
from densemble.tasks import TASKS

_SAMPLED = 20


def configured(values: Mapping[str, Any], data: FolderData, source: str = "the settings") -> RunConfig:
    """The checked configuration of a mapping of a run.yaml; its preset and its task say what it leaves open.

    Raises:
        ConfigError: unknown or wrong settings, or densities without a fixed size.
    """
    name, task = values.get("preset"), TASKS[data.task_name]
    preset = {} if name is None else preset_settings(str(name), task, typical_size(data))
    config = make_config(under(values, preset), source)
    if "out_size" not in values:
        config = config.model_copy(update={"out_size": task.default_out_size(config.input_size)})
    if data.kind == "density" and config.out_size is None:
        raise ConfigError(
            f"{source}: out_size must be fixed for densities, for their sum is a count; set it to 60x80 or so"
        )
    return config


def typical_size(data: FolderData) -> Size:
    """Median height and width of some training images."""
    shapes = [data.read_image(sample).shape[:2] for sample in data.train[:: max(1, len(data.train) // _SAMPLED)]]
    height, width = np.median(np.array(shapes), axis=0)
    return int(height), int(width)


def open_data(
    path: str | Path, values: Mapping[str, Any], source: str = "the settings"
) -> tuple[FolderData, RunConfig]:
    """The data folder and the checked configuration of a mapping of a run.yaml.

    Raises:
        ConfigError: unknown or wrong settings.
        DataError: images or maps that cannot be used.
    """
    config = make_config(dict(values), source)
    data = FolderData(path, config.task, **config.data)
    decided = {**values, "data": {**(values.get("data") or {}), **data.settle()}}
    return data, configured(decided, data, source)


def open_given(
    data: FolderData | str | Path, task: str | None, settings: Mapping[str, Any]
) -> tuple[FolderData, RunConfig]:
    """As :func:`open_data`, of a FolderData, or of a path together with a task.

    Raises:
        UsageError: no task, or another than the FolderData's.
    """
    if not isinstance(data, FolderData):
        if task is None:
            raise UsageError("a path of data needs task=; for instance task='saliency'")
        return open_data(data, {**settings, "task": task})
    if task not in (None, data.task_name):
        raise UsageError(f"task='{task}' contradicts the FolderData's '{data.task_name}'; leave it out")
    values = {**settings, "task": data.task_name, "data": {**data.options, **data.settle()}}
    return data, configured(values, data)


def require_functions(config: RunConfig, functions: Sequence[str], source: str) -> None:
    """Checks the members of a configuration that a file names, before any of them is built.

    Raises:
        ArtifactError: one is code that is not in ``functions``; see :func:`require_function`.
    """
    for name, member in zip(config.member_names(), config.members, strict=True):
        require_function(source, name, member.backbone, functions)
