"""Images are read as displayed, targets as stored numbers, both in the bit depth of the file."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageOps

from densemble.errors import DataError, ResourceError, UsageError
from densemble.storage.images import (
    IMAGE_SUFFIXES,
    UNKNOWN,
    Array,
    as_unit,
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
    write_npy,
    write_png,
)

RANDOM = np.random.default_rng(0)
GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6  # PNG's colour types


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def encode_png(samples: Array, colour: int, bits: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """PNG by the specification: filter type Sub on every second row, None on the others."""
    height, width, channels = samples.shape
    distance, rows = max(1, channels * bits // 8), []
    for index, row in enumerate(samples.reshape(height, -1)):
        if bits < 8:
            digits = "".join(f"{value:0{bits}b}" for value in row)
            packed = np.array([int(digits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(digits), 8)], np.uint8)
        else:
            packed = np.frombuffer(row.astype(">u2" if bits == 16 else np.uint8).tobytes(), np.uint8).copy()
        if index % 2:
            packed[distance:] -= packed[:-distance].copy()
        rows.append(bytes([index % 2]) + packed.tobytes())
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    content = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + content + after + chunk(b"IEND", b"")


def exif(turn: int) -> bytes:
    """An EXIF block that holds an orientation and nothing else."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, turn, 0, 0)


# --- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("colour", "channels"), [(GREY, 1), (RGB, 3), (GREY_ALPHA, 2), (RGB_ALPHA, 4)])
def test_png_keeps_every_bit_and_drops_alpha(colour: int, channels: int, bits: int, tmp_path: Path) -> None:
    dtype = np.uint8 if bits == 8 else np.uint16
    samples = RANDOM.integers(0, 2**bits, (5, 7, channels)).astype(dtype)
    path = tmp_path / "p.png"
    path.write_bytes(encode_png(samples, colour, bits))
    shown = samples[:, :, :1].repeat(3, 2) if channels < 3 else samples[:, :, :3]
    image = read_image(path)
    assert image.dtype == dtype and image.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(image, shown)
    np.testing.assert_array_equal(read_planes(path), samples[:, :, : 1 if channels < 3 else 3])
    if channels < 3:
        np.testing.assert_array_equal(read_labels(path), samples[:, :, 0])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_grey_of_few_bits_is_scaled_in_images_only(bits: int, tmp_path: Path) -> None:
    samples = RANDOM.integers(0, 2**bits, (4, 9, 1))
    path = tmp_path / "p.png"
    path.write_bytes(encode_png(samples, GREY, bits))
    assert read_image(path).dtype == np.uint8
    np.testing.assert_array_equal(read_image(path), samples.repeat(3, 2) * (255 // (2**bits - 1)))
    np.testing.assert_array_equal(read_labels(path), samples[:, :, 0])
    np.testing.assert_array_equal(read_values(path), samples[:, :, 0])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [b"", chunk(b"tRNS", b"\0\x80")])
@pytest.mark.filterwarnings("error")
def test_a_palette_gives_colours_in_images_and_indices_in_maps(bits: int, clear: bytes, tmp_path: Path) -> None:
    colours = RANDOM.integers(0, 256, (2**bits, 3), dtype=np.uint8)
    samples = RANDOM.integers(0, 2**bits, (4, 9, 1))
    path = tmp_path / "p.png"
    path.write_bytes(encode_png(samples, PALETTE, bits, before=chunk(b"PLTE", colours.tobytes()) + clear))
    expected = colours[samples[:, :, 0]]
    np.testing.assert_array_equal(read_image(path), expected)
    np.testing.assert_array_equal(read_colours(path), expected)
    np.testing.assert_array_equal(read_labels(path), samples[:, :, 0])
    assert read_palette(path) == tuple(map(tuple, colours.tolist()))


def test_a_palette_that_is_too_short_ends_in_black(tmp_path: Path) -> None:
    samples = np.array([[[0], [1], [5]]])
    (tmp_path / "p.png").write_bytes(encode_png(samples, PALETTE, 8, before=chunk(b"PLTE", bytes([9, 8, 7, 6, 5, 4]))))
    assert read_image(tmp_path / "p.png").tolist() == [[[9, 8, 7], [6, 5, 4], [0, 0, 0]]]


def test_values_of_a_palette_are_its_greys(tmp_path: Path) -> None:
    samples = RANDOM.integers(0, 4, (3, 5, 1))
    greys = np.array([255, 10, 0, 77], np.uint8)[:, None].repeat(3, 1)
    (tmp_path / "grey.png").write_bytes(encode_png(samples, PALETTE, 2, before=chunk(b"PLTE", greys.tobytes())))
    np.testing.assert_array_equal(read_values(tmp_path / "grey.png"), greys[samples[:, :, 0], 0])
    (tmp_path / "jet.png").write_bytes(encode_png(samples, PALETTE, 2, before=chunk(b"PLTE", bytes(range(12)))))
    with pytest.raises(DataError, match=r"jet\.png"):
        read_values(tmp_path / "jet.png")


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *(("jpg", mode) for mode in ("RGB", "L", "CMYK")),
        *(("webp", mode) for mode in ("RGB", "RGBA")),
        *((suffix, mode) for suffix in ("bmp", "png") for mode in ("RGB", "L", "1", "P")),
    ],
)
def test_eight_bits_are_what_pillow_shows(suffix: str, mode: str, tmp_path: Path) -> None:
    Image.fromarray(RANDOM.integers(0, 256, (16, 24, 3), dtype=np.uint8)).convert(mode).save(tmp_path / f"p.{suffix}")
    with Image.open(tmp_path / f"p.{suffix}") as reference:
        np.testing.assert_array_equal(read_image(tmp_path / f"p.{suffix}"), np.asarray(reference.convert("RGB")))


