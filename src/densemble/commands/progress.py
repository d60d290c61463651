"""Progress of a command: a live table in a terminal, lines elsewhere, nothing with ``--quiet``."""

from collections.abc import Iterator
from contextlib import contextmanager

from densemble.commands.output import is_quiet
from densemble.progress.display import shown_progress
from densemble.progress.phases import Silent, listening


@contextmanager
def command_progress() -> Iterator[None]:
    """Show the progress of the work inside the context on stderr, unless the command is quiet."""
    with listening(Silent()) if is_quiet() else shown_progress():
        yield
