"""The one door to rasterio: where on Earth an image lies, and maps that lie there too."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from densemble.errors import DataError, ResourceError, UsageError
from densemble.shapes import Array, Size
from densemble.storage.tiff import is_geotiff

_NOWHERE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of an image lie.

    Attributes:
        crs: coordinate reference system as WKT; ``None`` where the file names none.
        transform: (a, b, c, d, e, f) with x = a * column + b * row + c and y = d * column + e * row + f, in units of
            the reference system, where (0, 0) is the outer corner of the first pixel.
    """

    crs: str | None
    transform: tuple[float, float, float, float, float, float]

    def scaled(self, from_size: Size, to_size: Size) -> "Georeference":
        """The georeference of a map of ``to_size`` (H, W) that covers the same ground as an image of ``from_size``."""
        rows, columns = from_size[0] / to_size[0], from_size[1] / to_size[1]
        a, b, c, d, e, f = self.transform
        return replace(self, transform=(a * columns, b * rows, c, d * columns, e * rows, f))


def read_georeference(path: Path) -> Georeference | None:
    """The georeference of a GeoTIFF; ``None`` for any other file. rasterio is needed for a GeoTIFF alone.

    Raises:
        DataError: absent or damaged.
        UsageError: a GeoTIFF, and rasterio is not installed.
    """
    if not is_geotiff(path):
        return None
    rasterio = _load(f"'{path}' is a GeoTIFF; its georeference")
    try:
        with rasterio.open(path) as file:
            crs = file.crs.to_wkt() if file.crs else None
            transform = tuple(float(number) for number in file.transform[:6])
    except (OSError, ValueError, rasterio.errors.RasterioError) as error:
        raise DataError(f"cannot read the georeference of '{path}': {error}; the file is damaged") from error
    a, b, c, d, e, f = transform
    return None if crs is None and transform == _NOWHERE else Georeference(crs, (a, b, c, d, e, f))


def write_geotiff(path: Path, array: Array, georeference: Georeference, nodata: float | None = None) -> None:
    """Writes a map ``(H, W)`` or ``(K, H, W)`` as GeoTIFF with K bands, compressed by deflate.

    Args:
        path: the file.
        array: the map.
        georeference: where it lies.
        nodata: the number that stands for no data in it.

    Raises:
        UsageError: rasterio is not installed, a dtype or a reference system that GeoTIFF does not have.
        ResourceError: the folder cannot be written or the disk is full.
    """
    rasterio = _load(f"the GeoTIFF '{path}'")
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
            photometric="MINISBLACK",  # else GDAL calls four bands of 8 bits RGB with alpha
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


def _load(what: str) -> ModuleType:
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise UsageError(f'{what} needs rasterio ({error}); install it with pip install "densemble[geo]"') from error
    module: ModuleType = rasterio
    return module
