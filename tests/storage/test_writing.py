"""A cache folder appears complete or not at all, and the first of several processes wins."""

from pathlib import Path

import pytest

from densemble.errors import DataError, ResourceError
from densemble.storage.writing import cache_folder, write_text


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
