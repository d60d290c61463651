"""Show the log lines of ``densemble.*``, in addition to the handlers of the program."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from densemble.terminal import visible


class _LineHandler(logging.Handler):
    """Calls a function with the text of each record; an exception from it propagates to the logging call.

    A closed or full stream raises none: what cannot be shown must not stop the work.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self.write(visible(self.format(record)))


@contextmanager
def shown(write: Callable[[str], None] | None) -> Iterator[None]:
    """Call ``write`` with each line that densemble logs inside the context; ``None`` changes nothing."""
    if write is None:
        yield
        return
    logger, handler = logging.getLogger("densemble"), _LineHandler(write)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
