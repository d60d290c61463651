"""Tables that name an image and its map in each row."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densemble.data.layouts.class_names import read_classes
from densemble.data.layouts.folders import split_word, uniquely_named
from densemble.data.layouts.layout import SPLITS, Layout, Sample
from densemble.errors import DataError

IMAGE_COLUMNS = ("image", "file", "input", "img", "picture", "photo", "rgb")
TARGET_COLUMNS = (
    *("target", "mask", "label", "map", "depth", "annotation", "segmentation", "density", "gt"),
    *("ground_truth", "seg", "saliency", "heatmap", "output"),
)
_FILE_ENDINGS = ("_file_name", "_filename", "_filepath", "_file_path", "_path", "_file", "_name")
"""Of columns that hold names of files: ``mask_path``."""

Row = Mapping[str, str]


@dataclass
class SampleTable:
    """Samples by split (``all`` where the rows say none), and the files that rows name in vain."""

    splits: dict[str, list[Sample]] = field(default_factory=dict)
    missing: list[Path] = field(default_factory=list)

    def add(self, split: str, image: Path, target: Path | None, points: Path | None, group: str | None) -> None:
        """Takes a pair; a file that is not there, or an image without a map, counts as missing its partner."""
        absent = [file for file in (image, target, points) if file is not None and not file.is_file()]
        self.splits.setdefault(split, [])
        if target is None or absent:
            self.missing += absent or [image]
        else:
            self.splits[split].append(Sample(image, target, points, group=group))

    def layout(self, path: Path, name: str, split_by: str) -> Layout:
        """What the rows say, with the classes that ``path`` names; ``split_by`` holds where they say a split."""
        classes = read_classes(path)
        return Layout(
            path,
            name,
            {split: uniquely_named(samples, path) for split, samples in in_order(self.splits).items()},
            tuple(dict.fromkeys(self.missing)),
            "none" if "all" in self.splits else split_by,
            classes.names,
            color_map=classes.colors,
        )


def image_column(columns: Sequence[str]) -> str | None:
    """The column that names the images: of ``IMAGE_COLUMNS``, also as ``images``, ``image_path``, ``Image Path``."""
    exact = [name for name in columns if _subject(name) in IMAGE_COLUMNS]
    others = [name for name in columns if not set(_subject(name).split("_")) & set(TARGET_COLUMNS)]
    return _column(exact or others, IMAGE_COLUMNS)


def target_column(columns: Sequence[str], image: str) -> str | None:
    """The column that names the maps: ``mask_file_name`` before ``mask``, and any other ``*_file_name`` last."""
    others = [name for name in columns if name != image]
    named = _column([name for name in others if _subject(name) != _plain(name)], TARGET_COLUMNS)
    last = next((name for name in others if name.endswith("_file_name")), None)
    return named or _column(others, TARGET_COLUMNS) or last


def _column(columns: Sequence[str], subjects: Sequence[str]) -> str | None:
    """The column of the first subject that has one: ``image_path`` before ``image``, which may be something else.

    Else one of file names with a subject among its words: ``gt_mask_path``.
    """
    longest = sorted(columns, key=lambda name: -len(name))
    exact = next((name for subject in subjects for name in longest if _subject(name) == subject), None)
    named = (name for name in longest if _plain(name) != _subject(name))
    return exact or next((name for name in named if set(_subject(name).split("_")) & set(subjects)), None)


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def _subject(column: str) -> str:
    """What a column is about: ``Image Path``, ``image-file`` and ``images`` are about ``image``."""
    plain = _plain(column)
    if plain in ("file_name", "filename", "path", "filepath", "file_path"):
        return "file"
    ending = next((ending for ending in _FILE_ENDINGS if plain.endswith(ending)), "")
    return plain.removesuffix(ending).removesuffix("s")


def read_split(row: Row, path: Path) -> str:
    """The split in a row's ``split`` cell; ``all`` where there is no such column.

    Raises:
        DataError: the cell names no split.
    """
    if "split" not in row:
        return "all"
    split = split_word(row["split"])
    if split is None:
        raise DataError(f"'{path}' has '{row['split']}' in its column split; write one of {', '.join(SPLITS)}")
    return split


def in_order(splits: Mapping[str, Sequence[Sample]]) -> dict[str, tuple[Sample, ...]]:
    """Samples by split in the order of ``SPLITS``, and of their names."""
    ordered = [name for name in (*SPLITS, "all") if name in splits]
    return {name: tuple(sorted(splits[name], key=lambda sample: (sample.stem, sample.image))) for name in ordered}
