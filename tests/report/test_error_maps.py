"""Error maps: colours of correct, wrong and unknown pixels, and the scale of differences."""

from typing import Any

import numpy as np
import torch

from densemble.inference.drawing import NO_DATA
from densemble.inference.meaning import meaning_of
from densemble.report.error_maps import difference_colours, draw_error
from densemble.tasks import make_task

IMAGE = np.full((4, 6, 3), 200, np.uint8)


def drawn(values: dict[str, Any], maps: torch.Tensor, target: torch.Tensor) -> Any:
    task = make_task(values)
    return draw_error(IMAGE, maps, *task.as_maps(target), meaning_of(task))


def test_wrong_classes_are_orange_and_their_share_is_that_of_the_known_pixels() -> None:
    target = torch.zeros(4, 6, dtype=torch.long)
    target[:, :2] = 255
    predicted = torch.zeros(4, 6, dtype=torch.long)
    predicted[0, 2:] = predicted[1, 1] = 1  # 4 of 16 known pixels, and an unknown one
    maps = torch.nn.functional.one_hot(predicted, 2).permute(2, 0, 1).float()
    error = drawn({"name": "segmentation", "classes": ["a", "b"]}, maps, target)
    assert [text for text, _ in error.legend.entries] == ["25.0% of pixels wrong", "no target"]
    assert (error.pixels[:, :2] == NO_DATA).all()
    assert (error.pixels[1:, 2:] == 80).all()  # the image at 40 % of its brightness
    red, green, blue = error.pixels[0, 3]
    assert red > 180 and green < 110 and blue < 30


def test_differences_are_blue_below_zero_and_orange_above() -> None:
    target = torch.full((4, 6), 3.0)
    maps = target.clone()[None]
    maps[0, :, 0], maps[0, :, 5] = 1.0, 5.0
    target[0] = 0.0  # invalid for depth
    error = drawn({"name": "depth", "unit": "m"}, maps, target)
    assert error.legend.bar is not None and error.legend.bar.label == "error (m)"
    assert (error.legend.bar.low, error.legend.bar.high) == (-2.0, 2.0)
    assert (error.pixels[0] == NO_DATA).all() and (error.pixels[1:, 1:5].max() < 30)
    assert error.pixels[2, 0].tolist() == [165, 222, 255] and error.pixels[2, 5].tolist() == [255, 208, 130]


def test_one_pixel_far_off_does_not_hide_the_other_errors() -> None:
    assert (difference_colours(np.array([-9.0, 9.0]), 1.0) == difference_colours(np.array([-1.0, 1.0]), 1.0)).all()
    target = torch.ones(40, 60)
    maps = 1 + 0.1 * torch.rand(1, 40, 60, generator=torch.Generator().manual_seed(0))
    maps[0, 0, 0] = 1e6
    task = make_task({"name": "depth"})
    error = draw_error(np.zeros((40, 60, 3), np.uint8), maps, *task.as_maps(target), meaning_of(task))
    assert error.legend.bar is not None and 0.09 < error.legend.bar.high < 0.11


def test_saliency_that_differs_only_in_scale_has_no_error() -> None:
    target = torch.rand(4, 6)
    error = drawn({"name": "saliency"}, target[None] / 3, target)
    assert error.legend.note == "no error at any pixel" or error.legend.bar.high < 1e-6
