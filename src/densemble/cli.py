"""The command line: wires the commands, turns expected failures into one line and an exit code."""

import os
import signal
import sys
import time
import warnings
from types import FrameType

import typer

from densemble.commands import benchmark, data, demo, evaluate, inspect, predict, train, tune
from densemble.commands.output import say
from densemble.errors import DensembleError
from densemble.messages import shown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Pretrained classifiers become dense predictors; any set of them becomes one ensemble in one file.",
)


@app.callback()
def _show_messages(context: typer.Context) -> None:
    context.with_resource(shown(say))


app.command()(demo.demo)
app.command()(inspect.doctor)
app.command()(inspect.backbones)
app.command()(inspect.cuts)
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(tune.tune)
app.command()(train.assemble)
app.command()(train.leaderboard)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(benchmark.benchmark)


def _terminate(number: int, frame: FrameType | None) -> None:
    # The last finished epoch lies on disk already; there is nothing to save that would be whole.
    raise SystemExit(143)


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning without the line of code that gave it, which says nothing to who reads it."""
    return f"warning: {message}\n"


def main() -> None:
    """Entry point of ``densemble``."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.formatwarning = _one_line
    try:
        app(obj=time.monotonic())  # --time counts from here on
    except DensembleError as error:
        typer.echo(f"densemble: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); closing stdout again must not raise once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
