"""Command-line options used by several commands, and their conversion to settings."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.named_values import PRESETS, SPLITS, TASKS, complete_backbone, completed, listed

if TYPE_CHECKING:
    from densemble.config import RunConfig

DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="Data folder with images and targets, or with train and val that contain them; or another known layout.",
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder written by `densemble train`.")]


def local_artifact(text: str) -> Path:
    """Return the path of an artifact; one with an ``hf://`` address is downloaded unless it is in the hub's cache.

    Raises:
        UsageError, ArtifactError, ResourceError: see :func:`densemble.storage.hub_download.download`.
    """
    from densemble.storage.hub_download import download, hub_address

    address = hub_address(text)
    return Path(text) if address is None else download(address)


ArtifactPath = Annotated[
    Path,
    typer.Argument(
        parser=local_artifact, metavar="ARTIFACT", help="NAME.safetensors, a run folder, or hf://USER/NAME."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]


def _be_quiet(quiet: bool) -> bool:
    if quiet:
        logging.getLogger("densemble").setLevel(logging.WARNING)  # the command line restores the level at its end
    return quiet


Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=_be_quiet, help="Show only warnings and errors, no progress.")
]
TaskName = Annotated[
    str | None,
    typer.Option("--task", autocompletion=completed(TASKS), help=f"Task: {listed(TASKS)}."),
]
PresetName = Annotated[
    str | None,
    typer.Option("--preset", autocompletion=completed(PRESETS), help=f"Predefined settings: {listed(PRESETS)}."),
]
BackboneName = Annotated[str, typer.Option("--backbone", autocompletion=complete_backbone, help="Backbone to tune.")]
ConfigPath = Annotated[Path | None, typer.Option("--config", help="Settings file (run.yaml) to start from.")]
Split = Annotated[
    str | None,
    typer.Option(
        "--split",
        autocompletion=completed(SPLITS),
        help=f"Split: {listed(SPLITS)}. Default: test if the data set has one, else val.",
    ),
]
Device = Annotated[str, typer.Option("--device", help="Device: cpu, cuda, cuda:1, ...; auto: the GPU if there is one.")]
Function = Annotated[
    list[str] | None,
    typer.Option(
        "--function",
        metavar="MODULE:NAME",
        help="Allow a file to import and call this Python object: a backbone, head, loss or combination rule.",
    ),
]
MinMembers = Annotated[
    int | None,
    typer.Option(
        "--min-members",
        help="Leave out members that are damaged or return NaN if at least this many remain. Default: all members.",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one setting of run.yaml, for example training.epochs=5."),
]


def read_settings(
    config: Path | None, task: str | None, members: str | None, settings: list[str] | None
) -> dict[str, Any]:
    """Read a run.yaml and apply the options of the command line.

    Args:
        config: run.yaml; ``None`` starts from no settings.
        task: value of ``--task``.
        members: value of ``--members``, names separated by commas.
        settings: values of ``--set``.

    Raises:
        UsageError: no task is given, or ``--task`` contradicts the file.
        ConfigError: the file or a ``--set`` is invalid.
    """
    from densemble.commands.overrides import with_settings
    from densemble.config import read_config
    from densemble.errors import UsageError
    from densemble.tasks import TASKS, require_task

    values = read_config(config) if config is not None else {}
    task_in_file = values.get("task")
    if task is not None and task_in_file is not None and task != task_in_file:
        raise UsageError(f"--task {task} contradicts 'task: {task_in_file}' in '{config}'; leave one of them out")
    if task is None and task_in_file is None:
        raise UsageError(f"no task is named; add --task with one of {', '.join(TASKS)}")
    values["task"] = require_task(str(task or task_in_file))
    if members is not None:
        values["members"] = split_names(members)
    return with_settings(values, settings or [])


def allowed_names(function: list[str] | None, setting: list[str] | None, *arguments: str | None) -> list[str]:
    """Names of user code that the command line allows: those after ``--function``, and those typed elsewhere.

    Args:
        function: values of ``--function``.
        setting: values of ``--set``.
        arguments: values of ``--members``, ``--backbone`` or ``--student``.
    """
    from densemble.user_code import named_functions

    return [*(function or ()), *named_functions([*(setting or ()), *(text or "" for text in arguments)])]


def split_names(text: str) -> list[str]:
    """Split names at commas, without spaces and empty names."""
    return [name.strip() for name in text.split(",") if name.strip()]


def function_options(config: "RunConfig") -> list[str]:
    """``--function MODULE:NAME`` for each backbone, head and loss that is user code, as later commands need them."""
    from densemble.engines.configure import user_functions

    return [word for name in user_functions(config) for word in ("--function", name)]
