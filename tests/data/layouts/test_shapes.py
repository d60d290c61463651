"""Drawn label maps against numpy slices, the COCO tools and an encoder written from the format description."""

import pickle
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

from densemble.data.layouts.brush import decode_brush
from densemble.data.layouts.drawn_shapes import (
    Brush,
    CompressedRuns,
    MaskFile,
    Polygons,
    Runs,
    Shape,
    ShapeDrawing,
    outline,
)
from densemble.errors import DataError

coco_masks = pytest.importorskip("pycocotools.mask")

SIZE = (12, 16)


def draw(*shapes: Shape) -> np.ndarray:
    return ShapeDrawing(Path("all.json"), "a.jpg", SIZE, shapes).labels(SIZE)


def square(left: int, top: int, right: int, bottom: int) -> bytes:
    return outline([left, top, right, top, right, bottom, left, bottom])


def encode_brush(values: list[int], sizes: tuple[int, int, int, int] = (3, 4, 8, 16)) -> bytes:
    """Label Studio's format as text of 0 and 1: runs of equal values, and lists where values differ."""
    text = f"{len(values):032b}{8 - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for value, run in groupby(values):
        length = len(list(run))
        while length:
            now = min(length, 2 ** sizes[3])
            choice = next(number for number, size in enumerate(sizes) if now <= 2**size)
            text += ("1" if now > 1 else "0") + f"{choice:02b}{now - 1:0{sizes[choice]}b}{value:08b}"
            length -= now
    text += "0" * (-len(text) % 8)
    return bytes(int(text[start : start + 8], 2) for start in range(0, len(text), 8))


def test_a_square_is_a_slice_and_the_last_shape_is_on_top() -> None:
    expected = np.zeros(SIZE, np.int64)
    expected[2:7, 3:9] = 1
    expected[5:10, 6:14] = 2
    drawn = draw(Polygons(1, (square(3, 2, 9, 7),)), Polygons(2, (square(6, 5, 14, 10),)))
    np.testing.assert_array_equal(drawn, expected)
    assert drawn.dtype == np.int64


def test_outlines_of_one_shape_are_united() -> None:
    expected = np.zeros(SIZE, np.int64)
    expected[1:3, 1:4] = expected[8:11, 10:15] = 5
    np.testing.assert_array_equal(draw(Polygons(5, (square(1, 1, 4, 3), square(10, 8, 15, 11)))), expected)


def test_runs_by_rows_in_a_box() -> None:
    expected = np.zeros(SIZE, np.int64)
    expected[4, 3:5] = expected[5, 2] = 1  # box at 2, 4 of 3x2: off 1, on 3, off 2
    np.testing.assert_array_equal(draw(Runs(1, (1, 3, 2), by_columns=False, box=(2, 4, 2, 3))), expected)


def test_runs_agree_with_the_coco_tools() -> None:
    mask = np.random.default_rng(0).random((40, 60)) < np.linspace(0.01, 0.99, 60)
    text = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
    np.testing.assert_array_equal(CompressedRuns(1, text).mask((40, 60)), mask)
    flat = mask.ravel(order="F")
    counts = [len(list(run)) for _, run in groupby(flat)]
    counts = [0, *counts] if flat[0] else counts
    np.testing.assert_array_equal(Runs(1, tuple(counts), by_columns=True).mask((40, 60)), mask)


@pytest.mark.parametrize("text", ["", "P", "zzz", "ooooo", "\x00", "12", "é"])
def test_damaged_compressed_runs(text: str) -> None:
    with pytest.raises(DataError, match=r"all\.json.*a\.jpg.*runs"):
        draw(CompressedRuns(1, text))


def test_brush_example_by_hand() -> None:
    head = [f"{5:032b}", "00111", "0000", "0001", "0010", "0011"]  # 5 values of 8 bits; lengths of 1, 2, 3 and 4 bits
    listed = ["0", "00", "1", f"{7:08b}", f"{9:08b}"]  # two values, their number written in 1 bit
    repeated = ["1", "01", "10", f"{255:08b}"]  # one value three times, the number written in 2 bits
    bits = "".join(head + listed + repeated)
    bits += "0" * (-len(bits) % 8)
    code = bytes(int(bits[start : start + 8], 2) for start in range(0, len(bits), 8))
    assert decode_brush(code, 5).tolist() == [7, 9, 255, 255, 255]


@pytest.mark.parametrize("sizes", [(3, 4, 8, 16), (1, 2, 3, 4)])
def test_brush_against_an_encoder(sizes: tuple[int, int, int, int]) -> None:
    random = np.random.default_rng(1)
    alpha = np.where(random.random(SIZE) < 0.3, 255, 0)
    alpha[:6] = 0
    rgba = np.stack([random.integers(0, 256, SIZE)] * 3 + [alpha], axis=-1)
    code = encode_brush(rgba.ravel().tolist(), sizes)
    np.testing.assert_array_equal(decode_brush(code, rgba.size), rgba.ravel())
    np.testing.assert_array_equal(draw(Brush(3, code)), np.where(alpha > 0, 3, 0))


@pytest.mark.parametrize("harm", [lambda code: code[:-3], lambda code: b"", lambda code: b"\xff" * len(code)])
def test_damaged_brush(harm: Callable[[bytes], bytes]) -> None:
    with pytest.raises(DataError, match="brush stroke"):
        draw(Brush(1, harm(encode_brush([0, 0, 0, 255] * (SIZE[0] * SIZE[1])))))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Polygons(1, ()), "no outline"),
        (Polygons(1, (outline([1, 1, 5, 5]),)), "not a polygon"),
        (Polygons(1, (outline([1, 1, 5, 5, 1, 5, 2]),)), "not a polygon"),
        (Polygons(1, (outline([1, 1, 1e30, 5, 1, 5]),)), "far outside"),
        (Polygons(1, (outline([1, 1, float("nan"), 5, 1, 5]),)), "not finite"),
        (Runs(1, (3, 4), by_columns=True), "7 pixels, expected 192"),
        (Runs(1, (200, -8), by_columns=True), "runs hold"),
        (Runs(1, (0, 4), by_columns=False, box=(15, 0, 2, 2)), "leaves the image"),
        (Runs(1, (0, 4), by_columns=False, box=(-1, 0, 2, 2)), "leaves the image"),
    ],
)
def test_shapes_that_cannot_be_drawn(shape: Shape, message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw(shape)


def test_an_image_of_another_size() -> None:
    with pytest.raises(DataError, match=r"all\.json.*12x16.*16x12"):
        ShapeDrawing(Path("all.json"), "a.jpg", SIZE, ()).labels((16, 12))


def test_mask_files(tmp_path: Path, label_map: Callable[..., Path]) -> None:
    file = label_map(tmp_path / "m.png", 255)
    assert (draw(MaskFile(4, file)) == 4).all()
    drawing = ShapeDrawing(Path("all.json"), "a.jpg", None, (MaskFile(4, file),))
    with pytest.raises(DataError, match=r"m\.png.*12x16.*5x5"):
        drawing.labels((5, 5))


def test_drawings_are_hashable_and_can_be_pickled() -> None:
    drawing = ShapeDrawing(Path("a"), "a.jpg", SIZE, (Polygons(1, (square(0, 0, 2, 2),)), Brush(2, b"1")))
    assert hash(pickle.loads(pickle.dumps(drawing))) == hash(drawing)
