"""The cache of the user: backend choices, converted networks, results of data checks, extracted archives.

The folder is ``DENSEMBLE_CACHE_DIR``, by default ``~/.cache/densemble``. You can delete it at any time. If the folder
is not writable, everything works without a cache.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

from densemble.errors import ResourceError
from densemble.storage.temporary import TEMPORARY, remove_if_unused, sweep

LIMIT = 4 << 30
"""Maximum total size in bytes of the files in one folder of the cache, such as the converted networks."""
ARCHIVES_LIMIT = 64 << 30
"""Maximum total size in bytes of the extracted archives."""
FOLDERS = ("archives", "checks", "choices", "openvino")
"""Folders of the cache; nothing else in it is counted or removed."""


def user_cache() -> Path:
    """Return the cache folder. Without ``DENSEMBLE_CACHE_DIR`` and a home folder, it lasts as long as this process.

    Raises:
        ResourceError: there is not even a folder for temporary files.
    """
    named = os.environ.get("DENSEMBLE_CACHE_DIR")
    try:
        return Path(named).expanduser() if named else Path.home() / ".cache" / "densemble"
    except RuntimeError:  # no HOME, and no entry in the table of users
        return _cache_of_process(os.getpid())


def cache_part(name: str) -> Path:
    """Return one of the ``FOLDERS`` of the cache; what dead processes left there is removed once.

    Raises:
        ResourceError: see :func:`user_cache`.
    """
    return _swept(user_cache() / name)


@cache
def _swept(folder: Path) -> Path:
    sweep(folder)
    return folder


@cache
def _cache_of_process(pid: int) -> Path:
    try:
        folder = tempfile.mkdtemp(prefix="densemble-")
    except OSError as error:
        raise ResourceError(f"no folder for a cache: {error}; set HOME, DENSEMBLE_CACHE_DIR or TMPDIR") from error

    def remove() -> None:
        if os.getpid() == pid:  # else this is a fork of the process that made it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return Path(folder)


def prune(folder: Path, limit: int = LIMIT) -> None:
    """Delete the least recently used entries of a folder until at most ``limit`` bytes remain.

    Entries are files, or folders that no process uses. What dead processes left is deleted as well.
    """
    sweep(folder)
    with suppress(OSError):
        entries = [entry for entry in folder.iterdir() if not TEMPORARY.fullmatch(entry.name)]
        total = 0
        for entry in sorted(entries, key=lambda entry: -entry.lstat().st_mtime):
            total += bytes_in(entry)
            if total > limit:
                _remove(entry)


def cache_sizes() -> dict[str, int]:
    """Return the bytes in each folder of the cache, by name; absent folders have none."""
    return {name: bytes_in(user_cache() / name) for name in FOLDERS}


def clean_caches() -> dict[str, int]:
    """Empty the folders of the cache, except what a running process uses; return the freed bytes by folder."""
    before = cache_sizes()
    for name in FOLDERS:
        prune(user_cache() / name, 0)
        with suppress(OSError):
            for entry in (user_cache() / name).iterdir():  # empty files and folders
                if not TEMPORARY.fullmatch(entry.name):
                    _remove(entry)
    return {name: size - after for (name, size), after in zip(before.items(), cache_sizes().values(), strict=True)}


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        remove_if_unused(entry)
    else:
        entry.unlink(missing_ok=True)


def bytes_in(path: Path) -> int:
    """Return the bytes of a file or of all files in a folder; links count nothing, an absent path 0."""
    if path.is_symlink():
        return 0
    return sum(_sizes(path)) if path.is_dir() else _size(path)


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size
    return 0


def _sizes(folder: Path) -> Iterator[int]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    yield from _sizes(Path(entry.path))
                elif not entry.is_symlink():
                    yield entry.stat().st_size
