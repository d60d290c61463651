"""Folders: which files they hold, under which name, and which split their own names mean."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from densemble.data.layouts.layout import SPLITS, Layout, Sample
from densemble.errors import DataError
from densemble.storage.images import IMAGE_SUFFIXES

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def split_word(text: str) -> str | None:
    """The split that a folder, file or cell names: ``Validation`` -> ``val``; ``None`` where it names none."""
    return _SPLIT_WORDS.get(text.strip().lower())


def split_in(text: str) -> str | None:
    """The split that one word of a longer name says: ``instances_train2017`` -> ``train``."""
    found = {split for word in re.findall(r"[A-Za-z]+", text) if (split := split_word(word))}
    return found.pop() if len(found) == 1 else None


def subfolders(folder: Path) -> dict[str, Path]:
    """The visible folders in a folder, by lower-case name, sorted."""
    if not folder.is_dir():
        return {}
    return {child.name.lower(): child for child in sorted(folder.iterdir()) if child.is_dir() and _visible(child.name)}


def split_folders(folder: Path) -> dict[str, Path]:
    """The folders in a folder that are named after a split, by split, in the order of ``SPLITS``.

    Raises:
        DataError: two folders name the same split.
    """
    return one_each(child for child in subfolders(folder).values() if split_word(child.name))


def one_each(named: Iterable[Path]) -> dict[str, Path]:
    """Files or folders by the split that their stem names, in the order of ``SPLITS``.

    Raises:
        DataError: two of them name the same split.
    """
    found: dict[str, Path] = {}
    for path in named:
        split = split_word(path.stem)
        if split in found:
            raise DataError(f"'{found[split]}' and '{path}' both name the {split} split; keep one of them")
        if split:
            found[split] = path
    return {split: found[split] for split in SPLITS if split in found}


def walk(folder: Path, suffixes: Sequence[str] = ("",)) -> Iterator[Path]:
    """The visible files below a folder that end in one of the suffixes, in the order of their paths in each folder.

    Links to folders are followed.

    Raises:
        DataError: a link leads to a folder that it lies in.
        OSError: a folder cannot be read.
    """
    if folder.is_dir():
        yield from _walk(folder, tuple(suffix.lower() for suffix in suffixes), (folder.resolve(),))


def _walk(folder: Path, endings: tuple[str, ...], around: tuple[Path, ...]) -> Iterator[Path]:
    """``around``: the resolved folder and those that it was reached through."""
    with os.scandir(folder) as entries:
        children = sorted((entry.name, entry.is_dir()) for entry in entries if _visible(entry.name))
    yield from (folder / name for name, is_folder in children if not is_folder and name.lower().endswith(endings))
    for child in (folder / name for name, is_folder in children if is_folder):
        place = child.resolve()
        if any(place == outer or place in outer.parents for outer in around):
            raise DataError(f"the link '{child}' leads to '{place}', a folder that it lies in; remove the link")
        yield from _walk(child, endings, (*around, place))


def visible_files(folder: Path) -> list[Path]:
    """The visible files in a folder, sorted, without those in its sub-folders."""
    return sorted(child for child in folder.iterdir() if _visible(child.name) and not child.is_dir())


_OF_SYSTEMS = ("__MACOSX", "lost+found", "Thumbs.db", "desktop.ini")


def _visible(name: str) -> bool:
    return not name.startswith(".") and name not in _OF_SYSTEMS


def name_below(file: Path, folder: Path) -> str:
    """A file's name as seen from a folder, without its suffix: ``rome/day/1.png`` -> ``rome__day__1``."""
    return composed("__".join(file.relative_to(folder).with_suffix("").parts))


def composed(name: str) -> str:
    """A name with its accents composed (NFC): macOS and some archives decompose them, so that equal names differ."""
    return unicodedata.normalize("NFC", name)


def find_named(name: str, folder: Path) -> Path:
    """The file that a list or table beside the data names; where there is none, the path that it says.

    Names may be written with backslashes and with decomposed accents. Of a path from another place the end counts that
    leads to a file below ``folder``: behind the folder's own name, or, of an absolute path, at least two of its parts.
    """
    path = folder / name
    if path.exists():
        return path
    slashed = composed(name.replace("\\", "/"))
    parts = [part for part in PurePosixPath(slashed).parts if part not in ("/", ".")]
    absolute = slashed.startswith("/") or slashed[1:2] == ":"
    for start in range(len(parts)):
        behind_own_name = start > 0 and parts[start - 1] == composed(folder.resolve().name)
        if start == 0 or behind_own_name or (absolute and len(parts) - start > 1):
            found = _below(folder, parts[start:])
            if found is not None:
                return found
    return folder / slashed


