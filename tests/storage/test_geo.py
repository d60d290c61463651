"""GeoTIFF: a map has the georeference of its image."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from densemble.errors import DataError, ResourceError, UsageError
from densemble.storage.geo import Georeference, read_georeference
from densemble.storage.images import orientation, read_image, read_planes, read_validity, read_values, write_tiff
from densemble.storage.large_image import open_large

rasterio = pytest.importorskip("rasterio")
WKT = rasterio.crs.CRS.from_epsg(32632).to_wkt()
TURNED = (10.0, 1.5, 500_000.0, 2.5, -10.0, 5_200_000.0)


def write_image(path: Path, crs: str | None = WKT, bands: int = 3) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (bands, 6, 8), dtype=np.uint8)
    layout = {"driver": "GTiff", "height": 6, "width": 8, "count": bands, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", transform=rasterio.Affine(*TURNED), **layout) as file:
        file.write(values)
    return values


@pytest.mark.parametrize("crs", [WKT, None])
def test_a_map_carries_the_georeference_of_its_image(crs: str | None, tmp_path: Path) -> None:
    values = write_image(tmp_path / "image.tif", crs)
    np.testing.assert_array_equal(read_image(tmp_path / "image.tif"), values.transpose(1, 2, 0))
    georeference = read_georeference(tmp_path / "image.tif")
    assert georeference is not None and georeference.transform == TURNED
    for shape in ((6, 8), (1, 6, 8), (4, 6, 8)):
        drawn = np.random.default_rng(1).random(shape).astype(np.float32)
        write_tiff(tmp_path / "map.tif", drawn, georeference)
        with rasterio.open(tmp_path / "map.tif") as file, rasterio.open(tmp_path / "image.tif") as image:
            assert (file.crs, file.transform, file.shape) == (image.crs, image.transform, image.shape)
            np.testing.assert_array_equal(file.read(), drawn.reshape(-1, 6, 8))
        assert read_georeference(tmp_path / "map.tif") == georeference
        np.testing.assert_array_equal(read_planes(tmp_path / "map.tif"), drawn.reshape(-1, 6, 8).transpose(1, 2, 0))


def test_four_bands_of_eight_bits_are_no_image_with_alpha(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 6, 8), dtype=np.uint8)
    write_tiff(tmp_path / "map.tif", values, Georeference(WKT, TURNED))
    np.testing.assert_array_equal(read_image(tmp_path / "map.tif"), values.transpose(1, 2, 0))


@pytest.mark.parametrize("to_size", [(3, 2), (12, 16), (5, 7)])
def test_a_scaled_map_covers_the_same_ground(to_size: tuple[int, int]) -> None:
    def place(transform: tuple[float, ...], column: float, row: float) -> np.ndarray:
        return np.reshape(transform, (2, 3)) @ (column, row, 1)

    scaled = Georeference(WKT, TURNED).scaled((6, 8), to_size).transform
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1), (0.3, 0.7)):  # corners and a point between, as shares
        assert place(scaled, column * to_size[1], row * to_size[0]) == pytest.approx(place(TURNED, column * 8, row * 6))


def test_files_without_a_georeference(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "p.png")
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((6, 8), np.uint8))
    (tmp_path / "empty.tif").touch()
    for name in ("p.png", "p.tif", "empty.tif"):
        assert read_georeference(tmp_path / name) is None
    with pytest.raises(DataError, match=r"absent\.tif"):
        read_georeference(tmp_path / "absent.tif")


def test_only_geotiffs_need_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "geo.tif")
    tifffile.imwrite(tmp_path / "plain.tif", np.zeros((6, 8), np.uint8))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert read_georeference(tmp_path / "plain.tif") is None
    assert read_image(tmp_path / "geo.tif").shape == (6, 8, 3)
    with pytest.raises(UsageError, match=r"geo\.tif.*pip install 'densemble\[geo\]'"):
        read_georeference(tmp_path / "geo.tif")
    with pytest.raises(UsageError, match=r"densemble\[geo\]"):
        write_tiff(tmp_path / "map.tif", np.zeros((6, 8), np.uint8), Georeference(WKT, TURNED))


def test_pixels_stay_with_their_georeference(tmp_path: Path) -> None:
    """Geographic software does not apply the TIFF tag of orientation, and neither does the reader of a GeoTIFF."""
    values = write_image(tmp_path / "p.tif")
    with tifffile.TiffFile(tmp_path / "p.tif") as file:
        keys = [(tag.code, tag.dtype, tag.count, tag.value, True) for tag in file.pages.first.tags if tag.code > 33000]
    turn = (274, "H", 1, 6, True)
    tifffile.imwrite(tmp_path / "geo.tif", values.transpose(1, 2, 0), extratags=[*keys, turn])
    assert orientation(tmp_path / "geo.tif") == 1
    np.testing.assert_array_equal(read_image(tmp_path / "geo.tif"), values.transpose(1, 2, 0))


def test_maps_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="choose another folder"):
        write_tiff(tmp_path / "absent" / "m.tif", np.zeros((2, 3), np.uint8), Georeference(WKT, TURNED))
    with pytest.raises(UsageError, match="float16"):
        write_tiff(tmp_path / "m.tif", np.zeros((2, 3), np.float16), Georeference(WKT, TURNED))
    with pytest.raises(UsageError, match="WKT"):
        write_tiff(tmp_path / "m.tif", np.zeros((2, 3), np.uint8), Georeference("nowhere", TURNED))


# --- where a file holds data ----------------------------------------------------------------------------------------

HOLE = np.zeros((40, 53), bool)
HOLE[:11], HOLE[20:26, 30:44] = True, True


def write_holed(path: Path, by: str, bands: int, dtype: str, **layout: Any) -> np.ndarray:
    """A GeoTIFF with no data in ``HOLE``, said by its value for no data, by a mask, or by alpha."""
    values = np.random.default_rng(0).integers(1, 200, (bands, *HOLE.shape)).astype(dtype)
    nodata = {"nodata": -9999.0 if dtype == "float32" else 0, "nan": np.nan}.get(by)
    if nodata is not None:
        values[:, HOLE] = nodata
        values[0, 30, 30] = nodata  # of several bands one may hold the value
    options = {"driver": "GTiff", "height": 40, "width": 53, "dtype": dtype, "crs": WKT, "nodata": nodata, **layout}
    count = bands + (by == "alpha")
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=by == "mask inside"),
        rasterio.open(path, "w", transform=rasterio.Affine(*TURNED), count=count, **options) as file,
    ):
        for band, plane in enumerate(values, start=1):
            file.write(plane, band)
        if by == "alpha":
            file.colorinterp = (*file.colorinterp[:-1], rasterio.enums.ColorInterp.alpha)
            file.write(np.where(HOLE, 0, 255).astype(dtype), count)
        elif by.startswith("mask"):
            file.write_mask(~HOLE)
    return values


TILED = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}


@pytest.mark.parametrize("layout", [{}, TILED], ids=["strips", "tiles"])
@pytest.mark.parametrize(
    ("by", "bands", "dtype"),
    [
        *(("nodata", 3, "uint8"), ("nodata", 1, "float32"), ("nodata", 4, "float32"), ("nan", 2, "float32")),
        *(("mask inside", 3, "uint8"), ("mask beside", 1, "uint16"), ("alpha", 3, "uint8"), ("alpha", 1, "uint8")),
    ],
)
def test_validity_agrees_with_gdal(by: str, bands: int, dtype: str, layout: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    values = write_holed(path, by, bands, dtype, **layout)
    with rasterio.open(path) as file:
        expected = file.dataset_mask() != 0
    assert not expected[HOLE].any() and expected[~HOLE].mean() > 0.99
    np.testing.assert_array_equal(read_validity(path), expected)
    with open_large(path) as image:
        assert image.declares_validity
        np.testing.assert_array_equal(image.read_validity(3, 20, 31, 30), expected[3:34, 20:50])
        window = image.read(3, 20, 31, 30)
        assert (window[~expected[3:34, 20:50]] == 0).all()
    if bands == 1:
        np.testing.assert_array_equal(read_values(path), np.where(expected, values[0].astype(np.float32), np.nan))


def test_files_without_nodata_have_no_validity_mask(tmp_path: Path) -> None:
    write_image(tmp_path / "p.tif")
    tifffile.imwrite(
        tmp_path / "icon.tif", np.zeros((6, 8, 4), np.uint8), photometric="rgb", extrasamples=["unassalpha"]
    )
    Image.new("RGBA", (8, 6)).save(tmp_path / "p.png")
    assert [read_validity(tmp_path / name) for name in ("p.tif", "icon.tif", "p.png")] == [None] * 3
    with open_large(tmp_path / "p.tif") as image:
        assert not image.declares_validity and image.read_validity(0, 0, 2, 2) is None


@pytest.mark.parametrize("text", ["-9999", "-9999 ", "-9999.0\0", "-9.999e3"])
def test_nodata_without_a_georeference(text: str, tmp_path: Path) -> None:
    values = np.linspace(-20, 20, 48, dtype=np.float32).reshape(6, 8)
    values[:2] = -9999
    tifffile.imwrite(tmp_path / "p.tif", values, extratags=[(42113, "s", 0, text, True)])
    np.testing.assert_array_equal(read_values(tmp_path / "p.tif"), np.where(values == -9999, np.nan, values))
