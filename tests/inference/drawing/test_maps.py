"""Drawings of maps: colours, opacity, and what the legends say."""

import math

import numpy as np
import pytest
from matplotlib import colormaps

from densemble.inference.drawing import NO_DATA, Meaning, blend, draw_overlay, draw_uncertainty, draw_view, palette

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.integers(0, 256, (16, 24, 3), dtype=np.uint8)
NAMES = ("background", "cat", "dog", "bird")
LABELS = RANDOM.integers(0, 3, (16, 24))
CLASSES = Meaning("labels", "categorical", "segmentation", NAMES)
DEPTH = Meaning("values", "none", "depth", (), "m")
VALID = RANDOM.random((16, 24)) > 0.3


def test_the_background_shows_the_image_and_absent_classes_have_no_entry() -> None:
    drawn = draw_overlay(IMAGE, np.zeros((4, 1, 1)), CLASSES, LABELS)
    np.testing.assert_array_equal(drawn.pixels[LABELS == 0], IMAGE[LABELS == 0])
    expected = np.round(0.4 * IMAGE + 0.6 * palette(2)[0])[LABELS == 1]
    np.testing.assert_allclose(drawn.pixels[LABELS == 1], expected, atol=1)
    assert drawn.legend.entries == (("cat", tuple(palette(2)[0])), ("dog", tuple(palette(2)[1])))
    view = draw_view(np.zeros((4, 1, 1)), CLASSES, LABELS, VALID)
    assert [name for name, _ in view.legend.entries] == ["background", "cat", "dog", "no data"]
    np.testing.assert_array_equal(view.pixels[~VALID], np.broadcast_to(NO_DATA, (int((~VALID).sum()), 3)))
    np.testing.assert_array_equal(view.pixels[VALID & (LABELS == 2)].max(0), palette(2)[1])


def test_of_many_classes_the_largest_24_are_named() -> None:
    names = tuple(f"c{number}" for number in range(100))
    labels = np.repeat(np.arange(40), 10 + np.arange(40))[None]
    legend = draw_view(np.zeros((100, 1, 1)), Meaning("labels", "categorical", "s", names), labels).legend
    assert [name for name, _ in legend.entries] == [f"c{number}" for number in range(16, 40)]
    assert legend.note == "and 16 smaller classes"


def test_values_span_their_percentiles_in_viridis() -> None:
    depth = RANDOM.random((1, 16, 24)) * 5
    low, high = np.percentile(depth, [1, 99])
    drawn = draw_view(depth, DEPTH)
    expected = colormaps["viridis"](np.clip((depth[0] - low) / (high - low), 0, 1))[..., :3] * 255
    np.testing.assert_allclose(drawn.pixels, expected, atol=3)
    assert drawn.legend.bar is not None and drawn.legend.bar.label == "depth (m), 1st to 99th percentile"
    assert (drawn.legend.bar.low, drawn.legend.bar.high) == pytest.approx((low, high))
    given = draw_view(depth, DEPTH, limits=(0, 10)).legend.bar
    assert given is not None and (given.label, given.low, given.high) == ("depth (m)", 0, 10)


def test_masks_name_the_classes_that_cover_a_pixel() -> None:
    masks = np.zeros((4, 16, 24))
    masks[0] = 1
    masks[1, :4], masks[2, 4:8] = 0.9, 0.4
    drawn = draw_overlay(IMAGE, masks, Meaning("masks", "bernoulli", "multilabel", NAMES))
    assert [name for name, _ in drawn.legend.entries] == ["cat"]
    np.testing.assert_array_equal(drawn.pixels[8:], IMAGE[8:])
    np.testing.assert_allclose(drawn.pixels[0], np.round(IMAGE[0] * 0.46 + palette(1)[0] * 0.54), atol=1)