def _below(folder: Path, parts: Sequence[str]) -> Path | None:
    """The file at a path whose parts may be composed otherwise on disk."""
    place = folder
    for part in parts:
        if part == ".." or (place / part).exists():
            place = place / part
            continue
        same = (child for child in place.iterdir() if composed(child.name) == part) if place.is_dir() else iter(())
        if (child := next(same, None)) is None:
            return None
        place = child
    return place if place.is_file() else None


@dataclass(frozen=True)
class Listing:
    """Files by their name below a folder, and those that claim a name which is taken."""

    files: dict[str, Path]
    doubled: tuple[tuple[Path, Path], ...]


def list_files(folder: Path, suffixes: Sequence[str]) -> Listing:
    """The files below a folder by name; see ``name_below``."""
    files: dict[str, Path] = {}
    doubled = []
    for file in walk(folder, suffixes):
        first = files.setdefault(name_below(file, folder), file)
        if first is not file:
            doubled.append((first, file))
    return Listing(files, tuple(doubled))


def uniquely_named(samples: Iterable[Sample], root: Path) -> tuple[Sample, ...]:
    """The samples; those whose stem is not unique are named after their image's place below the root."""
    samples = tuple(samples)
    times = Counter(sample.stem for sample in samples)
    return tuple(
        replace(sample, name=_place(sample.image, root)) if times[sample.stem] > 1 else sample for sample in samples
    )


def _place(file: Path, root: Path) -> str:
    return name_below(file, root if file.is_relative_to(root) else Path(file.anchor))


def unused_below(folders: Iterable[Path], layout: Layout) -> tuple[Path, ...]:
    """The visible files below folders that belong to no sample and are not reported otherwise."""
    parts = (*layout.splits.values(), *layout.incomplete.values())
    samples = [sample for part in parts for sample in part]
    known = {file for sample in samples for file in (sample.target, *sample.files)}
    known |= {*layout.unpaired, *(file for files in layout.doubled for file in files)}
    return tuple(file for folder in folders for file in walk(folder) if file not in known)


class ImageIndex:
    """The images below a folder, found by the name that an annotation file gives them.

    Names are only looked up, never joined to a folder: a name such as ``../../secret.png`` finds nothing.
    """

    def __init__(self, root: Path, without: re.Pattern[str] | None = None) -> None:
        self.root = root
        self.doubled: list[tuple[Path, Path]] = []
        self._used: set[Path] = set()
        self._by_name: defaultdict[str, list[Path]] = defaultdict(list)
        for file in walk(root, IMAGE_SUFFIXES):
            if without is None or not without.search(file.relative_to(root).as_posix()):
                self._by_name[composed(file.name)].append(file)

    def knows(self, name: str) -> bool:
        """Whether there is an image of that file name."""
        return composed(name) in self._by_name

    def find(self, name: str, split: str | None = None) -> Path | None:
        """The image of that name or path: of several, the one with most folders in common, then of that split."""
        parts = PurePosixPath(composed(name.replace("\\", "/"))).parts
        files = self._by_name.get(parts[-1], []) if parts else []
        if len(files) > 1:
            files = self._nearest(files, parts, split)
        if not files:
            return None
        self.doubled += [(files[0], other) for other in files[1:]]
        self._used.add(files[0])
        return files[0]

    def _nearest(self, files: Sequence[Path], parts: Sequence[str], split: str | None) -> list[Path]:
        def closeness(file: Path) -> tuple[int, bool]:
            common = 0
            for ours, theirs in zip(reversed(file.parts), reversed(parts), strict=False):
                if composed(ours) != theirs:
                    break
                common += 1
            folders = file.relative_to(self.root).parent.parts
            return common, split is not None and split in map(split_in, folders)

        best = max(map(closeness, files))
        return [file for file in files if closeness(file) == best]

    def unlisted(self) -> tuple[Path, ...]:
        """Images that nobody asked for, in the folders of those that somebody did."""
        folders = {file.parent for file in self._used}
        files = (file for same_name in self._by_name.values() for file in same_name)
        return tuple(sorted(file for file in files if file.parent in folders and file not in self._used))
