"""The one way to write files and folders: atomically, under random names, with one error for all failures.

A file or folder is made as, or inside, a temporary ``.densemble-RANDOM.tmp`` beside its destination, flushed to disk
and renamed, see :mod:`densemble.storage.temporary`.
"""

import errno
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from safetensors import SafetensorError

from densemble.errors import DensembleError, ResourceError, UsageError
from densemble.storage.temporary import NOT_SUPPORTED, locked_file, locked_folder

CHOOSE_ANOTHER = "choose another folder"
FULL = (errno.ENOSPC, errno.EDQUOT)
_NEARLY_FULL = 64 << 10  # bytes; libraries that hide the reason of a failed write leave less
_HIDDEN = re.compile(r"os error (\d+)|No space left|Disk quota|file write failed|PytorchStreamWriter", re.IGNORECASE)
_ZEROS = bytes(1 << 20)


@contextmanager
def writing(
    path: Path, remedy: str = CHOOSE_ANOTHER, needed: int | None = None, replaces: bool = False
) -> Iterator[None]:
    """Turn a failure of writing into a ResourceError that names the path.

    Args:
        path: file or folder that is written.
        remedy: end of the message.
        needed: bytes that the file takes, for the message.
        replaces: whether an earlier file at ``path`` stays if writing fails.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
        UsageError: the name of the file is too long.
    """
    try:
        yield
    except DensembleError:
        raise
    except Exception as error:
        reason = _reason(error, path)
        if reason is None:
            raise
        message = f"cannot write '{path}': {reason[1]}"
        if reason[0] == errno.ENAMETOOLONG:
            raise UsageError(f"{message}; shorten the name") from error
        if reason[0] in FULL:
            message += _space(path, needed)
            remedy = remedy if "space" in remedy else f"free some space, or {remedy}"
        if replaces and os.path.lexists(path):
            message += "; the earlier file is unchanged"
        raise ResourceError(f"{message}; {remedy}") from error


def _reason(error: Exception, path: Path) -> tuple[int, str] | None:
    """Return number and text of the failed system call; ``None`` if the error is not one of writing."""
    if isinstance(error, OSError):
        number = error.errno or (errno.ENOSPC if _free(path) < _NEARLY_FULL else errno.EIO)
        return number, error.strerror or (os.strerror(number) if number in FULL else str(error))
    found = _HIDDEN.search(str(error))
    if found is not None and found[1]:
        return int(found[1]), os.strerror(int(found[1]))
    if found is not None or (isinstance(error, RuntimeError | SafetensorError) and _free(path) < _NEARLY_FULL):
        return errno.ENOSPC, os.strerror(errno.ENOSPC)
    return (errno.EIO, str(error)) if isinstance(error, SafetensorError) else None


def _free(path: Path) -> int:
    """Return the free bytes where ``path`` is written."""
    for folder in (path, *path.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(folder).free
    return 0


def _space(path: Path, needed: int | None) -> str:
    free = f"{_free(path) / 1e6:.1f} MB free"
    return f" ({free})" if needed is None else f" (needs {needed / 1e6:.1f} MB, {free})"


@contextmanager
def temporary_folder(parent: Path, path: Path | None = None) -> Iterator[Path]:
    """Yield a new folder in ``parent`` that only this user may enter; it is removed at the end of the context.

    Args:
        parent: existing folder.
        path: file or folder that will be made in it, for the message of an error.

    Raises:
        ResourceError: ``parent`` cannot be written or the disk is full.
    """
    with ExitStack() as stack:
        with writing(path or parent, "choose another folder or correct its permissions"):
            folder = stack.enter_context(locked_folder(parent))
        yield folder


@contextmanager
def atomic_path(path: Path, needed: int | None = None) -> Iterator[Path]:
    """Yield the path of a new empty file; on success it is flushed to disk and replaces ``path`` atomically.

    It has the name of ``path`` and is in a temporary folder beside it, so a library may also replace it.

    Args:
        path: file to write.
        needed: bytes that it takes, for the message of an error.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
        UsageError: the name is too long.
    """
    with writing(path, needed=needed, replaces=True), temporary_folder(path.parent, path) as folder:
        temporary = folder / path.name
        mode = _create(temporary)
        yield temporary
        temporary.chmod(mode)  # a library may have made its own file, such as safetensors, with other rights
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)


@contextmanager
def atomic_binary(path: Path, needed: int | None = None) -> Iterator[BinaryIO]:
    """Yield an open binary file; on success it is flushed to disk and replaces ``path`` atomically.

    Args:
        path: file to write.
        needed: bytes that it takes, for the message of an error.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
        UsageError: the name is too long.
    """
    with writing(path, needed=needed, replaces=True), locked_file(path.parent) as (temporary, descriptor):
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            yield file
        os.fsync(descriptor)
        temporary.replace(path)
        _sync(path.parent)


