"""Command line: registers the commands and turns expected errors into one line and an exit code."""

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
from densemble.commands.missing_resources import missing_resource, require_current_folder
from densemble.commands.output import warn
from densemble.errors import DensembleError, ResourceError, Terminated
from densemble.messages import shown
from densemble.terminal import lost_output, open_streams, print_result
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
        print_result(f"densemble {__version__}")
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
    # A training saves a checkpoint first, see densemble.training.interruption; nothing else is worth saving.
    raise Terminated(143)


def _one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Format a warning without its line of code, which does not help the user."""
    return f"warning: {message}\n"


def main() -> None:
    """Entry point of ``densemble``."""
    open_streams()
    signal.signal(signal.SIGTERM, _terminate)
    warnings.formatwarning = _one_line
    code = _run()
    if lost := lost_output():
        warn(f"densemble: cannot write the result to stdout: {lost}")
        code = code or ResourceError.exit_code
    sys.exit(code)


def _run() -> int:
    """Run the command of the arguments; return its exit code."""
    try:
        require_current_folder()
        return app(obj=time.monotonic(), standalone_mode=False) or 0  # --time counts from here
    except DensembleError as error:
        warn(f"densemble: {error}")
        return error.exit_code
    except BrokenPipeError:  # the reader of the help is gone (`| head`)
        return 0
    except Exception as error:
        if missing := missing_resource(error):
            warn(f"densemble: {missing}")
            return ResourceError.exit_code
        message = usage_message(error)
        if message is None:
            raise
        if message:
            warn(f"densemble: {message}")
        return 2
