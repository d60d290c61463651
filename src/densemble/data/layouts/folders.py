"""Find files in data folders, name them, and detect splits from folder names."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import takewhile
from pathlib import Path, PurePosixPath

from densemble.data.layouts.layout import SPLITS, Layout, Sample
from densemble.errors import DataError
from densemble.input_files import is_no_folder
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


def parse_split(text: str) -> str | None:
    """Convert the name of a folder, file or cell to a split: ``Validation`` -> ``val``; ``None`` for other names."""
    return _SPLIT_WORDS.get(text.strip().lower())


def find_split(text: str) -> str | None:
    """Find the split that one word of a longer name names: ``instances_train2017`` -> ``train``."""
    splits = {split for word in re.findall(r"[A-Za-z]+", text) if (split := parse_split(word))}
    return splits.pop() if len(splits) == 1 else None


def subfolders(folder: Path) -> dict[str, Path]:
    """Visible subfolders by lower-case name, sorted."""
    if not folder.is_dir():
        return {}
    return {child.name.lower(): child for child in sorted(folder.iterdir()) if child.is_dir() and _visible(child.name)}


def split_folders(folder: Path) -> dict[str, Path]:
    """Subfolders named after a split, by split, in the order of ``SPLITS``.

    Raises:
        DataError: two folders name the same split.
    """
    return paths_by_split(child for child in subfolders(folder).values() if parse_split(child.name))


def paths_by_split(paths: Iterable[Path]) -> dict[str, Path]:
    """Files or folders by the split that their stem names, in the order of ``SPLITS``.

    Raises:
        DataError: two paths name the same split.
    """
    by_split: dict[str, Path] = {}
    for path in paths:
        split = parse_split(path.stem)
        if split in by_split:
            raise DataError(f"'{by_split[split]}' and '{path}' both name the {split} split; keep one of them")
        if split:
            by_split[split] = path
    return {split: by_split[split] for split in SPLITS if split in by_split}


def walk(folder: Path, suffixes: Sequence[str] = ("",)) -> Iterator[Path]:
    """Yield the visible files below a folder that end in one of the suffixes, sorted by name in each folder.

    Links to folders are followed.

    Raises:
        DataError: a link points to a folder that contains it.
        OSError: a folder cannot be read.
    """
    if folder.is_dir():
        yield from _walk(folder, tuple(suffix.lower() for suffix in suffixes), (folder.resolve(),))


def _walk(folder: Path, endings: tuple[str, ...], ancestors: tuple[Path, ...]) -> Iterator[Path]:
    """``ancestors``: the resolved folder and the resolved folders above it on the walk."""
    with os.scandir(folder) as entries:
        children = sorted((entry.name, entry.is_dir()) for entry in entries if _visible(entry.name))
    yield from (folder / name for name, descends in children if not descends and name.lower().endswith(endings))
    for child in (folder / name for name, descends in children if descends):
        resolved = child.resolve()
        if any(resolved == outer or resolved in outer.parents for outer in ancestors):
            raise DataError(f"the link '{child}' leads to '{resolved}', a folder that contains it; remove the link")
        yield from _walk(child, endings, (*ancestors, resolved))


def visible_files(folder: Path) -> list[Path]:
    """Visible files directly in a folder, sorted."""
    with os.scandir(folder) as entries:
        return [folder / name for name in sorted(e.name for e in entries if _visible(e.name) and not e.is_dir())]


_SYSTEM_NAMES = ("__MACOSX", "lost+found", "Thumbs.db", "desktop.ini")


def _visible(name: str) -> bool:
    return not name.startswith(".") and name not in _SYSTEM_NAMES


def name_below(file: Path, folder: Path) -> str:
    """Name of a file relative to a folder, without suffix: ``rome/day/1.png`` -> ``rome__day__1``."""
    return composed("__".join(file.relative_to(folder).with_suffix("").parts))


def composed(name: str) -> str:
    """Normalize a name to composed accents (NFC).

    macOS and some archives decompose accents, so that equal names have different characters.
    """
    return unicodedata.normalize("NFC", name)


def find_named(name: str, folder: Path) -> Path:
    """Find the file that a list or table in ``folder`` names; the literal path if there is no such file.

    Names may contain backslashes and decomposed accents. If the path comes from another computer, its trailing parts
    are matched below ``folder``: those after the name of the folder, or at least the last two of an absolute path.
    """
    path = folder / name
    if is_no_folder(path):
        return path
    slashed = composed(name.replace("\\", "/"))
    parts = [part for part in PurePosixPath(slashed).parts if part not in ("/", ".")]
    absolute = slashed.startswith("/") or slashed[1:2] == ":"
    own_name = _resolved_name(folder)
    for start in range(len(parts)):
        follows_folder_name = start > 0 and parts[start - 1] == own_name
        if start == 0 or follows_folder_name or (absolute and len(parts) - start > 1):
            file = _below(folder, parts[start:])
            if file is not None:
                return file
    return folder / slashed


def _below(folder: Path, parts: Sequence[str]) -> Path | None:
    """Find the file at a relative path; names on disk may have decomposed accents."""
    path = folder
    for part in parts:
        if part == "..":
            path = path / part
            continue
        try:
            names = _composed_names(path, path.stat().st_mtime_ns)
        except (OSError, ValueError):  # no folder, or a name that is too long
            return None
        if part not in names:
            return None
        path = path / names[part]
    return path if is_no_folder(path) else None


@lru_cache(maxsize=64)
def _resolved_name(folder: Path) -> str:
    return composed(folder.resolve().name)


@lru_cache(maxsize=64)
def _composed_names(folder: Path, changed: int) -> dict[str, str]:
    """Names in a folder by their composed form; read once, because a table may name many files that do not exist."""
    return {composed(child.name): child.name for child in sorted(folder.iterdir(), reverse=True)}


@dataclass(frozen=True)
class Listing:
    """Files by their name below a folder, and pairs of files with the same name."""

    files: dict[str, Path]
    doubled: tuple[tuple[Path, Path], ...]


def list_files(folder: Path, suffixes: Sequence[str]) -> Listing:
    """List the files below a folder by name, see :func:`name_below`."""
    files: dict[str, Path] = {}
    doubled = []
    for file in walk(folder, suffixes):
        first = files.setdefault(name_below(file, folder), file)
        if first is not file:
            doubled.append((first, file))
    return Listing(files, tuple(doubled))


def pair_by_name(
    images: Mapping[str, Path], targets: Mapping[str, Path], points: Mapping[str, Path]
) -> tuple[tuple[Sample, ...], tuple[Path, ...]]:
    """Pair images with the targets and points of the same name.

    Returns:
        The samples, and the unpaired files: first images without a target, then targets without an image.
    """
    samples = tuple(
        Sample(image, targets[name], points.get(name), name=None if name == image.stem else name)
        for name, image in sorted(images.items())
        if name in targets
    )
    without_target = [images[name] for name in sorted(images.keys() - targets.keys())]
    without_image = [targets[name] for name in sorted(targets.keys() - images.keys())]
    return samples, (*without_target, *without_image)


def sort_splits(splits: Mapping[str, Sequence[Sample]], root: Path) -> dict[str, tuple[Sample, ...]]:
    """Sort splits in the order of ``SPLITS`` and their samples by name.

    Samples whose stem is not unique in their split are named after the path of their image below ``root``.
    """
    ordered = {}
    for split in (split for split in (*SPLITS, "all") if split in splits):
        samples = sorted(splits[split], key=lambda sample: (sample.stem, sample.image))
        counts = Counter(sample.stem for sample in samples)
        ordered[split] = tuple(
            replace(sample, name=_path_name(sample.image, root)) if counts[sample.stem] > 1 else sample
            for sample in samples
        )
    return ordered


def _path_name(file: Path, root: Path) -> str:
    return name_below(file, root if file.is_relative_to(root) else Path(file.anchor))


def unused_below(folders: Iterable[Path], layout: Layout) -> tuple[Path, ...]:
    """Visible files below folders that belong to no sample and are not reported in other fields of the layout."""
    parts = (*layout.splits.values(), *layout.incomplete.values())
    samples = [sample for part in parts for sample in part]
    known = {file for sample in samples for file in (sample.target, *sample.files)}
    known |= {*layout.unpaired, *(file for files in layout.doubled for file in files)}
    return tuple(file for folder in folders for file in walk(folder) if file not in known)


class ImageIndex:
    """Look up images below a folder by the names that an annotation file uses.

    Names are never joined to a folder, so a name such as ``../../secret.png`` matches nothing.
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
        """Whether an image has this file name."""
        return composed(name) in self._by_name

    def find(self, name: str, split: str | None = None) -> Path | None:
        """Find an image by name or path.

        If several images match, those with the most trailing folders in common win, then those in ``split``.
        """
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
            pairs = zip(reversed(file.parts), reversed(parts), strict=False)
            common = sum(1 for _ in takewhile(lambda pair: composed(pair[0]) == pair[1], pairs))
            folders = file.relative_to(self.root).parent.parts
            return common, split is not None and split in map(find_split, folders)

        best = max(map(closeness, files))
        return [file for file in files if closeness(file) == best]

    def unlisted(self) -> tuple[Path, ...]:
        """Images that were not looked up, in the folders of those that were."""
        folders = {file.parent for file in self._used}
        files = (file for same_name in self._by_name.values() for file in same_name)
        return tuple(sorted(file for file in files if file.parent in folders and file not in self._used))
