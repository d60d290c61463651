"""Text for people: characters that a terminal would obey are made visible, and a closed stream stops no work."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_DIRECTION = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # text that is shown in another order than it has
_BREAKS = "\u2028\u2029"
_SURROGATES = "\ud800-\udfff"  # bytes of file names that are no text
_HIDDEN = re.compile(f"[{_CONTROL}{_DIRECTION}{_BREAKS}{_SURROGATES}]")


def visible(text: str) -> str:
    r"""Replace control characters, except tabs and line ends, by their escapes: ``\x1b`` for the escape character."""
    return _HIDDEN.sub(_escape, text)


def json_text(text: str) -> str:
    """Replace the same characters in JSON, which reads as the same values afterwards."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


_lost: list[str] = []  # why results that were printed on stdout are lost


def open_streams() -> None:
    """Connect closed standard streams to nothing, so that no file of the program takes their place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)  # else print would write messages to stdout


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal; a closed one is none."""
    with suppress(ValueError, AttributeError):  # a closed, absent or replaced stream
        return bool(stream and stream.isatty())
    return False


def print_line(text: str, stream: TextIO | None) -> None:
    """Print a line of :func:`visible` text; if the stream is closed or full, drop it and everything after it."""
    if stream is not None:
        try:
            _print(text, stream)
        except (OSError, ValueError):
            _silence(stream)


def print_result(text: str) -> None:
    """Print a line of :func:`visible` text on stdout. If that fails, the work goes on, see :func:`lost_output`."""
    if sys.stdout is None:
        _lost.append("it is closed")
        return
    with _standard_output(sys.stdout):
        _print(text, sys.stdout)


def lost_output() -> str | None:
    """Flush the streams; return why something that was printed on stdout is lost, and forget it.

    A reader that closed its pipe lost nothing. Without the flush, Python would do it and change the exit code.
    """
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except (OSError, ValueError):
        _silence(sys.stderr)
    if sys.stdout is not None:
        with _standard_output(sys.stdout):
            sys.stdout.flush()
    reason = _lost[0] if _lost else None
    _lost.clear()
    return reason


@contextmanager
def _standard_output(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # the reader has read enough (`| head`)
        _silence(stream)
    except (OSError, ValueError) as error:
        _lost.append(getattr(error, "strerror", None) or str(error))
        _silence(stream)


def _print(text: str, stream: TextIO) -> None:
    line = f"{visible(text)}\n"
    try:
        stream.write(line)
    except UnicodeEncodeError:  # the encoding of the stream lacks a character
        encoding = stream.encoding or "ascii"
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def _silence(stream: TextIO) -> None:
    """Connect a stream to nothing; else Python would fail when it flushes the stream at its end."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
