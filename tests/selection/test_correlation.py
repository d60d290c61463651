"""Correlation of the members' errors: constructed cases and plain numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_heldout import TASKS, arrays, small_set

from densemble.selection.error_correlation import error_correlation
from densemble.selection.held_out_predictions import held_out
from densemble.selection.map_sources import KeptMaps
from densemble.tasks import MultilabelTask


@pytest.mark.parametrize("metric", ["miou", "mae", "cc"])
def test_error_correlation_equals_numpy(metric: str) -> None:
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4))
    errors = []
    for maps in arrays(held):
        own = []
        for predicted, (target, _) in zip(maps.astype(np.float64), held.targets, strict=True):
            expected = target.numpy()
            if metric == "miou":
                own.append((predicted.argmax(0) != expected)[expected != 255])
            else:
                own.append(np.abs(predicted[0] - expected).ravel())
        errors.append(np.concatenate(own).astype(float))
    np.testing.assert_allclose(error_correlation(held), np.corrcoef(errors), atol=1e-6)


def test_errors_of_masks_count_at_known_pixels() -> None:
    target = torch.tensor([[[0, 1, 1, 0, 255]]])
    maps = [np.array([[[[0.9, 0.9, 0.1, 0.1, noise]]]], np.float16) for noise in (0.0, 1.0)]
    maps.append(np.array([[[[0.9, 0.9, 0.9, 0.1, 0.0]]]], np.float16))
    result = error_correlation(held_out(["a", "b", "c"], maps, [(target, None)], MultilabelTask(("road",))))
    expected = np.corrcoef([[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_constant_errors_have_no_correlation() -> None:
    held = small_set(TASKS["mae"], (0.0, 1.0, 1.0))
    constant = np.stack([(t + 0.25).numpy()[None] for t, _ in held.targets])
    shifted = replace(held, maps=(KeptMaps(constant, held.task), *held.maps[1:]))
    result = error_correlation(shifted)
    assert result[0].isnan().all()
    assert result[1:, 1:].isfinite().all()
