"""Where a TIFF holds data: GDAL's value for no data, and masks inside the file or beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from densemble.shapes import Array

NODATA_TAG = 42113


def differs_from_nodata(page: Any, values: Array) -> Array | None:
    """Where some channel holds another value than GDAL's for no data (tag 42113)."""
    nodata = nodata_of(page)
    if nodata is None:
        return None
    if np.isnan(nodata):
        empty = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    else:
        with np.errstate(over="ignore"):  # in 32 bits, as it was written
            empty = values == (values.dtype.type(nodata) if values.dtype.kind == "f" else nodata)
    known: Array = np.logical_not(empty.all(axis=2))
    return known


def nodata_of(page: Any) -> float | None:
    """GDAL's value for no data of a tifffile page."""
    tag = page.tags.get(NODATA_TAG)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def nodata_text(value: float) -> str:
    """The value for no data as GDAL writes it into its tag."""
    return f"{value:g}"


def mask_pages(file: Any) -> list[Any]:
    """The pages of an open TIFF that are masks of its image: not 0 where there is data."""
    if file.is_imagej or file.is_ome:
        return []
    first = file.pages.first
    pages = (file.pages[number] for number in range(1, len(file.pages)))
    sizes = (first.imagelength, first.imagewidth)
    return [page for page in pages if page.is_mask and (page.imagelength, page.imagewidth) == sizes]


def mask_file(path: Path) -> Path | None:
    """The TIFF with the mask of a TIFF, which GDAL writes beside it."""
    beside = path.with_name(f"{path.name}.msk")
    return beside if beside.is_file() else None
