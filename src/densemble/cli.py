"""Command line: registers the commands and turns expected errors into one line and an exit code."""

import os
import signal
import sys
import time
import warnings
from types import FrameType
from typing import Annotated

import typer

from densemble.commands import (
    benchmark,
    data,
    demo,
    distill,
    doctor,
    evaluate,
    export,
    inspect,
    predict,
    schema,
    share,
    train,
    tune,
)
from densemble.commands.command import Command, CommandGroup, usage_message
from densemble.commands.output import warn
from densemble.errors import DensembleError
from densemble.messages import shown
from densemble.versions import __version__

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turn pretrained image classifiers into dense predictors and combine them into one ensemble in one file.",
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"densemble {__version__}")
        raise typer.Exit


@app.callback()
def _show_messages(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    context.with_resource(shown(warn))


for command in (
    demo.demo, doctor.doctor, inspect.backbones, inspect.cuts, train.train, tune.tune, train.assemble,
    train.leaderboard, distill.distill, evaluate.evaluate, predict.predict, export.export, benchmark.benchmark,
    share.card, share.push, schema.schema,
):  # fmt: skip
    app.command(cls=Command)(command)
app.add_typer(data.app, name="data")


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
        sys.exit(app(obj=time.monotonic(), standalone_mode=False) or 0)  # --time counts from here
    except DensembleError as error:
        warn(f"densemble: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of the output is gone (`| head`); replace stdout, so that closing it does not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        message = usage_message(error)
        if message is None:
            raise
        if message:
            warn(f"densemble: {message}")
        sys.exit(2)
