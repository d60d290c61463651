"""User code named ``package.module:NAME``: the names in settings and files, and the objects that they stand for.

A name in a file is imported only if the user allows it, see :func:`densemble.storage.artifact.require_function`.
"""

import sys
from importlib import import_module
from typing import Any

from densemble.errors import UsageError


def is_user_function(name: str) -> bool:
    """Whether the name is ``package.module:NAME``."""
    module, colon, function = name.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def import_name(name: str) -> Any:
    """Import the object named ``package.module:NAME``; modules of the current folder are found as by ``python -m``.

    Raises:
        Exception: anything that the import raises.
    """
    module, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    return getattr(import_module(module), function)


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
