"""Versions of densemble and of the packages that it uses."""

from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"
"""The version of densemble; the build reads it from this file."""


def installed_version(name: str) -> str | None:
    """Return the version of a package, ``None`` if it is not installed; densemble also runs from its source alone."""
    if name == "densemble":
        return __version__
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def installed_versions(*names: str) -> dict[str, str | None]:
    """Return the version of each package, see :func:`installed_version`."""
    return {name: installed_version(name) for name in names}
