"""Read georeferences, write GeoTIFF maps, and convert rasters to polygons; the only module that imports rasterio."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from densemble.errors import DataError, ResourceError, UsageError, needs_package
from densemble.input_files import require_regular
from densemble.shapes import Array, Size
from densemble.storage.tiff import is_geotiff

_BESIDE = (".aux.xml", ".ovr", ".msk")
_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Georeference:
    """Position of the pixels of an image on Earth.

    Attributes:
        crs: coordinate reference system as WKT; ``None`` if the file has none.
        transform: (a, b, c, d, e, f) with x = a * column + b * row + c and y = d * column + e * row + f, in units of
            the reference system; row 0, column 0 is the outer corner of the first pixel.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]

    def scaled(self, from_size: Size, to_size: Size) -> "Georeference":
        """Georeference of a map of ``to_size`` (H, W) that covers the same area as an image of ``from_size``."""
        rows, columns = from_size[0] / to_size[0], from_size[1] / to_size[1]
        a, b, c, d, e, f = self.transform
        return replace(self, transform=(a * columns, b * rows, c, d * columns, e * rows, f))

    @property
    def pixel_area(self) -> float:
        """Area of a pixel in squared units of the reference system."""
        a, b, _, d, e, _ = self.transform
        return abs(a * e - b * d)

    @property
    def pixel_square_metres(self) -> float | None:
        """Area of a pixel in square metres of the projection; ``None`` for degrees or without a reference system."""
        if self.crs is None:
            return None
        crs = _import_rasterio("the unit of a reference system").crs.CRS.from_wkt(self.crs)
        return self.pixel_area * float(crs.linear_units_factor[1]) ** 2 if crs.is_projected else None

    @property
    def crs_name(self) -> str | None:
        """OGC name of the reference system, as GDAL writes it into GeoJSON; ``None`` if it is not a registered one."""
        if self.crs is None:
            return None
        authority = _import_rasterio("the name of a reference system").crs.CRS.from_wkt(self.crs).to_authority()
        if authority is None:
            return None
        longitude_first = authority == ("EPSG", "4326")
        return "urn:ogc:def:crs:OGC:1.3:CRS84" if longitude_first else f"urn:ogc:def:crs:{authority[0]}::{authority[1]}"


def read_georeference(path: Path) -> Georeference | None:
    """Read the georeference of a GeoTIFF; ``None`` for any other file. Only a GeoTIFF needs rasterio.

    Raises:
        DataError: the file does not exist or is damaged.
        UsageError: the file is a GeoTIFF, and rasterio is not installed.
    """
    if not is_geotiff(path):
        return None
    rasterio = _import_rasterio(f"'{path}' is a GeoTIFF; its georeference")
    try:
        for other in (path, *(path.with_name(f"{path.name}{suffix}") for suffix in _BESIDE)):
            if other.exists():  # GDAL opens the files beside the image, too
                require_regular(other)
        with rasterio.open(path) as file:
            crs = file.crs.to_wkt() if file.crs else None
            transform = tuple(float(number) for number in file.transform[:6])
    except (OSError, ValueError, rasterio.errors.RasterioError) as error:
        raise DataError(f"cannot read the georeference of '{path}': {error}; the file is damaged") from error
    a, b, c, d, e, f = transform
    return None if crs is None and transform == _IDENTITY else Georeference(crs, (a, b, c, d, e, f))


def write_geotiff(path: Path, array: Array, georeference: Georeference, nodata: float | None = None) -> None:
    """Write a map ``(H, W)`` or ``(K, H, W)`` as GeoTIFF with K bands and deflate compression.

    Args:
        path: output file.
        array: the map.
        georeference: position of the map.
        nodata: value that marks pixels without data.

    Raises:
        UsageError: rasterio is not installed, or GeoTIFF does not support the dtype or the reference system.
        ResourceError: the folder cannot be written or the disk is full.
    """
    rasterio = _import_rasterio(f"the GeoTIFF '{path}'")
    if not rasterio.dtypes.check_dtype(array.dtype):
        raise UsageError(f"a GeoTIFF cannot hold {array.dtype}; save '{path}' as float32 or uint8")
    bands = array if array.ndim == 3 else array[None]
    try:
        file = rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=bands.shape[0],
            height=bands.shape[1],
            width=bands.shape[2],
            dtype=bands.dtype,
            crs=georeference.crs,
            transform=rasterio.Affine(*georeference.transform),
            photometric="MINISBLACK",  # else GDAL marks four 8-bit bands as RGB with alpha
            interleave="band",
            compress="deflate",
            bigtiff="IF_SAFER",
            nodata=nodata,
        )
        with file:
            file.write(bands)
    except rasterio.errors.CRSError as error:
        raise UsageError(f"cannot write '{path}': {error}; give the reference system as WKT") from error
    except (OSError, rasterio.errors.RasterioError) as error:
        raise ResourceError(f"cannot write '{path}': {error}; choose another folder") from error


def polygons(
    numbers: Array, georeference: Georeference | None, wgs84: bool = False
) -> Iterator[tuple[dict[str, Any], int]]:
    """Polygons of the regions of equal number (4 neighbours) as GeoJSON geometries, each with its number; 0 is none.

    GDAL reads ``numbers`` without a copy; memory grows with the number of corners of all polygons.

    Args:
        numbers: int32 ``(H, W)``.
        georeference: position of the pixels; ``None``: coordinates in pixels, x to the right and y down.
        wgs84: convert the coordinates to longitude and latitude; needs a reference system.

    Raises:
        UsageError: rasterio is not installed, or coordinates cannot be converted.
    """
    rasterio = _import_rasterio("GeoJSON")
    from rasterio import features, warp

    transform = _IDENTITY if georeference is None else georeference.transform
    for geometry, number in features.shapes(numbers, connectivity=4, transform=rasterio.Affine(*transform)):
        if not number:
            continue
        if wgs84:
            assert georeference is not None
            try:
                geometry = warp.transform_geom(georeference.crs, "EPSG:4326", geometry)
            except rasterio.errors.RasterioError as error:
                raise UsageError(f"cannot convert coordinates to WGS84: {error}; keep those of the raster") from error
        yield geometry, int(number)


def require_rasterio() -> None:
    """Check that rasterio is installed.

    Raises:
        UsageError: it is not.
    """
    _import_rasterio("GeoJSON")


def _import_rasterio(purpose: str) -> ModuleType:
    with needs_package("rasterio", purpose, "geo"):
        import rasterio
        import rasterio.errors
    module: ModuleType = rasterio
    return module
