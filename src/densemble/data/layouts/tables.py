"""Tables that name an image and its target in each row."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from densemble.data.layouts.class_names import read_classes
from densemble.data.layouts.folders import parse_split, sort_splits
from densemble.data.layouts.layout import SPLITS, Layout, Sample
from densemble.errors import DataError
from densemble.input_files import is_no_folder

IMAGE_COLUMNS = ("image", "file", "input", "img", "picture", "photo", "rgb")
TARGET_COLUMNS = (
    *("target", "mask", "label", "map", "depth", "annotation", "segmentation", "density", "gt"),
    *("ground_truth", "seg", "saliency", "heatmap", "output"),
)
_FILE_ENDINGS = ("_file_name", "_filename", "_filepath", "_file_path", "_path", "_file", "_name")
"""Endings of columns that hold file names, such as ``mask_path``."""

Row = Mapping[str, str]


@dataclass
class SampleTable:
    """Samples by split (``all`` if the rows name no split), and listed files that do not exist."""

    splits: dict[str, list[Sample]] = field(default_factory=dict)
    missing: list[Path] = field(default_factory=list)

    def add(self, split: str, image: Path, target: Path | None, points: Path | None, group: str | None) -> None:
        """Add a pair; files that do not exist and images without a target go to ``missing``."""
        absent = [file for file in (image, target, points) if file is not None and not is_no_folder(file)]
        self.splits.setdefault(split, [])
        if target is None or absent:
            self.missing += absent or [image]
        else:
            self.splits[split].append(Sample(image, target, points, group=group))

    def layout(self, path: Path, name: str, split_by: str) -> Layout:
        """Build the layout with the classes named in ``path``; ``split_by`` applies if the rows name splits."""
        classes = read_classes(path)
        return Layout(
            path,
            name,
            sort_splits(self.splits, path),
            tuple(dict.fromkeys(self.missing)),
            "none" if "all" in self.splits else split_by,
            classes.names,
            color_map=classes.colors,
        )


def image_column(columns: Sequence[str]) -> str | None:
    """Find the column of image names: one of ``IMAGE_COLUMNS`` or a variant such as ``images`` or ``Image Path``."""
    exact = [name for name in columns if _subject(name) in IMAGE_COLUMNS]
    others = [name for name in columns if not set(_subject(name).split("_")) & set(TARGET_COLUMNS)]
    return _column(exact or others, IMAGE_COLUMNS)


def target_column(columns: Sequence[str], image: str) -> str | None:
    """Find the column of target names: ``mask_file_name`` before ``mask``; any other ``*_file_name`` is last."""
    others = [name for name in columns if name != image]
    file_column = _column([name for name in others if _subject(name) != _plain(name)], TARGET_COLUMNS)
    fallback = next((name for name in others if name.endswith("_file_name")), None)
    return file_column or _column(others, TARGET_COLUMNS) or fallback


def _column(columns: Sequence[str], subjects: Sequence[str]) -> str | None:
    """Find the column of the first subject that has one, longest name first.

    ``image_path`` is preferred to ``image``, which may hold something else. Without an exact match, a column of file
    names that contains a subject as a word, such as ``gt_mask_path``, is used.
    """
    longest = sorted(columns, key=lambda name: -len(name))
    exact = next((name for subject in subjects for name in longest if _subject(name) == subject), None)
    file_columns = (name for name in longest if _plain(name) != _subject(name))
    return exact or next((name for name in file_columns if set(_subject(name).split("_")) & set(subjects)), None)


def _plain(column: str) -> str:
    return re.sub(r"[\s-]+", "_", column.strip().lower())


def _subject(column: str) -> str:
    """Reduce a column name to its subject: ``Image Path``, ``image-file`` and ``images`` -> ``image``."""
    plain = _plain(column)
    if plain in ("file_name", "filename", "path", "filepath", "file_path"):
        return "file"
    ending = next((ending for ending in _FILE_ENDINGS if plain.endswith(ending)), "")
    return plain.removesuffix(ending).removesuffix("s")


def read_split(row: Row, path: Path) -> str:
    """Read the ``split`` cell of a row; ``all`` if there is no such column.

    Raises:
        DataError: the cell does not name a split.
    """
    if "split" not in row:
        return "all"
    split = parse_split(row["split"])
    if split is None:
        raise DataError(f"'{path}' has '{row['split']}' in its column split; write one of {', '.join(SPLITS)}")
    return split
