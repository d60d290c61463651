"""Scores of combined members from one pass, against the task's metrics, image by image."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_heldout import TASKS, arrays, small_set
from torch import Tensor

from densemble.ensemble.resize import resize_maps
from densemble.metrics import ScoredImage
from densemble.selection import candidate_scores as scores
from densemble.selection.candidate_scores import measure, statistics, totals, totals_of
from densemble.tasks import HeatmapTask

WEIGHTS = [[1.0, 0.0, 0.0], [1.0, 2.0, 1.0], [0.0, 3.0, 1.0]]


@pytest.mark.parametrize("metric", TASKS)
def test_statistics_equal_the_metric_of_each_image(metric: str) -> None:
    held, objective = small_set(TASKS[metric], (1.0, 1.2, 1.4)), TASKS[metric].objective(metric)
    rows = statistics(held.only((4, 2)), WEIGHTS, objective)
    assert rows.shape[:2] == (3, 2)
    for weights, own in zip(WEIGHTS, objective.value(rows).tolist(), strict=True):
        for image, result in zip((4, 2), own, strict=True):
            single = held.task.metrics()
            combined = np.average([maps[image].astype(np.float32) for maps in arrays(held)], axis=0, weights=weights)
            single.update(torch.from_numpy(combined).float(), *held.targets[image])
            assert result == pytest.approx(single.compute()[metric], abs=1e-6)


@pytest.mark.parametrize("metric", TASKS)
def test_totals_equal_the_sum_of_statistics(metric: str) -> None:
    held, objective = small_set(TASKS[metric], (1.0, 1.2, 1.4)), TASKS[metric].objective(metric)
    shares = torch.tensor(WEIGHTS) / torch.tensor(WEIGHTS).sum(1, keepdim=True)
    rows = statistics(held, WEIGHTS, objective)
    torch.testing.assert_close(totals(held, WEIGHTS, objective), rows.sum(1))
    means = totals_of(held, lambda maps: torch.tensordot(shares, maps, 1), objective)
    torch.testing.assert_close(means, rows.sum(1))
    median = totals_of(held, lambda maps: maps.median(0, keepdim=True).values, objective)
    each = [measure(maps.median(0, keepdim=True).values, target, held.task, objective) for maps, target in held]
    assert median.shape == (1, rows.shape[2])
    torch.testing.assert_close(median, torch.stack(each).sum(0))


def test_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    held, objective = small_set(TASKS["nll"], (1.0, 1.2, 1.4)), TASKS["nll"].objective("nll")
    whole = statistics(held, WEIGHTS, objective)
    monkeypatch.setattr(scores, "_VALUES_AT_ONCE", 1)
    torch.testing.assert_close(statistics(held, WEIGHTS, objective), whole)


def test_equal_ensembles_have_bit_equal_scores() -> None:
    """Equal rows of one matrix product may differ in the last bits, which would count as a gain."""
    held, own, measured = small_set(TASKS["cc"], (1.0, 1.2, 1.4)), TASKS["cc"].objective("cc"), set()

    def counting(image: ScoredImage) -> Tensor:
        measured.add(len(image.maps))
        return own.statistics(image)

    equal, other = [[1.0, 1.0, 1.0], [1 / 3, 1 / 3, 1 / 3], [7.0, 7.0, 7.0]], [0.2, 0.3, 0.5]
    rows = statistics(held, [equal[0], other, *equal[1:]], replace(own, statistics=counting))
    assert measured == {2}
    assert rows[0].equal(rows[2]) and rows[0].equal(rows[3]) and not rows[0].equal(rows[1])


def test_resizing_to_the_target_keeps_the_count() -> None:
    task = HeatmapTask(("cell",), mode="density")
    objective, maps = task.objective("count_mae"), torch.rand(4, 1, 6, 8)
    target = torch.rand(1, 12, 16)
    result = objective.value(measure(maps, (target, None), task, objective))
    torch.testing.assert_close(result, (maps.double().sum((1, 2, 3)) - target.double().sum()).abs(), rtol=1e-5, atol=0)


def test_resizing_and_averaging_commute() -> None:
    held, objective = small_set(TASKS["mae"], (1.0, 1.2, 1.4)), TASKS["mae"].objective("mae")
    large = replace(held, targets=[(torch.rand(13, 17), None) for _ in held.targets])
    result = objective.value(totals(large, WEIGHTS, objective)).tolist()
    for value, weights in zip(result, WEIGHTS, strict=True):
        error = 0.0
        for image, (target, _) in enumerate(large.targets):
            resized = resize_maps(torch.stack([torch.from_numpy(m[image]).float() for m in arrays(held)]), (13, 17))
            combined = sum(w * one for w, one in zip(weights, resized[:, 0], strict=True)) / sum(weights)
            error += float((combined - target).abs().mean())
        assert value == pytest.approx(error / len(large), rel=1e-5)


@pytest.mark.parametrize("weights", [[[1.0, 1.0]], [[0.0, 0.0, 0.0]], [[2.0, -1.0, 0.0]], [1.0, 1.0, 1.0]])
def test_invalid_weights_raise(weights: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="weights"):
        statistics(small_set(TASKS["mae"], (1.0, 1.2, 1.4)), weights, TASKS["mae"].objective())
