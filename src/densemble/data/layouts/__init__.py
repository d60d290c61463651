"""Data set formats on disk: pairs of image and target, splits and classes.

One module per format; each has ``find(path) -> Layout | None`` and a row in ``LAYOUTS``.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from densemble.data.layouts import (
    archive,
    cityscapes,
    coco,
    cvat,
    imagefolder,
    images_targets,
    label_studio,
    nnunet,
    pairs_csv,
    voc,
)
from densemble.data.layouts.folders import subfolders, visible_files, walk
from densemble.data.layouts.layout import SPLITS, Layout, Sample, TargetDrawing
from densemble.errors import DataError, ResourceError
from densemble.storage.images import IMAGE_SUFFIXES, TARGET_SUFFIXES

__all__ = ["LAYOUTS", "SPLITS", "Layout", "LayoutFormat", "Sample", "TargetDrawing", "find_layout"]

_EXHAUSTED = (errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True)
class LayoutFormat:
    """A row of ``LAYOUTS``.

    Attributes:
        find: returns the layout of a data set, or ``None`` if the data set has another format.
        suffixes: lower-case suffixes of single files that ``find`` accepts. By default it accepts folders only.
    """

    find: Callable[[Path], Layout | None]
    suffixes: tuple[str, ...] = ()


LAYOUTS: dict[str, LayoutFormat] = {
    "pairs csv": LayoutFormat(pairs_csv.find, (".csv",)),
    "imagefolder": LayoutFormat(imagefolder.find),
    "voc": LayoutFormat(voc.find),
    "cityscapes": LayoutFormat(cityscapes.find),
    "nnu-net": LayoutFormat(nnunet.find),
    "images + targets": LayoutFormat(images_targets.find),
    "coco": LayoutFormat(coco.find),
    "cvat": LayoutFormat(cvat.find),
    "label studio": LayoutFormat(label_studio.find),
}
"""Formats by name. The first format that recognizes a folder is used; formats with explicit pair lists come first."""
_NAMES_SHOWN = 5
_TEXT_SUFFIXES = (".txt", ".csv", ".json", ".jsonl", ".xml", ".md", ".yaml", ".yml", ".html")


def find_layout(path: Path, cache: Path | None = None) -> Layout:
    """Detect the layout of a data set.

    Args:
        path: a folder, a CSV file of pairs, or a ZIP file of any layout.
        cache: folder into which a ZIP file is extracted. Default: ``DENSEMBLE_CACHE_DIR``, else
            ``~/.cache/densemble``.

    Raises:
        DataError: the path does not exist, has no known layout or no images, or its files cannot be read.
        ResourceError: the cache cannot be written.
    """
    if path.is_file() and path.suffix.lower() == ".zip":
        return _find_extracted(path, cache)
    if path.is_dir() or (path.is_file() and _formats(path)):
        layout = _detect(path)
        if layout is not None:
            return layout
        raise DataError(_unknown_layout_message(path))
    raise DataError(
        f"no data folder at '{path}'; give a folder with train/images and train/targets in it, a ZIP file of one, or a "
        "CSV file of pairs"
    )


def _formats(path: Path) -> list[LayoutFormat]:
    """Formats that accept a path of this type."""
    return [row for row in LAYOUTS.values() if path.is_dir() or path.suffix.lower() in row.suffixes]


def _detect(path: Path) -> Layout | None:
    try:
        layouts = (row.find(path) for row in _formats(path))
        layout = next((layout for layout in layouts if layout is not None), None)
        if layout is None:
            return None
        if not any(layout.splits.values()) and not layout.unpaired:
            raise DataError(_no_images_message(path))
        return layout if layout.unused else replace(layout, unused=_unused_files(layout))
    except OSError as error:
        message = f"cannot read '{error.filename or path}': {error.strerror or error}"
        if error.errno in _EXHAUSTED:
            raise ResourceError(f"{message}; free some memory, or raise the limits (ulimit -v, ulimit -n)") from error
        raise DataError(f"{message}; check its permissions") from error


def _unused_files(layout: Layout) -> tuple[Path, ...]:
    """Files of unsupported formats in the folders of the images and targets."""
    used = [file for part in layout.splits.values() for sample in part for file in (sample.target, *sample.files)]
    folders = sorted({file.parent for file in used} - {layout.path})
    files = (file for folder in folders if folder.is_dir() for file in visible_files(folder))
    return tuple(file for file in files if not file.name.lower().endswith((*TARGET_SUFFIXES, *_TEXT_SUFFIXES)))


def _find_extracted(path: Path, cache: Path | None) -> Layout:
    folder = archive.extract(path, cache)
    layout = _detect(folder)
    children = list(folder.iterdir())
    if layout is None and len(children) == 1 and children[0].is_dir():
        folder = children[0]
        layout = _detect(folder)
    if layout is None:
        raise DataError(f"'{path}' was extracted, but: {_unknown_layout_message(folder)}")
    return layout


def _no_images_message(path: Path) -> str:
    return f"'{path}' holds no images; put {', '.join(IMAGE_SUFFIXES)} files into its images folder"


def _unknown_layout_message(path: Path) -> str:
    """Error message that lists the content of a path and explains how to arrange a data set."""
    images = images_targets.find_images(path) if path.is_dir() else ()
    if images and not any(True for folder in images for _ in walk(folder, IMAGE_SUFFIXES)):
        return _no_images_message(path)
    if images:
        image_folders = ", ".join(f"'{folder}'" for folder in images)
        return (
            f"images in {image_folders} have no targets; put the targets into a folder "
            f"'targets' beside the images (or {', '.join(images_targets.TARGET_FOLDERS[1:9])}) with equal stems"
        )
    folders = [f"{folder.name}/" for folder in subfolders(path).values()]
    files = [child.name for child in sorted(path.iterdir()) if child.is_file()] if path.is_dir() else []
    content = []
    for label, names in (("folders", folders), ("files", files)):
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        content += [f"{label} {', '.join(names[:_NAMES_SHOWN])}{more}"] if names else []
    summary = f"it holds the {' and the '.join(content)}" if content else "it is empty"
    return (
        f"'{path}' has none of the known layouts: {summary}; "
        f"arrange it as {path.name}/train/images, {path.name}/train/targets, {path.name}/val/images, "
        f"{path.name}/val/targets with equal stems, or name the pairs in {path.name}/pairs.csv with the columns "
        "image,target"
    )
