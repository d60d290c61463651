"""Exceptions of densemble and the exit codes of the command line.

    DensembleError              1   any other failure
    ├── UsageError              2   an unusable argument or setting
    │   ├── ConfigError         2   run.yaml or --set: unknown key, wrong value
    │   └── CutError            2   a cut that does not exist or whose map is too small
    ├── DataError               3   unusable images or targets
    ├── ArtifactError           4   a damaged, unknown or incomplete artifact or run
    ├── PartialError            5   some members or images failed, the others are done
    ├── ResourceError           6   a folder that is not writable, no memory, no device
    │   └── WeightsError        6   pretrained weights that are absent, unreadable or do not fit
    ├── DivergedError           7   the training loss became NaN or infinite
    └── ExportError             8   an exported file that cannot be made, or does not match the ensemble

Every message says what is wrong, where, and how to fix it.
"""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class DensembleError(Exception):
    """Base of every expected failure of densemble."""

    exit_code = 1


class UsageError(DensembleError):
    """An unusable argument or setting."""

    exit_code = 2


class ConfigError(UsageError):
    """An unusable run.yaml file or ``--set`` option."""


class CutError(UsageError):
    """A cut that does not exist or whose feature map is too small."""


class DataError(DensembleError):
    """Unusable images or targets."""

    exit_code = 3


class ArtifactError(DensembleError):
    """A damaged, unknown or incomplete artifact or run folder."""

    exit_code = 4


class PartialError(DensembleError):
    """Some members or images failed; the others are done."""

    exit_code = 5


class ResourceError(DensembleError):
    """A missing resource: a folder that is not writable, no memory, no such device."""

    exit_code = 6


class WeightsError(ResourceError):
    """Pretrained weights that are absent, unreadable or do not fit the network."""


class DivergedError(DensembleError):
    """The training loss became NaN or infinite."""

    exit_code = 7


class ExportError(DensembleError):
    """An exported file that cannot be made, or whose maps differ from those of the ensemble."""

    exit_code = 8


class Terminated(SystemExit):
    """The process got SIGTERM; not a failure of the work."""


@contextmanager
def needs_package(package: str, purpose: str, extra: str) -> Iterator[None]:
    """Turn the ImportError of an optional package into an error that says what to install.

    Args:
        package: name of the package.
        purpose: what needs it, the subject of the message.
        extra: extra of densemble that installs it.

    Raises:
        UsageError: the package cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        message = f"{purpose} needs {package} ({error}); install it with pip install 'densemble[{extra}]'"
        raise UsageError(message) from error


def did_you_mean(name: str, known: Iterable[str], most: int = 2) -> str:
    """Return ``"did you mean 'a' or 'b'? "`` for the known names most similar to a name; empty if none is similar."""
    names = list(known)
    near = difflib.get_close_matches(name.lower(), names, n=most, cutoff=0.55)
    near = near or ([other for other in names if name.lower() in other][:most] if len(name) > 1 else [])
    return f"did you mean {' or '.join(repr(other) for other in near)}? " if near else ""


def unknown_name(noun: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that does not exist: the most similar names, and all names."""
    names = list(known)
    return f"no {noun} is named '{name}'; {did_you_mean(name, names)}there are: {', '.join(names)}"


def error_text(error: BaseException) -> str:
    """Return the text of an error, with its type if it is not a :class:`DensembleError`."""
    return str(error) if isinstance(error, DensembleError) else f"{type(error).__name__}: {error}"


def error_like(cause: BaseException | None, message: str) -> DensembleError:
    """Return an error with the type of its cause, and so with its exit code, if that is a :class:`DensembleError`."""
    return type(cause)(message) if isinstance(cause, DensembleError) else DensembleError(message)
