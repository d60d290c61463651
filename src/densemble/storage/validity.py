"""Valid pixels of a TIFF: GDAL's nodata value, and masks inside the file or beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from densemble.shapes import Array

NODATA_TAG = 42113


def differs_from_nodata(page: Any, values: Array) -> Array | None:
    """Mask of the pixels where at least one channel differs from GDAL's nodata value (tag 42113)."""
    nodata = nodata_of(page)
    if nodata is None:
        return None
    if np.isnan(nodata):
        empty = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    else:
        with np.errstate(over="ignore"):  # compared in the precision of the file
            empty = values == (values.dtype.type(nodata) if values.dtype.kind == "f" else nodata)
    valid: Array = np.logical_not(empty.all(axis=2))
    return valid


def nodata_of(page: Any) -> float | None:
    """GDAL's nodata value of a tifffile page."""
    tag = page.tags.get(NODATA_TAG)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def nodata_text(value: float) -> str:
    """Format a nodata value as GDAL writes it into its tag."""
    return f"{value:g}"


def mask_pages(file: Any) -> list[Any]:
    """Pages of an open TIFF that are masks of its image; they are not 0 at valid pixels."""
    if file.is_imagej or file.is_ome:
        return []
    first = file.pages.first
    pages = (file.pages[number] for number in range(1, len(file.pages)))
    size = (first.imagelength, first.imagewidth)
    return [page for page in pages if page.is_mask and (page.imagelength, page.imagewidth) == size]


def mask_file(path: Path) -> Path | None:
    """The mask file that GDAL writes beside a TIFF, if it exists."""
    mask = path.with_name(f"{path.name}.msk")
    return mask if mask.is_file() else None
