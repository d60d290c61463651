"""Bootstrap and random halves against plain loops, on simulated data, and with recorded calls."""

import numpy as np
import pytest
import torch
from small_heldout import TASKS, arrays, small_set

from densemble.evaluation.bootstrap import bootstrap, bootstrap_gain, bootstrap_mean, resample
from densemble.selection.candidate_scores import statistics
from densemble.selection.held_out_predictions import HeldOut

MAE = TASKS["mae"].objective("mae")
MIOU = TASKS["miou"].objective("miou")


def metric_of(held: HeldOut, weights: list[float], images: list[int]) -> float:
    """mIoU of images, some of them repeated, by the metric of the task."""
    metric = held.task.metrics()
    for image in images:
        maps = sum(w * torch.from_numpy(m[image]).float() for w, m in zip(weights, arrays(held), strict=True))
        metric.update(maps, *held.targets[image])
    return metric.compute()["miou"]


def test_bootstrap_equals_a_loop_over_the_same_samples() -> None:
    held = small_set(TASKS["miou"], (1.0, 2.0))
    new, old = statistics(held, torch.eye(2), MIOU)
    samples = [np.repeat(np.arange(6), row).tolist() for row in resample(6, 40, seed=3).int().numpy()]
    assert all(len(sample) == 6 for sample in samples)
    scores = [metric_of(held, [1, 0], sample) for sample in samples]
    gains = [score - metric_of(held, [0, 1], sample) for score, sample in zip(scores, samples, strict=True)]
    whole = metric_of(held, [1, 0], list(range(6)))
    assert bootstrap(new, MIOU, 40, seed=3) == pytest.approx((whole, *np.quantile(scores, [0.025, 0.975])))
    gain = whole - metric_of(held, [0, 1], list(range(6)))
    assert bootstrap_gain(new, old, MIOU, 40, seed=3) == pytest.approx((gain, *np.quantile(gains, [0.025, 0.975])))


def test_interval_of_a_mean_equals_that_of_the_sample_means() -> None:
    values = np.random.default_rng(1).random(12)
    samples = [np.repeat(values, row).mean() for row in resample(12).int().numpy()]
    expected = (values.mean(), *np.quantile(samples, [0.025, 0.975]))
    assert bootstrap_mean(torch.from_numpy(values)) == pytest.approx(expected)


def test_samples_are_as_large_as_the_set_and_repeat_with_the_seed() -> None:
    counts = resample(50, 300, seed=1)
    assert (counts.sum(1) == 50).all()
    assert torch.equal(counts, resample(50, 300, seed=1))
    assert not torch.equal(counts, resample(50, 300, seed=2))
    assert float((counts == 0).double().mean()) == pytest.approx((1 - 1 / 50) ** 50, abs=0.01)


def test_interval_contains_the_true_value_in_95_percent() -> None:
    random = np.random.default_rng(0)
    inside = inside_gain = 0
    for repeat in range(150):
        old = random.exponential(2.0, 60)
        new = old - random.normal(0.3, 1.0, 60)  # 0.3 less error, which is a gain
        rows, other = (torch.from_numpy(np.stack([values, np.ones(60)], 1)) for values in (old, new))
        _, low, high = bootstrap(rows, MAE, 400, seed=repeat)
        inside += low <= 2.0 <= high
        _, low, high = bootstrap_gain(other, rows, MAE, 400, seed=repeat)
        inside_gain += low <= 0.3 <= high
    assert 0.90 <= inside / 150 <= 0.98
    assert 0.90 <= inside_gain / 150 <= 0.98


def test_an_ensemble_has_no_gain_over_itself() -> None:
    rows = statistics(small_set(TASKS["miou"], (1.0,)), [[1.0]], MIOU)[0]
    assert bootstrap_gain(rows, rows, MIOU) == (0, 0, 0)


def test_paired_intervals_are_narrower() -> None:
    easy_and_hard = torch.linspace(0, 10, 40, dtype=torch.float64)
    new, old = (torch.stack([easy_and_hard + shift, torch.ones(40)], 1) for shift in (0.0, 0.2))
    assert bootstrap_gain(new, old, MAE) == pytest.approx((0.2, 0.2, 0.2))
    score = bootstrap(new, MAE)
    assert score.high - score.low > 1


def test_undefined_samples_are_ignored() -> None:
    rows = torch.tensor([[2.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    assert bootstrap(rows, MAE) == (2, 2, 2)
    assert all(np.isnan(bootstrap(torch.zeros(3, 2, dtype=torch.float64), MAE)))