def test_the_format_is_detected_from_the_content(tmp_path: Path) -> None:
    values = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "really_png.jpg", "PNG")
    tifffile.imwrite(tmp_path / "really_tiff.png", values)
    for name in ("really_png.jpg", "really_tiff.png"):
        np.testing.assert_array_equal(read_image(tmp_path / name), values)


# --- orientation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_orientation_is_applied_as_pillow_does(turn: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"p.{suffix}"
    Image.fromarray(RANDOM.integers(0, 256, (16, 24, 3), dtype=np.uint8)).save(path, exif=b"Exif\0\0" + exif(turn))
    with Image.open(path) as reference:
        stored, shown = np.asarray(reference), np.asarray(ImageOps.exif_transpose(reference))
    assert orientation(path) == turn
    np.testing.assert_array_equal(read_image(path), shown)
    np.testing.assert_array_equal(read_image(path, turn=False), stored)
    np.testing.assert_array_equal(turned(stored, turn), shown)
    np.testing.assert_array_equal(read_planes(path), shown)
    assert image_size(path) == shown.shape[:2]


@pytest.mark.parametrize("turn", range(1, 9))
def test_maps_turn_with_their_images(turn: int, tmp_path: Path) -> None:
    labels, path = RANDOM.integers(0, 3, (4, 6), dtype=np.uint8), tmp_path / "p.png"
    Image.fromarray(labels).save(path, exif=b"Exif\0\0" + exif(turn))
    for read in (read_labels, read_values):
        np.testing.assert_array_equal(read(path), turned(labels, turn))
        np.testing.assert_array_equal(read(path, turn=False), labels)
    np.testing.assert_array_equal(read_points(path), turned(labels, turn) != 0)
    np.testing.assert_array_equal(read_colours(path), turned(labels[:, :, None].repeat(3, 2), turn))


def test_an_orientation_behind_the_pixels_is_found_without_decoding(tmp_path: Path) -> None:
    samples = RANDOM.integers(0, 256, (4, 6, 1))
    (tmp_path / "late.png").write_bytes(encode_png(samples, GREY, 8, after=chunk(b"eXIf", exif(6))))
    assert orientation(tmp_path / "late.png") == 6
    assert image_size(tmp_path / "late.png") == (6, 4)
    assert read_labels(tmp_path / "late.png").shape == (6, 4)