@pytest.mark.parametrize(
    ("kind", "channels", "label"),
    [("heat", 1, "task"), ("heat", 3, "task, largest of 3 classes"), ("density", 1, "task (objects per pixel)")],
)
def test_the_bar_of_heat_ends_at_its_maximum(kind: str, channels: int, label: str) -> None:
    heat = RANDOM.random((channels, 16, 24))
    heat[:, 0, 0] = 0
    drawn = draw_overlay(IMAGE, heat, Meaning(kind, "bernoulli", "task"))
    bar = drawn.legend.bar
    assert bar is not None and (bar.label, bar.low, bar.high) == (label, 0, heat.max())
    np.testing.assert_array_equal(drawn.pixels[0, 0], IMAGE[0, 0])


def test_pixels_need_no_legend() -> None:
    drawn = draw_overlay(IMAGE, np.moveaxis(IMAGE / 255, -1, 0), Meaning("pixels", "none", "image"))
    np.testing.assert_array_equal(drawn.with_legend(), IMAGE)


@pytest.mark.parametrize(("distribution", "highest"), [("categorical", math.log(4)), ("bernoulli", math.log(2))])
def test_the_bar_of_entropy_ends_at_the_largest_entropy(distribution: str, highest: float) -> None:
    meaning = Meaning("labels", distribution, "s", NAMES, uncertainty="entropy")
    drawn = draw_uncertainty(RANDOM.random((16, 24)), meaning, 1)
    bar = drawn.legend.bar
    assert bar is not None and bar.label == "uncertainty: entropy (nats)" and bar.high == pytest.approx(highest)


def test_the_bar_of_a_standard_deviation_has_the_unit() -> None:
    spread = RANDOM.random((16, 24))
    drawn = draw_uncertainty(spread, DEPTH, 3, VALID)
    bar = drawn.legend.bar
    assert bar is not None and bar.high == pytest.approx(np.percentile(spread[VALID], 99))
    assert bar.label == "uncertainty: standard deviation (m), up to the 99th percentile"
    assert (drawn.pixels[~VALID] == NO_DATA).all() and drawn.legend.entries == (("no data", NO_DATA),)
    dense = draw_uncertainty(spread, Meaning("density", "none", "heatmap", ("cells",))).legend.bar
    assert dense is not None and "over the members (objects per pixel)" in dense.label
    heat = draw_uncertainty(spread, Meaning("heat", "bernoulli", "saliency")).legend.bar
    assert heat is not None and heat.high == pytest.approx(np.percentile(spread, 99))
    assert heat.label == "uncertainty: standard deviation over the members, up to the 99th percentile"
    rare = np.zeros((16, 24))
    rare[3, 4] = 2
    sparse = draw_uncertainty(rare, DEPTH)
    assert sparse.legend.bar is not None and sparse.legend.bar.high == 2
    assert sparse.pixels[3, 4].sum() > 500 > sparse.pixels[0, 0].sum()


@pytest.mark.parametrize(
    ("value", "members", "note"),
    [
        (0, 1, "is 0 at every pixel; one member has no spread between members"),
        (4.5, 1, "is 4.5 at every pixel; one member has no spread between members, so the number is that of the calib"),
        (0, 3, "is 0 at every pixel"),
    ],
)
def test_a_flat_uncertainty_says_why(value: float, members: int, note: str) -> None:
    spread = np.full((16, 24), value, np.float32)
    drawn = draw_uncertainty(spread, DEPTH, members, VALID)
    assert (drawn.pixels == NO_DATA).all() and drawn.legend.bar is None
    assert f"no map of uncertainty: the standard deviation (m) {note}" in drawn.legend.note
    assert drawn.legend.note.endswith("pixel") == (members == 3)
    assert len(drawn.with_legend()) > 16


def test_blend() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    assert (blend(image, np.full_like(image, 200), 0.25) == 125).all()
    assert (blend(image, np.full_like(image, 200), np.array([[0, 1], [0, 1]]))[:, 1] == 200).all()
