"""TIFF: bit depths, bands, pages, tiles, pyramids, palettes, compressions; checked with rasterio and Pillow."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from densemble.errors import DataError, ResourceError, UsageError
from densemble.storage.images import (
    Array,
    image_size,
    orientation,
    read_colours,
    read_image,
    read_labels,
    read_palette,
    read_planes,
    read_points,
    read_values,
    turned,
    write_tiff,
)
from densemble.storage.large_image import open_large

RANDOM = np.random.default_rng(0)


def samples(*shape: int, dtype: str = "uint8") -> Array:
    return (RANDOM.random(shape) * (1 if dtype == "float32" else 2 ** (8 * np.dtype(dtype).itemsize))).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    "extra", [{}, {"tile": (16, 16)}, {"byteorder": ">"}, {"compression": "zlib", "bigtiff": True}]
)
def test_depths_and_bands(dtype: str, channels: int, planar: str, extra: dict[str, Any], tmp_path: Path) -> None:
    values = samples(20, 30, channels, dtype=dtype)
    stored = values[:, :, 0] if channels == 1 else values if planar == "contig" else values.transpose(2, 0, 1)
    layout = {} if channels == 1 else {"planarconfig": planar}
    tifffile.imwrite(tmp_path / "p.tif", stored, photometric="minisblack", **layout, **extra)
    image = read_image(tmp_path / "p.tif")
    assert image.dtype == np.dtype(dtype)  # in this machine's byte order
    np.testing.assert_array_equal(image, values.repeat(3, 2) if channels == 1 else values)
    np.testing.assert_array_equal(read_planes(tmp_path / "p.tif"), values)
    assert image_size(tmp_path / "p.tif") == (20, 30)


@pytest.mark.parametrize("compression", ["lzw", "deflate", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("predictor", [False, True])
def test_compressions(compression: str, predictor: bool, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    values = samples(20, 30, 3)
    tifffile.imwrite(tmp_path / "p.tif", values, compression=compression, predictor=predictor)
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), values)


def test_a_compression_without_its_decoder_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(samples(4, 6)).save(tmp_path / "p.tif", compression="tiff_lzw")

    def refuse(*_: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    with pytest.raises(DataError, match=r"p\.tif.*LZW.*pip install imagecodecs"):
        read_image(tmp_path / "p.tif")


@pytest.mark.parametrize(("extrasample", "kept"), [("unspecified", 4), ("assocalpha", 3), ("unassalpha", 3)])
def test_only_declared_alpha_is_left_out_of_images(extrasample: str, kept: int, tmp_path: Path) -> None:
    values = samples(5, 7, 4)
    tifffile.imwrite(tmp_path / "p.tif", values, photometric="rgb", extrasamples=[extrasample])
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), values[:, :, :kept])
    np.testing.assert_array_equal(read_planes(tmp_path / "p.tif"), values)


@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}, {"tile": (16, 16)}])
def test_grey_pages_of_one_size_are_channels(options: dict[str, Any], tmp_path: Path) -> None:
    values = samples(6, 20, 30, dtype="uint16")
    tifffile.imwrite(tmp_path / "p.tif", values, photometric="minisblack", **options)
    np.testing.assert_array_equal(read_planes(tmp_path / "p.tif"), values.transpose(1, 2, 0))
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), values.transpose(1, 2, 0))
    with open_large(tmp_path / "p.tif") as image:
        np.testing.assert_array_equal(image.read(3, 5, 11, 7), values[:, 3:14, 5:12].transpose(1, 2, 0))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("read", [read_labels, read_values, read_points])
def test_a_map_of_one_channel_has_one_page(read: Callable[[Path], Any], count: int, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "p.tif", np.zeros((count, 20, 30), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match=rf"p\.tif.*{count} pages.*multilabel"):
        read(tmp_path / "p.tif")


@pytest.mark.parametrize("second", [samples(20, 30, 3), samples(40, 60), samples(20, 30, dtype="uint16")])
def test_pages_that_are_images_of_their_own_are_refused(second: Any, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(samples(20, 30), photometric="minisblack")
        writer.write(second, photometric="rgb" if second.ndim == 3 else "minisblack")
    for read in (read_image, open_large):
        with pytest.raises(DataError, match=r"p\.tif.*2 pages"):
            read(tmp_path / "p.tif")


@pytest.mark.parametrize(("axes", "shape"), [("CYX", (5, 20, 30)), ("ZYX", (5, 20, 30)), ("TCYX", (2, 3, 20, 30))])
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_of_named_axes_only_channels_belong_to_the_image(
    axes: str, shape: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    values = samples(*shape)
    path = tmp_path / ("p.ome.tif" if kind == "ome" else "p.tif")
    tifffile.imwrite(path, values, photometric="minisblack", metadata={"axes": axes}, imagej=kind == "imagej")
    if axes == "CYX":
        np.testing.assert_array_equal(read_image(path), values.transpose(1, 2, 0))
    else:
        with pytest.raises(DataError, match=f"pages.*{axes}"):
            read_image(path)
    if axes == "TCYX":
        with pytest.raises(DataError, match="one channel axis"):
            read_planes(path)


@pytest.mark.parametrize("in_subifds", [True, False])
def test_the_full_resolution_of_a_pyramid(in_subifds: bool, tmp_path: Path) -> None:
    values = samples(64, 96, 3)
    with tifffile.TiffWriter(tmp_path / "p.tif") as writer:
        writer.write(values, tile=(16, 16), subifds=1 if in_subifds else None)
        writer.write(values[::2, ::2].copy(), tile=(16, 16), subfiletype=1)
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), values)
    np.testing.assert_array_equal(read_planes(tmp_path / "p.tif"), values)


def test_palette(tmp_path: Path) -> None:
    indices, colours = samples(5, 7), samples(256, 3)
    tifffile.imwrite(
        tmp_path / "p.tif", indices, photometric="palette", colormap=(colours.astype(np.uint16) * 257).transpose()
    )
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), colours[indices])
    np.testing.assert_array_equal(read_colours(tmp_path / "p.tif"), colours[indices])
    np.testing.assert_array_equal(read_labels(tmp_path / "p.tif"), indices)
    assert read_palette(tmp_path / "p.tif") == tuple(map(tuple, colours.tolist()))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "group4"])
def test_one_bit(compression: str | None, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    mask = RANDOM.random((6, 11)) > 0.5
    Image.fromarray(mask).save(tmp_path / "p.tif", compression=compression)
    np.testing.assert_array_equal(read_labels(tmp_path / "p.tif"), mask)
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), (mask * np.uint8(255))[:, :, None].repeat(3, 2))


@pytest.mark.parametrize("bits", [2, 4, 12])
def test_few_bits_are_scaled_in_images_alone(bits: int, tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    rasterio = pytest.importorskip("rasterio")
    dtype = "uint8" if bits < 8 else "uint16"
    values = RANDOM.integers(0, 2**bits, (6, 10)).astype(dtype)
    values[0, 0] = 2**bits - 1
    shape = {"height": 6, "width": 10, "count": 1, "dtype": dtype, "transform": rasterio.Affine(2, 0, 0, 0, 2, 0)}
    with rasterio.open(tmp_path / "p.tif", "w", driver="GTiff", nbits=bits, **shape) as file:
        file.write(values, 1)
    np.testing.assert_array_equal(read_labels(tmp_path / "p.tif"), values)
    full = np.iinfo(dtype).max
    np.testing.assert_array_equal(
        read_image(tmp_path / "p.tif")[:, :, 2], np.round(values.astype(float) * full / (2**bits - 1))
    )


def test_dark_counts_are_turned_into_light_in_images_alone(tmp_path: Path) -> None:
    values = samples(5, 7)
    tifffile.imwrite(tmp_path / "p.tif", values, photometric="miniswhite")
    with Image.open(tmp_path / "p.tif") as reference:
        np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), np.asarray(reference.convert("RGB")))
    np.testing.assert_array_equal(read_values(tmp_path / "p.tif"), values)


def test_jpeg_in_tiff_is_rgb(tmp_path: Path) -> None:
    pytest.importorskip("imagecodecs")
    rasterio = pytest.importorskip("rasterio")
    smooth = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    smooth[:, :, 1] = smooth[::-1, :, 1]  # YCbCr taken for RGB would look quite different
    shape = {"height": 32, "width": 48, "count": 3, "dtype": "uint8", "transform": rasterio.Affine(2, 0, 0, 0, 2, 0)}
    with rasterio.open(tmp_path / "p.tif", "w", driver="GTiff", photometric="ycbcr", compress="jpeg", **shape) as file:
        file.write(smooth.transpose(2, 0, 1))
    assert np.abs(read_image(tmp_path / "p.tif").astype(int) - smooth).max() < 12


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("read", [read_image, read_planes, read_values, read_labels, read_colours, open_large])
def test_complex_numbers_are_refused(dtype: str, read: Callable[[Path], object], tmp_path: Path) -> None:
    """The imaginary part has no place in an image or a map, and is not left out silently."""
    values = (samples(20, 30, dtype="float32") * (1 + 2j)).astype(dtype)
    tifffile.imwrite(tmp_path / "p.tif", values, tile=(16, 16))
    with pytest.raises(DataError, match=rf"p\.tif' holds complex numbers \({dtype}\).*magnitude"):
        read(tmp_path / "p.tif")


def test_complex_integers_of_radar_are_refused(tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    shape = {"height": 6, "width": 10, "count": 1, "dtype": "complex_int16"}
    with rasterio.open(
        tmp_path / "p.tif", "w", driver="GTiff", transform=rasterio.Affine(2, 0, 0, 0, 2, 0), **shape
    ) as file:
        file.write(np.full((1, 6, 10), 3 + 4j, np.complex64))
    with pytest.raises(DataError, match="holds complex numbers"):
        read_planes(tmp_path / "p.tif")


def test_colour_spaces_that_are_not_converted_are_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "p.tif", samples(5, 7, 4), photometric="separated")
    with pytest.raises(DataError, match="SEPARATED; convert it to RGB"):
        read_image(tmp_path / "p.tif")


@pytest.mark.parametrize("turn", range(1, 9))
def test_orientation(turn: int, tmp_path: Path) -> None:
    values, path = samples(5, 7, 3), tmp_path / "p.tif"
    tifffile.imwrite(path, values, extratags=[(274, "H", 1, turn, True)])
    assert orientation(path) == turn
    np.testing.assert_array_equal(read_image(path), turned(values, turn))
    np.testing.assert_array_equal(read_image(path, turn=False), values)
    np.testing.assert_array_equal(read_planes(path), turned(values, turn))
    assert image_size(path) == turned(values, turn).shape[:2]


@pytest.mark.parametrize("shape", [(5, 7), (1, 5, 7), (3, 5, 7), (4, 5, 7), (6, 5, 7)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_written_maps_are_read_by_others(shape: tuple[int, ...], dtype: str, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    values, path = samples(*shape, dtype=dtype), tmp_path / "m.tif"
    write_tiff(path, values)
    bands = values.reshape(-1, 5, 7)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), bands)
    np.testing.assert_array_equal(read_planes(path), bands.transpose(1, 2, 0))


def test_maps_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="choose another folder"):
        write_tiff(tmp_path / "absent" / "m.tif", samples(4, 6))
    for values in (samples(6), np.ones((3, 4), complex), np.ones((0, 4))):
        with pytest.raises(UsageError, match=r"\(K, H, W\)"):
            write_tiff(tmp_path / "m.tif", values)
