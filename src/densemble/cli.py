"""Command line: registers the commands and turns expected errors into one line and an exit code."""

import os
import signal
import sys
import time
import warnings
from types import FrameType

import typer

from densemble.commands import benchmark, data, demo, distill, evaluate, export, inspect, predict, share, train, tune
from densemble.commands.output import say
from densemble.commands.schema import schema
from densemble.errors import DensembleError
from densemble.messages import shown

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn pretrained image classifiers into dense predictors and combine them into one ensemble in one file.",
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
app.command()(distill.distill)
app.command()(evaluate.evaluate)
app.command()(predict.predict)
app.command()(export.export)
app.command()(benchmark.benchmark)
app.command()(share.card)
app.command()(share.push)
app.command()(schema)


def _terminate(number: int, frame: FrameType | None) -> None:
    # The last complete epoch is already on disk; there is nothing else worth saving.
    raise SystemExit(143)


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning without its line of code, which does not help the user."""
    return f"warning: {message}\n"


def main() -> None:
    """Entry point of ``densemble``."""
    signal.signal(signal.SIGTERM, _terminate)
    warnings.formatwarning = _one_line
    try:
        app(obj=time.monotonic())  # --time counts from here
    except DensembleError as error:
        typer.echo(f"densemble: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the output is gone (`| head`); replace stdout, so that closing it does not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
