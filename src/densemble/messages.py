"""Messages: where the lines of the loggers ``densemble.*`` are shown, beside the handlers of the program."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Lines(logging.Handler):
    """Calls a function with the text of each record; what the function raises reaches who logs."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))


@contextmanager
def shown(write: Callable[[str], None] | None) -> Iterator[None]:
    """Calls ``write`` with each line that densemble logs while the context is open; ``None`` changes nothing."""
    if write is None:
        yield
        return
    logger, handler = logging.getLogger("densemble"), _Lines(write)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(logging.INFO, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