@pytest.mark.parametrize("turn", [0, 9, 1000])
def test_an_unknown_orientation_is_ignored(turn: int, tmp_path: Path) -> None:
    Image.new("L", (3, 2)).save(tmp_path / "p.jpg", exif=b"Exif\0\0" + exif(turn))
    assert orientation(tmp_path / "p.jpg") == 1


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, max_side=5)), st.integers(1, 8))
def test_the_inverse_orientation_restores_the_array(array: Array, turn: int) -> None:
    back = {6: 8, 8: 6}.get(turn, turn)  # the quarter turns undo one another, the others themselves
    np.testing.assert_array_equal(turned(turned(array, turn), back), array)


# --- to [0, 1] ------------------------------------------------------------------------------------------------------


def test_unit_of_every_depth() -> None:
    assert as_unit(np.array([[[0, 51, 255]]], np.uint8)).ravel().tolist() == pytest.approx([0, 0.2, 1])
    assert as_unit(np.array([[[0, 13107, 65535]]], np.uint16)).ravel().tolist() == pytest.approx([0, 0.2, 1])
    assert as_unit(np.array([[[0, 0.2, 1]]])).ravel().tolist() == pytest.approx([0, 0.2, 1])
    for image in (np.array([[[-2.0, -1.0, 3.0, 9.0]]]), np.array([[[0, 1, 5, 11]]], np.uint16)):
        expected = [0, 0, 0.8, 1] if image.dtype == float else [0, 0.1, 0.5, 1]
        unit = as_unit(image, (-1.0, 4.0) if image.dtype == float else (0, 10))
        assert unit.dtype == np.float32
        assert unit.ravel().tolist() == pytest.approx(expected)
    assert as_unit(np.full((1, 1, 3), 255, np.uint8), (0, 1000)).max() == 1


@pytest.mark.parametrize("value", [-0.1, 1.1, 300.0])
def test_floats_outside_the_unit_need_a_range(value: float) -> None:
    with pytest.raises(DataError, match=r"--set data\.image_range=\[low, high\]"):
        as_unit(np.full((2, 2, 3), value, np.float32))


def test_ranges_and_values_that_cannot_be_used() -> None:
    with pytest.raises(UsageError, match="low < high"):
        as_unit(np.zeros((2, 2, 3), np.float32), (1, 1))
    with pytest.raises(DataError, match="NaN"):
        as_unit(np.full((2, 2, 3), np.nan, np.float32), (0, 1))


# --- maps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_values_survive_every_format(kind: str, tmp_path: Path) -> None:
    values = (RANDOM.random((7, 9)) * 200).astype(kind)
    tifffile.imwrite(tmp_path / "m.tif", values)
    write_npy(tmp_path / "m.npy", values)
    np.savez_compressed(tmp_path / "m.npz", anything=values)
    files = ["m.tif", "m.npy", "m.npz"]
    if kind != "float32":
        write_png(tmp_path / "m.png", values)
        files.append("m.png")
    for name in files:
        np.testing.assert_array_equal(read_values(tmp_path / name), values.astype(np.float32))
        np.testing.assert_array_equal(read_planes(tmp_path / name), values[:, :, None])
        assert read_planes(tmp_path / name).dtype == values.dtype
        assert image_size(tmp_path / name) == (7, 9)
        assert (tmp_path / name).suffix in IMAGE_SUFFIXES


def test_points_and_grey_rgb_labels(tmp_path: Path) -> None:
    mask = RANDOM.random((6, 8)) > 0.7
    Image.fromarray(mask).save(tmp_path / "p.png")
    assert np.array_equal(read_points(tmp_path / "p.png"), mask)
    assert np.array_equal(read_labels(tmp_path / "p.png"), mask)
    labels = RANDOM.integers(0, 5, (6, 8), dtype=np.uint8)
    Image.fromarray(np.repeat(labels[..., None], 3, 2)).save(tmp_path / "g.png")
    assert np.array_equal(read_labels(tmp_path / "g.png"), labels)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "float64", "bool", ">i4"])
