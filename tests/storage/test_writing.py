"""Files and folders appear complete or not at all, follow no links, and have the usual rights."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from densemble.errors import DataError, ResourceError, UsageError
from densemble.storage.arrays import create_array, temporary_array, write_npy
from densemble.storage.images import write_tiff
from densemble.storage.pillow import write_png
from densemble.storage.temporary import TEMPORARY, hold, locked_file, remove_if_unused, sweep
from densemble.storage.weight_files import write_tensors
from densemble.storage.writing import (
    append_line,
    atomic_files,
    atomic_path,
    atomic_text,
    cache_folder,
    replaced_folder,
    scratch_folder,
    temporary_folder,
    write_json,
    write_text,
    writing,
)

PIXELS = np.zeros((4, 5), np.uint8)
WRITERS: dict[str, Callable[[Path], object]] = {
    "a.txt": lambda path: write_text(path, "new"),
    "a.json": lambda path: write_json(path, [1]),
    "a.npy": lambda path: write_npy(path, PIXELS),
    "a.png": lambda path: write_png(path, PIXELS),
    "a.tif": lambda path: write_tiff(path, PIXELS),
    "a.safetensors": lambda path: write_tensors(path, {"a": torch.ones(3)}),
}


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    with cache_folder(tmp_path / "cache" / "features", "free some space") as temporary:
        (temporary / "0.npy").write_text("values")
        assert not (tmp_path / "cache" / "features").exists()
    assert listing(tmp_path) == ["cache", "cache/features", "cache/features/0.npy"]


@pytest.mark.parametrize("error", [DataError("no image"), KeyboardInterrupt()])
def test_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), cache_folder(tmp_path / "features", "free some space") as temporary:
        (temporary / "0.npy").write_text("values")
        raise error
    assert listing(tmp_path) == []


def test_full_disk_names_the_folder_and_the_remedy(tmp_path: Path) -> None:
    message = r"cannot write '.*features': No space left on device \(.* MB free\); free some space"
    with pytest.raises(ResourceError, match=message), cache_folder(tmp_path / "features", "free some space"):
        raise OSError(28, "No space left on device")


def test_first_of_two_processes_wins(tmp_path: Path) -> None:
    path = tmp_path / "features"
    with cache_folder(path, "free some space") as second:
        with cache_folder(path, "free some space") as first:
            (first / "0.npy").write_text("first")
        (second / "0.npy").write_text("second")
    assert listing(tmp_path) == ["features", "features/0.npy"]
    assert (path / "0.npy").read_text() == "first"
    with cache_folder(path, "free some space"):
        raise OSError(28, "No space left on device")
    assert listing(tmp_path) == ["features", "features/0.npy"]


def test_text_has_the_same_line_ends_on_all_systems(tmp_path: Path) -> None:
    write_text(tmp_path / "a.csv", "a\r\nb\n")
    assert (tmp_path / "a.csv").read_bytes() == b"a\r\nb\n"


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
@pytest.mark.parametrize("name", WRITERS)
def test_files_have_the_rights_of_the_umask(name: str, mask: int, tmp_path: Path, umask: Callable[[int], int]) -> None:
    umask(mask)
    WRITERS[name](tmp_path / name)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_folders_have_the_rights_of_the_umask(mask: int, tmp_path: Path, umask: Callable[[int], int]) -> None:
    umask(mask)
    with cache_folder(tmp_path / "cache") as folder:
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700, "nobody else can place links in it"
        write_text(folder / "a.txt", "a")
    assert stat.S_IMODE((tmp_path / "cache").stat().st_mode) == 0o777 & ~mask
    assert stat.S_IMODE((tmp_path / "cache" / "a.txt").stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("name", WRITERS)
def test_a_planted_link_is_not_followed(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for planted in (tmp_path / name, tmp_path / f".{name}.{os.getpid()}.tmp", tmp_path / f".{name}"):
        planted.symlink_to(victim)
    WRITERS[name](tmp_path / name)
    assert victim.read_text() == "mine" and not (tmp_path / name).is_symlink()


def test_no_line_is_appended_through_a_link_or_to_a_pipe(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "link.jsonl").symlink_to(victim)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("link.jsonl", "pipe.jsonl"):
        with pytest.raises(ResourceError, match=name):
            append_line(tmp_path / name, "{}")
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("length", [200, 244, 255])
def test_the_longest_names_of_the_file_system(length: int, tmp_path: Path) -> None:
    path = tmp_path / ("n" * (length - 4) + ".txt")
    write_text(path, "a")
    assert path.read_text() == "a"
    with pytest.raises(UsageError, match="shorten the name"):
        write_text(tmp_path / ("n" * 256), "a")


def test_names_of_temporary_folders_are_random_and_private(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as one, temporary_folder(tmp_path) as two:
        assert one.name != two.name and TEMPORARY.fullmatch(one.name)
        assert stat.S_IMODE(one.stat().st_mode) == 0o700
    assert listing(tmp_path) == []


def test_files_and_folders_are_flushed_before_and_after_they_are_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(str(Path(f"/proc/self/fd/{file}").readlink())))
    write_text(tmp_path / "a.txt", "a")
    assert [bool(TEMPORARY.fullmatch(Path(path).name)) for path in flushed] == [True, False]
    assert Path(flushed[1]) == tmp_path
    flushed.clear()
    with cache_folder(tmp_path / "cache") as folder:
        (folder / "0.npy").write_text("a")
    assert [Path(path).name for path in flushed] == ["0.npy", "cache", tmp_path.name]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:783] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_every_kind_of_full_disk_is_one_error(error: Exception, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "earlier")
    message = r"cannot write '.*a.txt': (No space left on device|Disk quota exceeded) \(needs 3.0 MB, .* MB free\); "
    message += "the earlier file is unchanged; free some space"
    with pytest.raises(ResourceError, match=message), atomic_path(path, 3_000_000):
        raise error
    assert path.read_text() == "earlier" and listing(tmp_path) == ["a.txt"]


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (RuntimeError("shapes differ"), ValueError("wrong"), DataError("damaged")):
        with pytest.raises(type(error), match=str(error)), writing(tmp_path / "a"):
            raise error
    with pytest.raises(ResourceError, match=r"cannot write .*absent.*No such file"):
        write_text(tmp_path / "absent" / "a.txt", "a")


def test_a_text_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "earlier")
    with pytest.raises(KeyboardInterrupt), atomic_text(tmp_path / "a.txt") as file:
        file.write("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "earlier" and listing(tmp_path) == ["a.txt"]


def test_a_library_may_write_several_files(tmp_path: Path) -> None:
    (tmp_path / "kept.bin").write_text("kept")
    with atomic_files(tmp_path / "a.xml", tmp_path / "kept.bin") as path:
        path.write_text("model")
        path.with_name("a.bin").write_text("weights")
        path.with_name("kept.bin").write_text("other")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.xml": "model", "a.bin": "weights", "kept.bin": "kept"
    }  # fmt: skip


def test_a_folder_replaces_another_one(tmp_path: Path) -> None:
    for content in ("first", "second"):
        with replaced_folder(tmp_path / "a.zarr") as folder:
            folder.mkdir()
            (folder / "zarr.json").write_text(content)
    assert (tmp_path / "a.zarr" / "zarr.json").read_text() == "second" and listing(tmp_path) == [
        "a.zarr", "a.zarr/zarr.json"
    ]  # fmt: skip


def test_leftovers_of_dead_processes_are_swept_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    code = "from pathlib import Path; import os, sys; from densemble.storage.temporary import *\n"
    code += "with locked_folder(Path(sys.argv[1])) as folder, locked_file(Path(sys.argv[1])):\n"
    code += "    (folder / 'half').write_text('a')\n    os._exit(9)"
    (tmp_path / "inner").mkdir()
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "inner")], check=False)
    dead, half = sorted((tmp_path / "inner").iterdir(), key=Path.is_file)
    assert half.is_file()
    user = tmp_path / "inner" / ".mine.tmp"
    user.mkdir()
    with temporary_folder(tmp_path / "inner") as living, locked_file(tmp_path / "inner") as (living_file, _):
        os.utime(living, (1, 1))  # as if the clock of its machine were wrong
        sweep(tmp_path)
        assert dead.exists(), "only deep looks into folders"
        sweep(tmp_path, deep=True)
        assert not dead.exists() and not half.exists()
        assert living.exists() and living_file.exists() and user.exists()
    link = tmp_path / f"{dead.name}"
    link.symlink_to(tmp_path / "inner")
    sweep(tmp_path, deep=True)
    assert user.exists()


def test_a_sweep_between_making_and_locking_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flock, first = fcntl.flock, list[Path]()

    def late(descriptor: int, how: int) -> None:
        if not first:
            first.append(Path(f"/proc/self/fd/{descriptor}").readlink())
            first[0].rmdir()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with temporary_folder(tmp_path) as folder:
        assert folder.is_dir() and folder != first[0]


def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    write_text(tmp_path / "a.txt", "a")
    with temporary_folder(tmp_path) as living:
        sweep(tmp_path)
        assert living.exists(), "nobody knows whether its process lives"


def test_a_folder_in_use_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "unused").mkdir()
    hold(tmp_path / "used")
    assert not remove_if_unused(tmp_path / "used") and remove_if_unused(tmp_path / "unused")


def test_arrays_are_allocated_before_they_are_mapped(tmp_path: Path) -> None:
    array = create_array(tmp_path / "a.npy", np.float32, (3, 1000, 5))
    file = (tmp_path / "a.npy").stat()
    assert file.st_blocks * 512 >= array.nbytes and array.shape == (3, 1000, 5) and not array.any()
    array[1] = 2
    array.flush()
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy")[1], np.full((1000, 5), 2, np.float32))
    assert create_array(tmp_path / "empty.npy", np.uint8, (0, 3)).shape == (0, 3)
    scratch = temporary_array(tmp_path, np.int32, (100, 10))
    scratch[:] = 7
    assert scratch.sum() == 7000 and listing(tmp_path) == ["a.npy", "empty.npy"]
    with pytest.raises(ResourceError, match="File exists"):
        create_array(tmp_path / "a.npy", np.float32, (3,))


def test_file_systems_that_cannot_allocate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    array = create_array(tmp_path / "a.npy", np.float64, (300_000,))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes and not array.any()


def test_weights_that_are_written_can_be_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", {"a": torch.arange(3.0)})
    np.testing.assert_array_equal(load_file(tmp_path / "a.safetensors")["a"], [0, 1, 2])


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", refuse)
    with pytest.raises(ResourceError, match="TMPDIR"), scratch_folder():
        pass
