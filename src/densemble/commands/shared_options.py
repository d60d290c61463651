"""Options that several commands share, and how they become a configuration."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from densemble.config import RunConfig

DataPath = Annotated[Path, typer.Argument(help="Folder with train/images, train/targets, val/images, val/targets.")]
RunPath = Annotated[Path, typer.Argument(help="Run folder of `densemble train`.")]
ArtifactPath = Annotated[Path, typer.Argument(help="NAME.safetensors of `densemble assemble`.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Function = Annotated[
    list[str] | None,
    typer.Option(
        "--function", metavar="MODULE:NAME", help="Code of yours that a file may name as a backbone and have called."
    ),
]
MinMembers = Annotated[
    int | None,
    typer.Option(
        "--min-members", help="Go on without members that are damaged or give NaN while this many remain; default all."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="One setting of run.yaml, for instance training.epochs=5."),
]


def read_settings(
    config: Path | None, task: str | None, members: str | None, settings: list[str] | None
) -> dict[str, Any]:
    """The mapping of a run.yaml with the command line's words on top.

    Raises:
        UsageError: no task is named, or another than the file's.
        ConfigError: the file or a ``--set`` cannot be used.
    """
    from densemble.commands.overrides import with_settings
    from densemble.config import read_config
    from densemble.errors import UsageError
    from densemble.tasks import TASKS, require_task

    values = read_config(config) if config is not None else {}
    written = values.get("task")
    if task is not None and written is not None and task != written:
        raise UsageError(f"--task {task} contradicts 'task: {written}' in '{config}'; leave one of them out")
    if task is None and written is None:
        raise UsageError(f"no task is named; add --task with one of {', '.join(TASKS)}")
    values["task"] = require_task(str(task or written))
    if members is not None:
        values["members"] = [name.strip() for name in members.split(",") if name.strip()]
    return with_settings(values, settings or [])


def function_options(config: "RunConfig") -> list[str]:
    """``--function MODULE:NAME`` for each member that is code of the user's: what the next command has to say again."""
    from densemble.nets.backbones import is_user_function

    names = dict.fromkeys(member.backbone for member in config.members if is_user_function(member.backbone))
    return [word for name in names for word in ("--function", name)]