def test_labels_of_every_width(dtype: str, tmp_path: Path) -> None:
    labels = RANDOM.integers(0, 2 if dtype == "bool" else 70_000, (6, 8)).astype(dtype)
    np.save(tmp_path / "m.npy", labels)
    assert read_labels(tmp_path / "m.npy").dtype == np.int64
    np.testing.assert_array_equal(read_labels(tmp_path / "m.npy"), labels)


@pytest.mark.parametrize("greys", [(0, 255), (0, 128, 255), (0, 255, 128), (7,), (0, 1, 2)])
@pytest.mark.parametrize("mode", ["L", "P"])
def test_a_gif_of_greys_holds_its_greys(greys: tuple[int, ...], mode: str, tmp_path: Path) -> None:
    """Pillow writes the greys that occur as a palette of that file alone."""
    values = np.array(greys, np.uint8)[np.arange(48).reshape(6, 8) % len(greys)]
    Image.fromarray(values).convert(mode).save(tmp_path / "a.gif")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.gif"), values)


def test_a_gif_of_colours_holds_indices_and_an_animation_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray((np.arange(48).reshape(6, 8) % 2).astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 200, 10, 0])
    image.save(tmp_path / "a.gif", optimize=False)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.gif"), np.asarray(image))
    frames = [Image.fromarray(np.full((6, 8), grey, np.uint8)) for grey in (0, 9)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"b\.gif' is an animation"):
        read_labels(tmp_path / "b.gif")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_a_map_in_the_alpha_channel_alone_is_refused(mode: str, suffix: str, tmp_path: Path) -> None:
    alpha = np.zeros((6, 8), np.uint8)
    alpha[1:4, 2:5] = 255
    for name, grey in (("hidden", np.full((6, 8), 255, np.uint8)), ("shown", alpha // 255)):
        parts = [Image.fromarray(grey)] * (len(mode) - 1) + [Image.fromarray(alpha)]
        exact = {"lossless": True, "exact": True} if suffix == "webp" else {}
        Image.merge(mode, parts).save(tmp_path / f"{name}.{suffix}", **exact)
    for read in (read_labels, read_planes, read_values):
        with pytest.raises(DataError, match=r"hidden.*alpha channel holds 2 values.*save that channel alone"):
            read(tmp_path / f"hidden.{suffix}")
    np.testing.assert_array_equal(read_labels(tmp_path / f"shown.{suffix}"), alpha // 255)
    assert read_image(tmp_path / f"hidden.{suffix}").shape == (6, 8, 3)


def test_nan_among_labels_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[0, 1], [np.nan, 2]], np.float32))
    assert read_labels(tmp_path / "a.npy").tolist() == [[0, 1], [UNKNOWN, 2]]


@pytest.mark.parametrize("values", [np.full((2, 2), 0.5), np.full((2, 2), np.inf), np.full((2, 2), 1e30, np.float32)])
def test_numbers_that_are_no_labels(values: Array, tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", values)
    with pytest.raises(DataError, match=r"m\.npy.*whole numbers"):
        read_labels(tmp_path / "m.npy")


def test_colours_are_no_labels(tmp_path: Path) -> None:
    colours = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "c.png")
    np.testing.assert_array_equal(read_colours(tmp_path / "c.png"), colours)
    assert read_palette(tmp_path / "c.png") is None
    with pytest.raises(DataError, match=r"--set data\.color_map=FILE"):
        read_labels(tmp_path / "c.png")
    (tmp_path / "deep.png").write_bytes(encode_png(colours.astype(np.uint16) * 257, RGB, 16))
    with pytest.raises(DataError, match="8-bit RGB"):
        read_colours(tmp_path / "deep.png")


def test_unwritable_folders_are_resource_errors(tmp_path: Path) -> None:
    for write in (write_png, write_npy):
        with pytest.raises(ResourceError, match="choose another folder"):
            write(tmp_path / "absent" / "m", np.zeros((2, 2), np.uint8))
