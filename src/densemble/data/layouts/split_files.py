"""Split files: lists of the samples of each split."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from densemble.data.layouts.folders import composed, find_named, name_below, parse_split, paths_by_split
from densemble.data.layouts.layout import SPLITS, Sample
from densemble.data.layouts.read_files import read_json, read_lines, well_formed
from densemble.errors import DataError
from densemble.input_files import is_no_folder

_SPLIT_FOLDERS = ("", "splits", "ImageSets", "ImageSets/Segmentation")


def read_split_files(path: Path) -> dict[str, list[str]]:
    """Read ``train.txt``, ``val.txt`` and ``test.txt``, or ``splits.json``; empty if there are none.

    Raises:
        DataError: a file cannot be read, or two files name the same split.
    """
    for folder in (path / name for name in _SPLIT_FOLDERS):
        if is_no_folder(folder / "splits.json"):
            return _read_splits_json(folder / "splits.json")
        if lists := read_split_texts(folder):
            return lists
    return {}


def read_split_texts(folder: Path) -> dict[str, list[str]]:
    """Read the text files in a folder that are named after a split.

    Raises:
        DataError: a file cannot be read, or two files name the same split.
    """
    return {split: read_lines(file) for split, file in paths_by_split(sorted(folder.glob("*.txt"))).items()}


def _read_splits_json(path: Path) -> dict[str, list[str]]:
    content = read_json(path)
    with well_formed(path, 'object of lists such as {"train": ["a", "b"], "val": ["c"]}'):
        lists = {}
        for key, names in content.items():
            split = parse_split(key)
            if split is None or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"'{key}' is not one of {', '.join(SPLITS)}, or its value is not a list of names")
            if split in lists:
                raise DataError(f"'{path}' names the {split} split twice; keep one of the lists")
            lists[split] = names
    return {split: lists[split] for split in SPLITS if split in lists}


def select(
    lists: Mapping[str, Iterable[str]], samples: Iterable[Sample], unpaired: Iterable[Path], root: Path, images: Path
) -> tuple[dict[str, tuple[Sample, ...]], tuple[Path, ...]]:
    """Select the samples that each list names.

    A line is a stem, a file name, a path, or the paths of an image and its target separated by a blank. A name in two
    lists stays in both.

    Args:
        lists: lines by split.
        samples: available samples.
        unpaired: existing files that belong to no sample.
        root: the folder of the data set.
        images: the folder of the images.

    Returns:
        Samples by split, and the listed files without a sample.
    """
    samples_by_name = _by_any_name({sample.image: sample for sample in samples}, root, images)
    unpaired_by_name = _by_any_name({file: file for file in unpaired}, root, images)
    splits: dict[str, tuple[Sample, ...]] = {}
    missing: dict[Path, None] = {}
    for split, lines in lists.items():
        selected: dict[Path, Sample] = {}
        for line in lines:
            sample, pair = _look_up(line, samples_by_name), _explicit_pair(line, root)
            if pair and (sample is None or (sample.image, sample.target) != (pair.image, pair.target)):
                sample = pair
            if sample is None:
                missing[_look_up(line, unpaired_by_name) or images / line.replace("\\", "/")] = None
            else:
                selected[sample.image] = sample
        splits[split] = tuple(sorted(selected.values(), key=lambda sample: sample.stem))
    return splits, tuple(missing)


Item = TypeVar("Item")


def _by_any_name(files: Mapping[Path, Item], root: Path, images: Path) -> dict[str, Item]:
    """Index the item of each file by every name that a list may use, except names that match several files."""
    by_name: dict[str, Item] = {}
    ambiguous = set()
    for file, item in files.items():
        for name in _names_of(file, root, images):
            if by_name.setdefault(name, item) is not item:
                ambiguous.add(name)
    return {name: item for name, item in by_name.items() if name not in ambiguous}


def _names_of(file: Path, root: Path, images: Path) -> set[str]:
    names = {file.stem, file.name, file.relative_to(root).as_posix()}
    if file.is_relative_to(images):
        below = file.relative_to(images)
        names |= {below.as_posix(), below.with_suffix("").as_posix(), name_below(file, images)}
    return {composed(name) for name in names}


def _explicit_pair(line: str, root: Path) -> Sample | None:
    words = line.split()
    if len(words) != 2:
        return None
    image, target = (find_named(word, root) for word in words)
    return Sample(image, target) if is_no_folder(image) and is_no_folder(target) else None


def _look_up(line: str, by_name: Mapping[str, Item]) -> Item | None:
    """Look up a line or its first word: the full path, then its trailing parts (``a/b/c``, ``b/c``, ``c``)."""
    slashed = composed(line.replace("\\", "/"))
    for path in (slashed, slashed.split(maxsplit=1)[0]):
        parts = path.removeprefix("./").split("/")
        for start in range(len(parts)):
            if (name := "/".join(parts[start:])) in by_name:
                return by_name[name]
    return None
