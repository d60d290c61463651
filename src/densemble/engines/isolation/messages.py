"""What the process of a job and the process that started it send each other."""

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from densemble.progress.phases import Epoch, Mirror, Phase, end_epoch, set_suspended


@dataclass(frozen=True)
class Job:
    """What the process of a job needs beside the function.

    Attributes:
        call: pickled function and arguments.
        folder, search_path, environment: working directory, ``sys.path`` and environment variables.
        threads: threads of torch.
        levels: levels of loggers, by name.
        registered: names of the rows in each registry, see :func:`registered_names`.
        forwarded: names of the streams, ``stdout`` and ``stderr``, whose text is sent back.
    """

    call: bytes
    folder: str
    search_path: list[str]
    environment: dict[str, str]
    threads: int
    levels: dict[str, int]
    registered: dict[str, set[str]]
    forwarded: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The job cannot run in another process; nothing has been done."""

    reason: str


@dataclass(frozen=True)
class Result:
    """The function returned."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """The function raised."""

    error: BaseException


@dataclass(frozen=True)
class Logged:
    """A log record."""

    values: dict[str, Any]

    def replay(self, mirror: Mirror) -> None:
        record = logging.makeLogRecord(self.values)
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


@dataclass(frozen=True)
class Warned:
    """A Python warning."""

    text: str
    category: str
    file: str
    line: int

    def replay(self, mirror: Mirror) -> None:
        category = getattr(sys.modules["builtins"], self.category, UserWarning)
        warnings.warn_explicit(self.text, category, self.file, self.line)


@dataclass(frozen=True)
class Phases:
    """The open phases of the process, with a number that identifies each."""

    phases: tuple[tuple[int, Phase], ...]

    def replay(self, mirror: Mirror) -> None:
        mirror.show(self.phases)


@dataclass(frozen=True)
class EpochEnded:
    """The end of an epoch."""

    epoch: Epoch

    def replay(self, mirror: Mirror) -> None:
        end_epoch(self.epoch)


@dataclass(frozen=True)
class Suspended:
    """Whether other processes write to the terminal."""

    is_suspended: bool

    def replay(self, mirror: Mirror) -> None:
        set_suspended(self.is_suspended)


@dataclass(frozen=True)
class Printed:
    """Text that the function printed."""

    stream: str
    text: str

    def replay(self, mirror: Mirror) -> None:
        stream = getattr(sys, self.stream)
        if stream is not None:
            stream.write(self.text)


@dataclass(frozen=True)
class JobLimits:
    """Times after which a job is ended.

    Attributes:
        stall: seconds without any message.
        seconds: seconds since its start.
        stalled, late: what the errors say, with a place for the seconds.
    """

    stall: float | None = None
    seconds: float | None = None
    stalled: str = "no progress for {:g} s"
    late: str = "not finished after {:.0f} s"


NO_LIMITS = JobLimits()
Send = Callable[[Any], None]
"""Sends a message."""


REGISTRIES = {
    "HEADS": "densemble.nets.heads",
    "TASKS": "densemble.tasks",
    "LAYOUTS": "densemble.data.layouts",
    "AUGMENT": "densemble.data.transforms",
    "AVERAGING": "densemble.training.averaging",
    "LOGGERS": "densemble.training.loggers",
}
"""Registries that programs may add rows to, by name, and their modules."""


def registered_names() -> dict[str, set[str]]:
    """Return the names of the rows in each registry."""
    return {name: set(getattr(import_module(module), name)) for name, module in REGISTRIES.items()}
