"""The cache of the user is measured, pruned and emptied, except what a process uses; it works without a home."""

import os
from pathlib import Path

import pytest

from densemble.storage.temporary import hold
from densemble.storage.user_cache import FOLDERS, cache_part, cache_sizes, clean_caches, prune, user_cache
from densemble.storage.writing import temporary_folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path))
    return tmp_path


def write(path: Path, size: int, used: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    os.utime(path, (used, used))
    return path


def test_sizes(cache: Path) -> None:
    assert cache_sizes() == dict.fromkeys(FOLDERS, 0)
    write(cache / "choices" / "a.json", 10)
    write(cache / "archives" / "b" / "images" / "c.png", 100)
    (cache / "archives" / "b" / "link").symlink_to("/usr")
    write(cache / "not of densemble" / "d", 1000)
    assert cache_sizes() == {"archives": 100, "checks": 0, "choices": 10, "openvino": 0}


def test_the_least_recently_used_is_pruned(cache: Path) -> None:
    files = [write(cache / "openvino" / f"{number}.bin", 10, used=1000 - number) for number in range(5)]
    prune(cache / "openvino", 30)
    assert [file.exists() for file in files] == [True, True, True, False, False]
    prune(cache / "absent", 0)


def test_what_is_in_use_stays(cache: Path) -> None:
    used = write(cache / "archives" / "used" / "a.png", 10)
    unused = write(cache / "archives" / "unused" / "a.png", 10)
    mine = write(cache / "mine" / "a.png", 10)
    write(cache / "checks" / "a.json", 5)
    write(cache / "checks" / "empty.json", 0)
    hold(used.parent)
    with temporary_folder(cache / "checks") as living:
        freed = clean_caches()
        assert living.is_dir()
    assert freed == {"archives": 10, "checks": 5, "choices": 0, "openvino": 0}
    assert used.is_file() and mine.is_file() and not unused.parent.exists()
    assert list((cache / "checks").iterdir()) == []


def test_a_link_in_the_cache_is_removed_but_not_followed(cache: Path, tmp_path: Path) -> None:
    victim = write(tmp_path / "victim" / "a", 10)
    (cache / "archives").mkdir()
    (cache / "archives" / "planted").symlink_to(victim.parent)
    clean_caches()
    assert victim.is_file() and list((cache / "archives").iterdir()) == []


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cls: type) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("DENSEMBLE_CACHE_DIR")
    monkeypatch.setattr(Path, "home", classmethod(refuse))
    folder = user_cache()
    assert folder.is_dir() and folder == user_cache() and folder.stat().st_mode & 0o77 == 0
    assert cache_part("choices").parent == folder
