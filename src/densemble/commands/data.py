"""The commands ``data check`` and ``data show``: inspect a data folder before training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.command import Command, CommandGroup
from densemble.commands.named_values import AUGMENT, SPLITS, TASKS, completed, listed
from densemble.commands.output import print_json, print_table, say
from densemble.commands.progress import command_progress
from densemble.commands.shared_options import DataPath, Json, Set, read_settings
from densemble.terminal import print_result

if TYPE_CHECKING:
    from densemble.config import RunConfig

app = typer.Typer(cls=CommandGroup, no_args_is_help=True, help="Check a data folder and draw samples of it.")

TaskOrGuess = Annotated[
    str | None,
    typer.Option(
        "--task",
        autocompletion=completed(TASKS),
        help=f"Task of the targets: {listed(TASKS)}. Default: guessed from the target files.",
    ),
]


@app.command(cls=Command)
def check(
    data: DataPath,
    task: TaskOrGuess = None,
    setting: Set = None,
    json: Json = False,
    page: Annotated[Path | None, typer.Option(help="HTML page to write, with example images.")] = None,
    leave_out: Annotated[
        Path | None, typer.Option(help="File to write the names of pairs with errors to, for data.leave_out.")
    ] = None,
) -> None:
    """Read every file once and list all problems with their remedies. The exit code is 3 if there are errors."""
    from densemble.commands.argument_order import require_data
    from densemble.data.check import write_leave_out
    from densemble.data.folder import FolderData
    from densemble.data_options import DataOptions
    from densemble.engines.data_check import check_and_cache
    from densemble.report.data_page import verdict, write_data_page

    require_data("data check", data)
    config, guessed = _configured(data, task, setting)
    options: DataOptions = {**config.data, "skip_unpaired": True}
    with command_progress():
        folder = FolderData(data, config.task, **options)
        facts = check_and_cache(folder, "warning" if config.data["skip_unpaired"] else "error")
    if guessed:
        facts["guessed"] = guessed
    if page is not None:
        write_data_page(folder, facts, page)
        say(f"wrote {page}")
    if leave_out is not None:
        say(f"wrote {write_leave_out(facts, leave_out)} names to {leave_out}; use --set data.leave_out={leave_out}")
    if json:
        print_json(facts)
    else:
        _print_facts(facts)
        _print_problems(facts)
        print_result(verdict(facts))
    if not facts["ok"]:
        raise typer.Exit(3)


@app.command(cls=Command)
def show(
    data: DataPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="PNG file to write.")] = Path("preview.png"),
    task: TaskOrGuess = None,
    count: Annotated[int, typer.Option(min=1, max=64, help="Number of samples.")] = 8,
    split: Annotated[
        str, typer.Option(autocompletion=completed(SPLITS), help=f"Split of the samples: {listed(SPLITS)}.")
    ] = "train",
    augmented: Annotated[
        str | None,
        typer.Option(
            autocompletion=completed(AUGMENT), help=f"Add three augmented variants of each sample: {listed(AUGMENT)}."
        ),
    ] = None,
    setting: Set = None,
) -> None:
    """Draw samples and their targets into one PNG file."""
    from densemble.commands.argument_order import require_data
    from densemble.data.folder import FolderData
    from densemble.report.preview import draw_preview

    require_data("data show", data)
    config, _ = _configured(data, task, setting)
    folder = FolderData(data, config.task, **config.data)
    draw_preview(folder, count, out, split, augmented, config.input_size)
    say(f"wrote {out}")


def _configured(data: Path, task: str | None, setting: list[str] | None) -> "tuple[RunConfig, str | None]":
    """Return the settings, and the reason for the task if it was guessed."""
    from densemble.config import make_config
    from densemble.data.check import guess_task

    reason = None
    if task is None:
        task, reason = guess_task(data)
        say(f"task guessed as {task}: {reason}; set it with --task")
    return make_config(read_settings(None, task, None, setting)), reason


def _print_facts(facts: dict[str, Any]) -> None:
    from densemble.data.heat_scale import told

    print_result(f"{facts['data']}: {facts['task']}, layout '{facts['layout']}', split by {facts['split_by']}")
    rows = []
    for name, split in facts["splits"].items():
        sizes = ", ".join(f"{size} ({count})" for size, count in split["sizes"].items())
        rows.append([name, split["pairs"], split["usable"], split["with_fixations"], sizes, _target_facts(split)])
    print_table(["split", "pairs", "readable", "fixations", "sizes", "targets"], rows)
    if facts["heat_max"] is not None:
        print_result(f"\n{told(facts['heat_max'])}")
    if facts["pictures"]["no_data_share"]:
        print_result(f"\nno data: {facts['pictures']['no_data_share']:.1%} of the image pixels")
    shares = {name: split["class_share"] for name, split in facts["splits"].items() if split.get("class_share")}
    if shares:
        print_result("")
        rows = [[label, *(100 * share[label] for share in shares.values())] for label in facts["classes"]]
        print_table(["class", *(f"% of {name}" for name in shares)], rows)


def _target_facts(split: dict[str, Any]) -> str:
    parts = []
    if split.get("values"):
        low, high = split["values"]
        parts.append(f"{low:g} to {high:g}, mean {split['mean']:g}")
    if split.get("invalid_share"):
        parts.append(f"{split['invalid_share']:.1%} invalid")
    if "ignored_label" in split:
        parts.append(f"{split['ignored_share']:.1%} ignored (label {split['ignored_label']})")
    if split.get("points"):
        parts.append(f"{split['points']['total']:g} points")
    return "; ".join(parts)


def _print_problems(facts: dict[str, Any]) -> None:
    from densemble.data.check import group

    for problems in group(facts["problems"]):
        print_result("\n" + "\n".join(problems.lines()))
    if facts["problems"]:
        print_result("")
