"""tune: the best cut, head and rates of one backbone."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.output import print_json, print_table, say
from densemble.commands.shared_options import DataPath, Json, Set, function_options, read_settings

if TYPE_CHECKING:
    from densemble.tuning import TuneResult

SHOWN = 10


def tune(
    data: DataPath,
    backbone: Annotated[str, typer.Option("--backbone", help="The backbone to search for.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the search; one that was cut off goes on.")],
    task: Annotated[
        str | None, typer.Option(help="saliency, segmentation, multilabel, depth, regression, heatmap or image.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Trials in the end, those of earlier calls included.")] = 20,
    time: Annotated[str | None, typer.Option(help="No trial begins after it, for instance 30m.")] = None,
    space: Annotated[
        str | None,
        typer.Option(help="What is searched: cut, head, learning_rate, backbone_share, augment; joined by commas."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of a trial.")] = None,
    config: Annotated[Path | None, typer.Option(help="run.yaml to start from.")] = None,
    setting: Set = None,
    json: Json = False,
) -> None:
    """Search the best cut, head and rates of one backbone by training trials; OUT/best.yaml holds what was found."""
    from densemble.engines.budget import parse_time
    from densemble.engines.configure import open_data
    from densemble.tuning import run_search

    seconds = parse_time(time)
    values = _with_member(read_settings(config, task, None, None), backbone, epochs, setting or [])
    names = [name.strip() for name in space.split(",") if name.strip()] if space is not None else None
    folder, settings = open_data(data, values, str(config or "the settings"))
    try:
        result = run_search(folder, settings, out, trials, seconds, names)
    except (KeyboardInterrupt, SystemExit):
        say(f"densemble: stopped; finished trials are kept in '{out}', the same command goes on with the others")
        raise
    words = ["densemble", "train", str(data), "--config", str(result.config), "-o", str(out / "run")]
    next_command = shlex.join([*words, *function_options(settings)])
    if json:
        print_json(_as_json(result, next_command))
    else:
        _show(result)
    say(f"next: {next_command}")


def _with_member(values: dict[str, Any], backbone: str, epochs: int | None, settings: list[str]) -> dict[str, Any]:
    """The settings with one member: the file's of this backbone where it has one, else the backbone by itself."""
    from densemble.commands.overrides import with_settings

    written = [{"backbone": member} if isinstance(member, str) else member for member in values.get("members") or []]
    own = next((m for m in written if isinstance(m, dict) and m.get("backbone") == backbone), {"backbone": backbone})
    values = with_settings({**values, "members": [own]}, settings)
    return values if epochs is None else with_settings(values, [f"members.0.epochs={epochs}"])


def _as_json(result: "TuneResult", next_command: str) -> dict[str, Any]:
    best = result.best
    return {
        "out": str(result.path),
        "metric": result.metric,
        "best": best and best.as_row(),
        "config": str(result.config),
        "importance": result.importance,
        "trials": [trial.as_row() for trial in result.trials],
        "next": next_command,
    }


def _show(result: "TuneResult") -> None:
    names = list(dict.fromkeys(name for trial in result.trials for name in trial.values))
    rows = [
        [t.number, t.score, *(_cell(t.values.get(name)) for name in names), t.epochs, t.seconds]
        for t in result.ranking[:SHOWN]
    ]
    print_table(["trial", result.metric, *names, "epochs", "seconds"], rows)
    counts = {state: sum(t.state == state for t in result.trials) for state in ("done", "pruned", "failed")}
    say(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    if result.importance:
        say("importance: " + ", ".join(f"{name} {share:.2f}" for name, share in result.importance.items()))


def _cell(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value  # a table's four decimals say nothing of 0.0002
