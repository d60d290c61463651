"""Lists of names that say which sample belongs to which split."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

from densemble.data.layouts.folders import composed, find_named, name_below, one_each, split_word
from densemble.data.layouts.layout import SPLITS, Sample
from densemble.data.layouts.read_files import read_json, read_lines, well_formed
from densemble.errors import DataError

_PLACES = ("", "splits", "ImageSets", "ImageSets/Segmentation")


def read_split_files(path: Path) -> dict[str, list[str]]:
    """The lines of ``train.txt``, ``val.txt``, ``test.txt``, or the lists in ``splits.json``; empty where none is.

    Raises:
        DataError: a file cannot be read, or two name the same split.
    """
    for place in (path / name for name in _PLACES):
        if (place / "splits.json").is_file():
            return _read_splits_json(place / "splits.json")
        found = read_split_texts(place)
        if found:
            return found
    return {}


def read_split_texts(folder: Path) -> dict[str, list[str]]:
    """The lines of the text files in a folder that are named after a split.

    Raises:
        DataError: a file cannot be read, or two name the same split.
    """
    return {split: read_lines(file) for split, file in one_each(sorted(folder.glob("*.txt"))).items()}


def _read_splits_json(path: Path) -> dict[str, list[str]]:
    content = read_json(path)
    with well_formed(path, 'object of lists such as {"train": ["a", "b"], "val": ["c"]}'):
        found = {}
        for key, names in content.items():
            split = split_word(key)
            if split is None or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError(f"'{key}' is none of {', '.join(SPLITS)}, or no list of names")
            if split in found:
                raise DataError(f"'{path}' names the {split} split twice; keep one of the lists")
            found[split] = names
    return {split: found[split] for split in SPLITS if split in found}


def select(
    lists: Mapping[str, Iterable[str]], samples: Iterable[Sample], unpaired: Iterable[Path], root: Path, images: Path
) -> tuple[dict[str, tuple[Sample, ...]], tuple[Path, ...]]:
    """The samples that each list names, and the files that it names in vain.

    A line is a stem, a file name, a path, or the paths of an image and its map with a blank between. A name in two
    lists stays in both.

    Args:
        lists: lines by split.
        samples: to choose from.
        unpaired: files that are there and belong to no sample.
        root: the folder of the data set.
        images: the folder of the images.
    """
    known = _by_any_name({sample.image: sample for sample in samples}, root, images)
    alone = _by_any_name({file: file for file in unpaired}, root, images)
    splits: dict[str, tuple[Sample, ...]] = {}
    missing: dict[Path, None] = {}
    for split, lines in lists.items():
        chosen: dict[Path, Sample] = {}
        for line in lines:
            sample, pair = _look_up(line, known), _explicit_pair(line, root)
            if pair and (sample is None or (sample.image, sample.target) != (pair.image, pair.target)):
                sample = pair
            if sample is None:
                missing[_look_up(line, alone) or images / line.replace("\\", "/")] = None
            else:
                chosen[sample.image] = sample
        splits[split] = tuple(sorted(chosen.values(), key=lambda sample: sample.stem))
    return splits, tuple(missing)


Named = TypeVar("Named")


def _by_any_name(files: Mapping[Path, Named], root: Path, images: Path) -> dict[str, Named]:
    """What belongs to each file, by whatever a list may call it; names that mean several files are left out."""
    found: dict[str, Named] = {}
    ambiguous = set()
    for file, named in files.items():
        for name in _names_of(file, root, images):
            if found.setdefault(name, named) is not named:
                ambiguous.add(name)
    return {name: named for name, named in found.items() if name not in ambiguous}


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
    return Sample(image, target) if image.is_file() and target.is_file() else None


def _look_up(line: str, known: Mapping[str, Named]) -> Named | None:
    """What a line names by its own words, by the longest end of its path, or by the first of its two paths."""
    slashed = composed(line.replace("\\", "/"))
    spellings = (end for path in (slashed, slashed.split(maxsplit=1)[0]) for end in _ends(path.removeprefix("./")))
    return next((known[name] for name in spellings if name in known), None)


def _ends(path: str) -> list[str]:
    """``a/b/c``, ``b/c``, ``c``."""
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]
