"""ZIP files are extracted once, completely or not at all, and never outside their folder."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from densemble.data.layouts import archive, find_layout
from densemble.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, image: Write, label_map: Write) -> Path:
    image(tmp_path / "set" / "train" / "images" / "a.jpg")
    label_map(tmp_path / "set" / "train" / "masks" / "a.png")
    return tmp_path / "set"


def pack(folder: Path, into: Path, prefix: str) -> Path:
    with zipfile.ZipFile(into, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
        file.writestr("__MACOSX/._a.jpg", b"junk")
    return into


@pytest.mark.parametrize("prefix", ["", "my set/"])
def test_a_zip_is_extracted_once_and_its_single_folder_entered(prefix: str, folder: Path, tmp_path: Path) -> None:
    zipped, cache = pack(folder, tmp_path / "set.zip", prefix), tmp_path / "cache"
    layout = find_layout(zipped, cache)
    (sample,) = layout.splits["train"]
    assert sample.image.read_bytes() == (folder / "train" / "images" / "a.jpg").read_bytes()
    assert sample.image.is_relative_to(cache) and len(list((cache / "archives").iterdir())) == 1
    written = sample.image.stat().st_mtime_ns
    copy = zipped.rename(tmp_path / "other name.zip")
    assert find_layout(copy, cache).splits["train"][0].image.stat().st_mtime_ns == written


def test_the_cache_is_named_by_the_environment(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path / "there"))
    assert find_layout(pack(folder, tmp_path / "set.zip", "")).path.is_relative_to(tmp_path / "there")


def test_another_process_that_was_faster(folder: Path, tmp_path: Path) -> None:
    zipped = pack(folder, tmp_path / "set.zip", "")
    first = archive.extract(zipped, tmp_path / "cache")
    archive._extract_whole(zipped, first)
    assert sorted(path.name for path in first.parent.iterdir()) == [first.name]


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/tmp/out.png", "C:/out.png", "a\\..\\out.png"])
def test_names_that_leave_the_folder(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(name, b"x")
    with pytest.raises(DataError, match=r"bad\.zip' is refused"):
        find_layout(tmp_path / "bad.zip", tmp_path / "cache")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "bad.zip"]


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices(kind: int, tmp_path: Path) -> None:
    member = zipfile.ZipInfo("images")
    member.create_system, member.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr(member, "/etc")
    with pytest.raises(DataError, match="link or a device"):
        find_layout(tmp_path / "bad.zip", tmp_path / "cache")


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("_MAX_MEMBERS", 1, "more than 1"),
        ("_MAX_BYTES", 100, "would fill"),
        ("_MIN_BYTES_FOR_RATIO", 100, "would fill"),
    ],
)
def test_bombs(limit: str, value: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", bytes(1_000_000))
        file.writestr("b", b"")
    monkeypatch.setattr(archive, limit, value)
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path / "bomb.zip", tmp_path / "cache")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("names", "message"), [(["a", "a"], "same name"), (["a", "a/b"], "a file and a folder")])
def test_names_that_collide(names: list[str], message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        for name in names:
            file.writestr(name, b"x")
    with pytest.raises(DataError, match=message):
        find_layout(tmp_path / "bad.zip", tmp_path / "cache")


def test_damage_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    whole = pack(folder, tmp_path / "set.zip", "").read_bytes()
    for number, harmed in enumerate((b"", whole[:-30], whole[:60] + bytes(40) + whole[100:])):
        bad = tmp_path / f"{number}.zip"
        bad.write_bytes(harmed)
        with pytest.raises(DataError, match="damaged or not a ZIP"):
            find_layout(bad, tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as file:
        file.writestr("notes/readme.md", b"x")
    with pytest.raises(DataError, match=r"notes\.zip.*readme\.md.*train/images"):
        find_layout(tmp_path / "notes.zip", tmp_path / "cache")
