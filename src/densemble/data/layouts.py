"""Data sets on disk: which picture belongs to which map, and to which split."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from densemble.errors import DataError
from densemble.storage.images import IMAGE_SUFFIXES, TARGET_SUFFIXES

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """A picture with its map, matched by stem; ``points`` is the 1-bit map of fixations, where there is one."""

    image: Path
    target: Path
    points: Path | None

    @property
    def stem(self) -> str:
        """The name that picture and map share."""
        return self.image.stem


@dataclass(frozen=True)
class Layout:
    """What was found in a data folder.

    Attributes:
        path: the folder.
        splits: samples in the order of their stems, by split name; only splits that exist.
        unpaired: files without their partner.
        split_by: ``folders``, or ``seed`` where the folder has no split of its own.
        classes: lines of ``classes.txt``, if it is there.
    """

    path: Path
    splits: dict[str, tuple[Sample, ...]]
    unpaired: tuple[Path, ...]
    split_by: str
    classes: tuple[str, ...] | None


def find_layout(path: Path, val_fraction: float = 0.2, seed: int = 0) -> Layout:
    """Finds ``DATA/{train,val[,test]}/{images,targets}/`` or ``DATA/{images,targets}/`` with a seeded split.

    Raises:
        DataError: no such folder, no pictures, or stems that occur twice.
    """
    if not path.is_dir():
        raise DataError(f"no data folder at '{path}'; give a folder with train/images and train/targets in it")
    found = {name: path / name for name in SPLITS if (path / name / "images").is_dir()}
    classes = _read_classes(path / "classes.txt")
    if found:
        pairs = {name: _pair(folder) for name, folder in found.items()}
        splits = {name: samples for name, (samples, _) in pairs.items()}
        unpaired = tuple(file for _, files in pairs.values() for file in files)
        layout = Layout(path, splits, unpaired, "folders", classes)
    elif (path / "images").is_dir():
        samples, unpaired = _pair(path)
        layout = Layout(path, _split(samples, val_fraction, seed), unpaired, "seed", classes)
    else:
        raise DataError(
            f"'{path}' has no images/ and no train/images/; arrange it as {path.name}/train/images, "
            f"{path.name}/train/targets, {path.name}/val/images, {path.name}/val/targets with equal stems"
        )
    if not any(layout.splits.values()) and not layout.unpaired:
        raise DataError(f"'{path}' holds no pictures; put {', '.join(IMAGE_SUFFIXES)} files into its images folder")
    return layout


def _read_classes(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def _by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix.lower() not in suffixes or file.name.startswith("."):
            continue
        if file.stem in found:
            raise DataError(
                f"'{found[file.stem]}' and '{file}' have the same stem; pairs are matched by stem: rename one"
            )
        found[file.stem] = file
    return found


def _pair(folder: Path) -> tuple[tuple[Sample, ...], tuple[Path, ...]]:
    images = _by_stem(folder / "images", IMAGE_SUFFIXES)
    targets = _by_stem(folder / "targets", TARGET_SUFFIXES)
    points = _by_stem(folder / "fixations", TARGET_SUFFIXES)
    both = sorted(images.keys() & targets.keys())
    alone = [images[stem] for stem in sorted(images.keys() - targets.keys())]
    alone += [targets[stem] for stem in sorted(targets.keys() - images.keys())]
    return tuple(Sample(images[s], targets[s], points.get(s)) for s in both), tuple(alone)


def _split(samples: Sequence[Sample], val_fraction: float, seed: int) -> dict[str, tuple[Sample, ...]]:
    order = list(samples)
    random.Random(seed).shuffle(order)
    count = max(1, round(len(order) * val_fraction)) if len(order) > 1 else 0
    chosen = set(order[:count])
    return {
        "train": tuple(sample for sample in samples if sample not in chosen),
        "val": tuple(sample for sample in samples if sample in chosen),
    }
