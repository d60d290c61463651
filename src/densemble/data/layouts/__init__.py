"""Data sets on disk: which image belongs to which map, to which split, and what the labels mean.

One module per format; each has ``find(path) -> Layout | None`` and a row in ``LAYOUTS``.
"""

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
from densemble.data.layouts.layout import SPLITS, Drawing, Layout, Sample
from densemble.errors import DataError
from densemble.storage.images import IMAGE_SUFFIXES, TARGET_SUFFIXES

__all__ = ["LAYOUTS", "SPLITS", "Drawing", "Layout", "LayoutFormat", "Sample", "find_layout"]


@dataclass(frozen=True)
class LayoutFormat:
    """A row of ``LAYOUTS``.

    Attributes:
        find: the layout of a data set; ``None``: it is not of this format.
        suffixes: endings, in lower case, of single files that are a data set; none: ``find`` gets folders only.
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
"""Format by name. The first that recognizes a folder is taken: from files that name the pairs to folders that only look
like something."""
_NAMES_SHOWN = 5
_TEXTS = (".txt", ".csv", ".json", ".jsonl", ".xml", ".md", ".yaml", ".yml", ".html")


def find_layout(path: Path, cache: Path | None = None) -> Layout:
    """Finds out how a data set is laid out.

    Args:
        path: a folder, a CSV file of pairs, or a ZIP file of any layout.
        cache: where a ZIP file is extracted to; default ``DENSEMBLE_CACHE_DIR``, else ``~/.cache/densemble``.

    Raises:
        DataError: nothing there, no known layout, no images, or files of the layout that cannot be read.
        ResourceError: the cache cannot be written.
    """
    if path.is_file() and path.suffix.lower() == ".zip":
        return _find_extracted(path, cache)
    if path.is_dir() or (path.is_file() and _formats(path)):
        layout = _readable(path)
        if layout is not None:
            return layout
        raise DataError(_unknown(path))
    raise DataError(
        f"no data folder at '{path}'; give a folder with train/images and train/targets in it, a ZIP file of one, or a "
        "CSV file of pairs"
    )


def _readable(path: Path) -> Layout | None:
    try:
        return _detect(path)
    except OSError as error:
        raise DataError(
            f"cannot read '{error.filename or path}': {error.strerror or error}; check its permissions"
        ) from error


def _formats(path: Path) -> list[LayoutFormat]:
    """Those that may recognize a path."""
    return [row for row in LAYOUTS.values() if path.is_dir() or path.suffix.lower() in row.suffixes]


def _detect(path: Path) -> Layout | None:
    found = (row.find(path) for row in _formats(path))
    layout = next((layout for layout in found if layout is not None), None)
    if layout is None:
        return None
    if not any(layout.splits.values()) and not layout.unpaired:
        raise DataError(_no_images(path))
    return layout if layout.unused else replace(layout, unused=_unreadable_beside(layout))


def _unreadable_beside(layout: Layout) -> tuple[Path, ...]:
    """Files of formats that cannot be read, in the folders of the images and maps that are."""
    used = [file for part in layout.splits.values() for sample in part for file in (sample.target, *sample.files)]
    folders = sorted({file.parent for file in used} - {layout.path})
    files = (file for folder in folders if folder.is_dir() for file in visible_files(folder))
    return tuple(file for file in files if not file.name.lower().endswith((*TARGET_SUFFIXES, *_TEXTS)))


def _find_extracted(path: Path, cache: Path | None) -> Layout:
    folder = archive.extract(path, cache)
    layout = _readable(folder)
    inside = list(folder.iterdir())
    if layout is None and len(inside) == 1 and inside[0].is_dir():
        folder = inside[0]
        layout = _readable(folder)
    if layout is None:
        raise DataError(f"'{path}' was extracted, but: {_unknown(folder)}")
    return layout


def _no_images(path: Path) -> str:
    return f"'{path}' holds no images; put {', '.join(IMAGE_SUFFIXES)} files into its images folder"


def _seen(folders: list[str], files: list[str]) -> str:
    there = [f"{kind} {_some(names)}" for kind, names in (("folders", folders), ("files", files)) if names]
    return f"it holds the {' and the '.join(there)}" if there else "it is empty"


def _unknown(path: Path) -> str:
    """What is there, and how to arrange it."""
    images = images_targets.find_images(path) if path.is_dir() else ()
    if images and not any(True for folder in images for _ in walk(folder, IMAGE_SUFFIXES)):
        return _no_images(path)
    if images:
        places = ", ".join(f"'{folder}'" for folder in images)
        return (
            f"images in {places} have no maps beside them; put the maps into a folder 'targets' beside it (or "
            f"{', '.join(images_targets.TARGET_FOLDERS[1:9])}) with equal stems"
        )
    folders = [f"{folder.name}/" for folder in subfolders(path).values()]
    files = [child.name for child in sorted(path.iterdir()) if child.is_file()] if path.is_dir() else []
    return (
        f"'{path}' has none of the known layouts: {_seen(folders, files)}; "
        f"arrange it as {path.name}/train/images, {path.name}/train/targets, {path.name}/val/images, "
        f"{path.name}/val/targets with equal stems, or name the pairs in {path.name}/pairs.csv with the columns "
        "image,target"
    )


def _some(names: list[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return (", ".join(names[:_NAMES_SHOWN]) or "none") + (f" and {rest} more" if rest > 0 else "")
