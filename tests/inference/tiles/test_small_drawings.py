"""Drawings of large images: every n-th pixel of the drawing of the whole image, with bounded memory."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from densemble.inference.drawing import draw_overlay, draw_uncertainty, draw_view
from densemble.inference.meaning import meaning_of
from densemble.inference.tiles import small_drawings
from densemble.inference.tiles.planes import Rows
from densemble.inference.tiles.small_drawings import SIDE, SmallDrawings
from densemble.tasks import DepthTask, MultilabelTask, SaliencyTask, SegmentationTask, Task

RANDOM = np.random.default_rng(0)
HEIGHT, WIDTH, STEP = 50, 37, 3
PIXELS = RANDOM.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
VALID = RANDOM.random((HEIGHT, WIDTH)) > 0.2
IMAGE: Any = SimpleNamespace(
    size=(HEIGHT, WIDTH), read=lambda top, left, height, width: PIXELS[top : top + height, left : left + width]
)


@pytest.mark.parametrize(
    "task",
    [SegmentationTask(("background", "a", "b")), DepthTask(unit="m"), MultilabelTask(("a", "b")), SaliencyTask()],
)
def test_rows_of_any_height_give_every_nth_pixel(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_drawings, "SIDE", -(-HEIGHT // STEP))
    maps = torch.from_numpy(RANDOM.random((task.out_channels, HEIGHT, WIDTH), dtype=np.float32))
    spread = torch.from_numpy(RANDOM.random((HEIGHT, WIDTH), dtype=np.float32))
    labels = maps.argmax(0) if task.distribution == "categorical" else None
    planes = {"mean": maps} if labels is None else {"label": labels}
    deviation = task.target_kind in ("values", "heat")
    planes |= {"variance": spread[None]} if deviation else {"entropy": spread}
    drawings = SmallDrawings(IMAGE, task, ("overlay", "map", "uncertainty"), 2)
    for top in range(0, HEIGHT, 7):
        rows = Rows(top, {name: plane[..., top : top + 7, :] for name, plane in planes.items()})
        drawings.add(rows, VALID[top : top + 7])
    every = (slice(None, None, STEP),) * 2
    label = None if labels is None else labels.numpy()[every]
    small, valid, meaning = maps.numpy()[(..., *every)], VALID[every], meaning_of(task)
    sigma = spread.sqrt() if deviation else spread
    expected = {
        "overlay": draw_overlay(PIXELS[every], small, meaning, label, valid),
        "map": draw_view(small, meaning, label, valid),
        "uncertainty": draw_uncertainty(sigma.numpy()[every], meaning, 2, valid),
    }
    for kind, drawing in expected.items():
        np.testing.assert_array_equal(drawings.drawn(kind).with_legend(), drawing.with_legend())


def test_many_channels_are_subsampled_more() -> None:
    large: Any = SimpleNamespace(size=(8 * SIDE, 10))
    few, many = (SmallDrawings(large, MultilabelTask(("a",) * count), ("map",), 2) for count in (4, 64))
    assert (few.step, many.step) == (8, 32)
    assert SmallDrawings(large, SegmentationTask(tuple(map(str, range(64)))), ("map",), 2).step == 8
