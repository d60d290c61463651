"""User code named ``package.module:NAME``: the names in settings and files, and the objects that they stand for.

A name in a file is imported only if the user allows it, see :func:`require_allowed`. The current folder is searched
only for such an import, and after all other folders, so that its files never replace an installed module.
"""

import re
import sys
from collections.abc import Iterable, Sequence
from importlib import import_module, invalidate_caches
from pathlib import Path
from typing import Any

from densemble.errors import ArtifactError, UsageError

_NAMES = re.compile(r"[\w.]+:\w+")


def is_user_function(name: str) -> bool:
    """Whether the name is ``package.module:NAME``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def named_functions(texts: Iterable[str]) -> list[str]:
    """Return the names ``package.module:NAME`` that occur in texts, such as the arguments of a command."""
    return [name for text in texts for name in _NAMES.findall(text) if is_user_function(name)]


def require_allowed(source: str, parts: Iterable[tuple[str, str]], functions: Sequence[str]) -> None:
    """Check that the names in a file are not those of user code, or that the caller allows this code.

    Args:
        source: name of the file in messages.
        parts: what has a name, in messages (``member 'resnet'``, ``the loss``, ...), and the name of its backbone,
            head, loss or combination rule in the file.
        functions: names ``package.module:NAME`` that may be imported and called.

    Raises:
        ArtifactError: names of user code that are not in ``functions``; the message lists the options that allow them.
    """
    refused = [(part, name) for part, name in parts if is_user_function(name) and name not in functions]
    if not refused:
        return
    part, name = refused[0]
    names = list(dict.fromkeys(name for _, name in refused))
    raise ArtifactError(
        f"{source}: {part} is built by calling {name}, code that this file only names; if you trust it, load with "
        f"functions={names}, on the command line {' '.join(f'--function {name}' for name in names)}"
    )


def import_name(name: str) -> Any:
    """Import the object named ``package.module:NAME``.

    If no installed module and no folder of ``PYTHONPATH`` has this name, it is searched in the current folder. Then
    this folder stays the last entry of ``sys.path``, because the module may import its neighbours later.

    Raises:
        Exception: anything that the import raises.
    """
    module, _, function = name.partition(":")
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError as error:
        folder = str(Path.cwd())
        if error.name is None or not f"{module}.".startswith(f"{error.name}.") or folder in sys.path:
            raise
    sys.path.append(folder)
    invalidate_caches()
    try:
        return getattr(import_module(module), function)
    except ModuleNotFoundError:
        sys.path.remove(folder)
        raise


def user_object(name: str, what: str) -> Any:
    """Import an object of the user.

    Args:
        name: ``package.module:NAME``.
        what: what it is used for, in messages: ``head``, ``loss``, ...

    Raises:
        UsageError: the import fails.
    """
    try:
        return import_name(name)
    except Exception as error:  # code of the user may raise anything
        raise UsageError(
            f"{what} '{name}': the import failed with {type(error).__name__}: {error}; it must be defined at the top "
            "level of a module that can be imported from this folder"
        ) from error


def shape_or_type(value: Any) -> str:
    """Describe what user code returned, for messages: the shape of a tensor, or the type of anything else."""
    return str(tuple(value.shape)) if hasattr(value, "shape") else type(value).__name__


def name_of(part: Any, what: str) -> str:
    """Return the name of a function or class, ``module:qualified name``; text is returned unchanged.

    Raises:
        UsageError: the object has no name, like an instance of a class.
    """
    if isinstance(part, str):
        return part
    module, name = getattr(part, "__module__", None), getattr(part, "__qualname__", None)
    if not callable(part) or module is None or name is None:
        raise UsageError(f"{what}: a {type(part).__name__} object has no name that files can store; {_remedy(what)}")
    return f"{module}:{name}"


def importable_name(part: Any, what: str) -> str:
    """Return the name by which a function or class can be imported again; text is returned unchanged.

    Raises:
        UsageError: it cannot be imported by its name, because it is a lambda, local to a function, or an instance.
    """
    if isinstance(part, str):
        return part
    name = name_of(part, what)
    if not is_user_function(name) or user_object(name, what) is not part:
        raise UsageError(f"{what}: '{name}' cannot be imported by this name, as files need it; {_remedy(what)}")
    return name


def _remedy(what: str) -> str:
    return f"assign it to a name at the top level of a module, such as my_parts.py, and give {what}='my_parts:NAME'"
