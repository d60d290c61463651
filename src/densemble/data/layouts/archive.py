"""Data sets in a ZIP file: looked through, then extracted once into the cache."""

import hashlib
import lzma
import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from densemble.errors import DataError, ResourceError

_MOST_MEMBERS = 200_000
_MOST_BYTES = 64 << 30
_BYTES_FREE_OF_RATIO = 1 << 30
_HIGHEST_RATIO = 200


def extract(archive: Path, cache: Path | None = None) -> Path:
    """The folder that a ZIP file was extracted into, below ``cache`` and named by the file's content.

    Default for the cache: ``DENSEMBLE_CACHE_DIR``, else ``~/.cache/densemble``.

    Raises:
        DataError: no ZIP, damaged, encrypted, or it would write outside its folder, make links or fill the disk.
        ResourceError: the cache cannot be written.
    """
    cache = cache or Path(os.environ.get("DENSEMBLE_CACHE_DIR") or Path.home() / ".cache" / "densemble")
    try:
        folder = cache / "archives" / _fingerprint(archive)
        if not folder.is_dir():
            _extract_whole(archive, folder)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(f"cannot extract '{archive}': {error}; the file is damaged or no ZIP: copy it again") from error
    except (FileExistsError, NotADirectoryError) as error:
        raise DataError(
            f"'{archive}' holds a file and a folder of the same name; make a plain ZIP of the folder"
        ) from error
    except OSError as error:
        raise ResourceError(
            f"cannot extract '{archive}' into '{cache}': {error.strerror or error}; choose another cache folder with "
            "DENSEMBLE_CACHE_DIR"
        ) from error
    return folder


def _fingerprint(archive: Path) -> str:
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def _extract_whole(archive: Path, folder: Path) -> None:
    """Extracts beside the folder, then renames: the folder is whole or absent, whoever else does the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive) as file:
        members = [member for member in file.infolist() if not member.is_dir() and _is_wanted(member)]
        _refuse_attacks(archive, members)
        with tempfile.TemporaryDirectory(prefix=".extracting-", dir=folder.parent) as temporary:
            whole = Path(temporary, "whole")
            whole.mkdir()
            for member in members:
                target = whole / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                with file.open(member) as source, target.open("xb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
            try:
                whole.rename(folder)
            except OSError:
                if not folder.is_dir():  # else another process was faster
                    raise


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    return not member.filename.startswith("__MACOSX/")


def _refuse_attacks(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > _MOST_MEMBERS:
        raise DataError(f"'{archive}' holds {len(members)} files, more than {_MOST_MEMBERS}; extract it yourself")
    for member in members:
        reason = _danger(member)
        if reason:
            raise DataError(f"'{archive}' is refused: '{member.filename}' {reason}; make a plain ZIP of the folder")
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        raise DataError(f"'{archive}' holds two files of the same name; make a plain ZIP of the folder")
    # zipfile reads no more than a member's declared size, so that these sums bound what is written.
    size, packed = sum(member.file_size for member in members), archive.stat().st_size
    if size > _MOST_BYTES or (size > _BYTES_FREE_OF_RATIO and size > _HIGHEST_RATIO * packed):
        raise DataError(
            f"'{archive}' of {packed >> 20} MiB would fill {size >> 20} MiB; if you trust it, extract it yourself and "
            "give the folder"
        )


def _danger(member: zipfile.ZipInfo) -> str | None:
    name = PurePosixPath(member.filename)
    if name.is_absolute() or ".." in name.parts or not name.parts:
        return "lies outside the folder"
    if "\\" in member.orig_filename or re.match("[A-Za-z]:", member.filename):
        return "has a drive or a backslash in its name"
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device"
    return "is encrypted" if member.flag_bits & 1 else None
