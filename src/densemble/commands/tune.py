"""The command ``tune``: search the best cut, head and learning rates of one backbone."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.named_values import SEARCHED, completed, listed
from densemble.commands.output import print_json, print_table, say
from densemble.commands.progress import command_progress
from densemble.commands.shared_options import (
    BackboneName,
    ConfigPath,
    DataPath,
    Function,
    Json,
    Quiet,
    Set,
    TaskName,
    allowed_names,
    function_options,
    read_settings,
    split_names,
)

if TYPE_CHECKING:
    from densemble.tuning import TuneResult

TRIALS_SHOWN = 10


def tune(
    data: DataPath,
    backbone: BackboneName,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Output folder; an interrupted search in this folder is continued.")
    ],
    task: TaskName = None,
    trials: Annotated[int, typer.Option(min=1, help="Total number of trials, including those of earlier calls.")] = 20,
    time: Annotated[str | None, typer.Option(help="Start no new trial after this time, for example 30m.")] = None,
    space: Annotated[
        str | None,
        typer.Option(
            autocompletion=completed(SEARCHED, several=True),
            help=f"Comma-separated parameters to search: {listed(SEARCHED, 'and')}.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs per trial. Default: training.epochs.")] = None,
    config: ConfigPath = None,
    setting: Set = None,
    function: Function = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Search the best cut, head and learning rates of one backbone; write the best settings to OUT/best.yaml."""
    with command_progress():
        from densemble.commands.argument_order import require_data
        from densemble.engines.budget import parse_time
        from densemble.engines.configure import open_data, require_functions
        from densemble.tuning import run_search

        seconds = parse_time(time)
        require_data("tune", data)
        values = _with_member(read_settings(config, task, None, None), backbone, epochs, setting or [])
        names = split_names(space) if space is not None else None
        folder, settings = open_data(data, values, str(config or "the settings"))
        if config is not None:
            require_functions(settings, allowed_names(function, setting, backbone), f"'{config}'")
        try:
            result = run_search(folder, settings, out, trials, seconds, names)
        except (KeyboardInterrupt, SystemExit):
            say(f"densemble: stopped; finished trials are kept in '{out}', run the same command again to continue")
            raise
    words = ["densemble", "train", str(data), "--config", str(result.config), "-o", str(out / "run")]
    next_command = shlex.join([*words, *function_options(settings)])
    if json:
        print_json(_as_json(result, next_command))
    else:
        _show(result)
    say(f"next: {next_command}")


def _with_member(values: dict[str, Any], backbone: str, epochs: int | None, settings: list[str]) -> dict[str, Any]:
    """Settings with a single member: the one of the file with this backbone, otherwise only the backbone."""
    from densemble.commands.overrides import with_settings

    members = [{"backbone": member} if isinstance(member, str) else member for member in values.get("members") or []]
    member = next((m for m in members if isinstance(m, dict) and m.get("backbone") == backbone), {"backbone": backbone})
    values = with_settings({**values, "members": [member]}, settings)
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
        for t in result.ranking[:TRIALS_SHOWN]
    ]
    print_table(["trial", result.metric, *names, "epochs", "seconds"], rows)
    counts = {state: sum(t.state == state for t in result.trials) for state in ("done", "pruned", "failed")}
    say(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    if result.importance:
        say("importance: " + ", ".join(f"{name} {share:.2f}" for name, share in result.importance.items()))


def _cell(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value  # the four decimals of a table are too few for 0.0002
