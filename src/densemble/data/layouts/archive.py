"""Data sets in ZIP files: check the archive, then extract it once into the cache."""

import hashlib
import lzma
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from densemble.errors import DataError, ResourceError
from densemble.input_files import open_regular
from densemble.storage.temporary import hold
from densemble.storage.user_cache import ARCHIVES_LIMIT, prune, user_cache
from densemble.storage.writing import cache_folder

_MAX_MEMBERS = 200_000
_MAX_BYTES = 64 << 30
_MAX_RATIO = 200  # extracted bytes per archive byte
_MIN_BYTES_FOR_RATIO = 1 << 30  # smaller archives may exceed the ratio


def extract(archive: Path, cache: Path | None = None) -> Path:
    """Extract a ZIP file into a folder below ``cache``, named by the hash of the file, unless it already exists.

    Args:
        archive: ZIP file.
        cache: cache folder; default: that of the user. A folder of the cache is not removed while a process uses it.

    Returns:
        The folder with the extracted files.

    Raises:
        DataError: the file is not a ZIP, is damaged or encrypted, or would write outside its folder, create links or
            fill the disk.
        ResourceError: the cache cannot be written.
    """
    cache = cache or user_cache()
    try:
        folder = cache / "archives" / _fingerprint(archive)
        is_new = not folder.is_dir()
        if is_new:
            _extract_whole(archive, folder)
        hold(folder)
        with suppress(OSError):
            os.utime(folder)  # the order of pruning
        if is_new:
            prune(folder.parent, ARCHIVES_LIMIT)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(
            f"cannot extract '{archive}': {error}; the file is damaged or not a ZIP: copy it again"
        ) from error
    except OSError as error:
        raise ResourceError(
            f"cannot extract '{archive}' into '{cache}': {error.strerror or error}; choose another cache folder with "
            "DENSEMBLE_CACHE_DIR"
        ) from error
    return folder


def _fingerprint(archive: Path) -> str:
    with open_regular(archive) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _extract_whole(archive: Path, folder: Path) -> None:
    """Extract into a temporary folder, then rename it, so that the folder is never incomplete."""
    with zipfile.ZipFile(archive) as file:
        members = [m for m in file.infolist() if not m.is_dir() and not m.filename.startswith("__MACOSX/")]
        _require_safe(archive, members)
        with cache_folder(folder, "choose another cache folder with DENSEMBLE_CACHE_DIR") as whole:
            for member in members:
                _extract_member(archive, file, member, whole / member.filename)


def _extract_member(archive: Path, file: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file.open(member) as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"'{archive}' holds a file and a folder of the same name; make a plain ZIP of the folder"
        ) from error


def _require_safe(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > _MAX_MEMBERS:
        raise DataError(f"'{archive}' holds {len(members)} files, more than {_MAX_MEMBERS}; extract it yourself")
    for member in members:
        reason = _danger(member)
        if reason:
            raise DataError(f"'{archive}' is refused: '{member.filename}' {reason}; make a plain ZIP of the folder")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise DataError(f"'{archive}' holds two files of the same name; make a plain ZIP of the folder")
    # zipfile reads at most the declared size of a member, so this sum limits the bytes written.
    size, packed = sum(member.file_size for member in members), archive.stat().st_size
    if size > _MAX_BYTES or (size > _MIN_BYTES_FOR_RATIO and size > _MAX_RATIO * packed):
        raise DataError(
            f"'{archive}' of {packed >> 20} MiB would fill {size >> 20} MiB; if you trust it, extract it yourself and "
            "give the folder"
        )


def _danger(member: zipfile.ZipInfo) -> str | None:
    """Reason why a member must not be extracted."""
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        return "lies outside the folder"
    if "\\" in member.orig_filename or re.match("[A-Za-z]:", member.filename):
        return "has a drive or a backslash in its name"
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a device"
    return "is encrypted" if member.flag_bits & 1 else None