@contextmanager
def atomic_text(path: Path, newline: str | None = None) -> Iterator[TextIO]:
    r"""Yield an open UTF-8 text file that replaces ``path`` atomically, see :func:`atomic_binary`.

    Names of files that are not UTF-8 are written with escapes such as ``\udcff``.
    """
    with atomic_binary(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline=newline)
        try:
            yield text
        finally:
            text.detach()  # flushes it


@contextmanager
def atomic_files(path: Path, kept: Path | None = None) -> Iterator[Path]:
    """Like :func:`atomic_path` for a writer that may write further files beside ``path``.

    ``path`` is replaced last. The file ``kept`` stays as it is.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    with writing(path, replaces=True), temporary_folder(path.parent, path) as folder:
        mode = _create(folder / path.name)
        yield folder / path.name
        for file in sorted(folder.iterdir(), key=lambda file: file.name == path.name):
            if path.with_name(file.name) != kept:
                file.chmod(mode)
                _sync(file)
                file.replace(path.with_name(file.name))
        _sync(path.parent)


@contextmanager
def cache_folder(path: Path, remedy: str = CHOOSE_ANOTHER) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that becomes ``path`` on success.

    Several processes may compute the same folder: the first result is kept, and an error of a later one is ignored.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    try:
        with writing(path, remedy):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary_folder(path.parent, path) as temporary:
                whole = temporary / path.name
                whole.mkdir()
                yield whole
                _sync_all(whole)
                if not path.is_dir():
                    whole.rename(path)
                    _sync(path.parent)
    except ResourceError:
        if not path.is_dir():
            raise


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """Yield the path of a folder to make; on success it replaces the folder ``path``, which may exist.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    with writing(path, replaces=True), temporary_folder(path.parent, path) as temporary:
        whole, earlier = temporary / path.name, temporary / "earlier"
        yield whole
        _sync_all(whole)
        if path.exists():  # the system does not replace a folder that is not empty
            path.rename(earlier)
        try:
            whole.rename(path)
        except OSError:
            if earlier.exists():
                earlier.rename(path)
            raise
        _sync(path.parent)


def _create(path: Path) -> int:
    """Create an empty file that did not exist; return its mode, which follows the umask."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    """Flush a file or the entries of a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EBADF, *NOT_SUPPORTED):  # a file system that cannot flush folders
            raise
    finally:
        os.close(descriptor)


def _sync_all(folder: Path) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            _sync(Path(parent, name))
        _sync(Path(parent))


def reserve(file: BinaryIO, size: int) -> None:
    """Allocate the blocks of a file up to ``size`` bytes, so that a full disk is noticed before it is mapped.

    Raises:
        OSError: the disk is full.
    """
    try:
        os.posix_fallocate(file.fileno(), 0, size)
        return
    except AttributeError:  # macOS
        pass
    except OSError as error:
        if error.errno not in NOT_SUPPORTED:
            raise
    end = file.seek(0, os.SEEK_END)
    while end < size:
        end += file.write(_ZEROS[: size - end])
    file.flush()


def open_to_append(path: Path) -> BinaryIO:
    """Open a file for reading and for appending, and create it if it is missing; a link is not followed.

    Raises:
        OSError: it is a link or no regular file, or cannot be written.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file")
    return os.fdopen(descriptor, "a+b")


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file; if the disk is full, nothing of it stays.

    Raises:
        ResourceError: the file cannot be written or the disk is full.
    """
    with writing(path), open_to_append(path) as file:
        end, data = file.seek(0, os.SEEK_END), f"{line}\n".encode()
        try:
            if os.write(file.fileno(), data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(end)
            raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, with the same line ends on all systems."""
    data = text.encode("utf-8")
    with atomic_binary(path, len(data)) as file:
        file.write(data)


def write_json(path: Path, values: Any) -> None:
    """Write strict JSON (no NaN) atomically."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def require_writable(folder: Path) -> Path:
    """Create ``folder`` and check that files can be written there.

    Raises:
        ResourceError: the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResourceError(
            f"cannot write into '{folder}': {error.strerror or error}; choose another folder or correct its permissions"
        ) from error
    return folder


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a temporary folder, by default in that of the system; it is removed at the end of the context.

    Raises:
        ResourceError: there is no folder for temporary files, or it cannot be written.
    """
    if parent is None:
        try:
            parent = Path(tempfile.gettempdir())
        except OSError as error:
            raise ResourceError(f"no folder for temporary files: {error}; set TMPDIR to one") from error
    with temporary_folder(require_writable(parent)) as folder:
        yield folder
