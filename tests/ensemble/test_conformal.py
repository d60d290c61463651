"""Guarantees: thresholds against sorted scores, and coverage over many draws of exchangeable images."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from densemble.ensemble.guarantee import (
    GUARANTEES,
    ConformalInterval,
    ConformalSet,
    Guarantee,
    Images,
    RiskControl,
    binomial_interval,
    coverage,
    fit_interval,
    fit_risk_control,
    fit_set,
    make_guarantee,
)
from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance, p_value
from densemble.errors import DataError, UsageError
from densemble.tasks import MultilabelTask, RegressionTask, SaliencyTask, SegmentationTask

LABELS = SegmentationTask(("a", "b", "c", "d"))
MASKS = MultilabelTask(("a", "b"))
VALUES = RegressionTask(invalid_below=None)
VOID = 255
BIN = 2**-10
Samples = list[tuple[Tensor, Tensor]]


def given(samples: Samples, numbers: Iterable[int] | None = None) -> Images:
    chosen = range(len(samples)) if numbers is None else list(numbers)
    return lambda: (samples[number] for number in chosen)


def halves(number: int, seed: int) -> tuple[list[int], list[int]]:
    order = np.random.default_rng(seed).permutation(number).tolist()
    return order[: number // 2], order[number // 2 :]


def segmented(number: int, size: tuple[int, int] = (6, 9)) -> Samples:
    """Each image has its own difficulty; labels are drawn from a flatter distribution than the predicted one."""
    samples = []
    for _ in range(number):
        logits = 2 * torch.randn(4, *size)
        flattened = torch.softmax(logits * torch.rand(1), 0)
        labels = torch.multinomial(flattened.flatten(1).T, 1).view(size)
        labels[torch.rand(size) < 0.1] = VOID
        samples.append((torch.softmax(logits, 0), labels))
    return samples


def masked(number: int, size: tuple[int, int] = (6, 9)) -> Samples:
    samples = []
    for _ in range(number):
        logits = 2 * torch.randn(2, *size)
        masks = (torch.rand(2, *size) < torch.sigmoid(torch.rand(1) * logits - 0.5)).long()
        masks[torch.rand(2, *size) < 0.1] = VOID
        samples.append((torch.sigmoid(logits), masks))
    return samples


def measured(number: int) -> Samples:
    """Value and variance; errors grow with the variance, and differ from image to image."""
    samples = []
    for _ in range(number):
        value, variance = 5 * torch.randn(1, 6, 9), torch.exp(torch.randn(1, 6, 9))
        target = value + (0.5 + torch.rand(1)) * variance.sqrt() * torch.randn(1, 6, 9)
        target[torch.rand(1, 6, 9) < 0.1] = torch.nan
        samples.append((torch.cat([value, variance]), target[0]))
    return samples


def without_variance(samples: Samples) -> Samples:
    return [(maps[:1], target) for maps, target in samples]


def weighted_quantile(scores: Sequence[np.ndarray], level: float) -> float:
    """The smallest score up to which a share ``level`` lies, with the same weight for every image."""
    values, shares = (
        np.concatenate(scores),
        np.concatenate([np.full(len(image_scores), 1 / len(image_scores)) for image_scores in scores]),
    )
    order = values.argsort()
    reached = shares[order].cumsum() / len(scores)
    return float(values[order][np.searchsorted(reached, level - 1e-12)])


# --- thresholds, against sorting all scores -------------------------------------------------------------------------


def test_the_threshold_of_sets_is_the_quantile_of_all_scores() -> None:
    samples, alpha = segmented(30), 0.1
    scores = []
    for maps, labels in samples:
        valid = labels != VOID
        true = maps.gather(0, labels.clamp(max=3)[None])[0]
        scores.append((torch.where(maps.argmax(0) == labels, 0, 1 - true))[valid].double().numpy())
    level = 1 - (alpha * 31 - 1) / 30  # the finite-sample correction of conformal risk control
    fitted = fit_set(given(samples), LABELS, alpha)
    assert fitted.threshold == pytest.approx(1 - weighted_quantile(scores, level), rel=BIN)
    assert fitted.images == 30


@pytest.mark.parametrize("floor", [None, 0.04])
def test_the_reach_of_intervals_is_the_quantile_of_all_residuals(floor: float | None) -> None:
    samples, alpha = measured(40), 0.2
    scores = []
    for maps, target in samples:
        scale = 1 if floor is None else (maps[1] + floor).sqrt()
        scores.append(((target - maps[0]).abs() / scale)[~target.isnan()].double().numpy())
    images = given(samples if floor else without_variance(samples))
    fitted = fit_interval(images, VALUES, alpha, floor)
    exact = weighted_quantile(scores, 1 - (alpha * 41 - 1) / 40)
    assert exact * (1 - 1e-6) <= fitted.reach <= exact * (1 + BIN)


def test_images_of_one_pixel_give_split_conformal_sets() -> None:
    """With one pixel an image it is the usual quantile, the ceil((n + 1)(1 - alpha))-th score of n."""
    samples = segmented(99, size=(1, 1))
    samples = [(maps, labels % 4) for maps, labels in samples]
    scores = [0.0 if p.argmax() == y else float(1 - p[y.item()]) for p, y in samples]
    fitted = fit_set(given(samples), LABELS, 0.1)
    assert fitted.threshold == pytest.approx(1 - sorted(scores)[math.ceil(100 * 0.9) - 1], rel=BIN)


def test_allowances_are_the_largest_that_the_bounds_permit() -> None:
    for images, alpha in ((9, 0.1), (50, 0.1), (400, 0.02)):
        allowed = expected_allowance(alpha, images)
        assert (images * allowed + 1) / (images + 1) == pytest.approx(alpha)
    for images in (29, 60, 500):
        allowed = certified_allowance(0.1, 0.95, images)
        assert p_value(allowed, 0.1, images) <= 1 - 0.95 < p_value(allowed + 1e-9, 0.1, images)
    assert p_value(0.02, 0.1, 100) == pytest.approx(min(math.e * binom.cdf(2, 100, 0.1), hoeffding(0.02, 0.1, 100)))


def hoeffding(mean: float, risk: float, number: int) -> float:
    return math.exp(-number * (mean * math.log(mean / risk) + (1 - mean) * math.log((1 - mean) / (1 - risk))))


# --- coverage, over many draws --------------------------------------------------------------------------------------


def test_sets_reach_the_guaranteed_coverage_over_random_halves() -> None:
    samples, alpha = segmented(120), 0.2
    result = []
    for seed in range(30):
        ours, others = halves(120, seed)
        result.append(coverage(given(samples, others), fit_set(given(samples, ours), LABELS, alpha), LABELS))
    low, high = binomial_interval(1 - alpha, 60, 0.99)
    assert all(low <= measured.per_image <= high for measured in result)
    # Neither less than guaranteed, nor much more: the correction costs (1 - alpha)/n.
    assert 1 - alpha - 0.003 <= np.mean([measured.per_image for measured in result]) <= 1 - alpha + 0.03
    assert all(1 < measured.size < 4 and measured.lowest <= measured.per_image for measured in result)


def test_intervals_reach_the_guaranteed_coverage_and_the_variance_makes_them_narrower() -> None:
    samples = measured(100)
    ours, others = halves(100, 0)
    plain = fit_interval(given(without_variance(samples), ours), VALUES, 0.1)
    scaled = fit_interval(given(samples, ours), VALUES, 0.1, floor=1e-4)
    low, high = binomial_interval(0.9, 50, 0.99)
    wide = coverage(given(without_variance(samples), others), plain, VALUES)
    narrow = coverage(given(samples, others), scaled, VALUES)
    assert low <= wide.per_image <= high and low <= narrow.per_image <= high
    assert narrow.size < wide.size == pytest.approx(2 * plain.reach, rel=1e-5)


def true_risk(maps: Tensor, masks: Tensor, fitted: RiskControl) -> float:
    """Mean false-negative rate, from all images at once."""
    true = masks == 1
    missed, there = (true & ~fitted.apply(maps)).flatten(1).sum(1), true.flatten(1).sum(1)
    return float((missed[there > 0] / there[there > 0]).mean())


def test_a_certified_risk_is_exceeded_no_more_often_than_allowed() -> None:
    source = masked(1_000, (1, 1))  # losses are 0 or 1, which have the largest variance
    whole = [torch.stack(parts) for parts in zip(*source, strict=True)]
    draws = np.random.default_rng(0)
    certified, plain = [], []
    for _ in range(200):
        drawn = draws.integers(0, 1_000, 40).tolist()
        fitted = fit_risk_control(given(source, drawn), MASKS, 0.3, 0.9)
        scores = [maps[masks == 1].double().numpy() for maps, masks in (source[number] for number in drawn)]
        uncorrected = weighted_quantile([image_scores for image_scores in scores if len(image_scores)], 0.3)
        certified.append(true_risk(*whole, fitted))
        plain.append(true_risk(*whole, replace(fitted, threshold=uncorrected)))
    allowed = binom.ppf(0.999, 200, 0.1)
    assert sum(risk > 0.3 for risk in certified) <= allowed < sum(risk > 0.3 for risk in plain)
    assert np.mean(certified) > 0.05  # the guarantee is not met by marking everything
    result = coverage(given(source), fitted, MASKS)
    assert 1 - result.per_image == pytest.approx(certified[-1], abs=1e-6)


# --- applied guarantees ----------------------------------------------------------------------------------------------


def test_sets_are_never_empty_and_hold_probable_classes() -> None:
    maps = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.9, 0.1, 0.0]]).T.view(1, 3, 1, 3)
    sets = ConformalSet(0.3, 0.1, 50).apply(maps)
    assert sets.dtype == torch.bool and sets[0, :, 0].T.tolist() == [
        [True, True, False],
        [True, True, False],
        [True, False, False],
    ]
    only_best = ConformalSet(1.0, 0.1, 50).apply(maps)
    assert (only_best.sum(1) == 1).all() and (only_best.int().argmax(1) == maps.argmax(1)).all()
    assert ConformalSet(0.0, 0.1, 50).apply(maps).all()
    assert not RiskControl(0.95, 0.1, 0.95, 50, "bernoulli").apply(maps).any()


def test_intervals_by_hand() -> None:
    maps = torch.tensor([[10.0, 4.0], [20.0, 0.0]]).view(2, 2, 1, 1)
    lower, upper = ConformalInterval(2.0, 5.0, 0.1, 50).apply(maps)
    assert lower.flatten().tolist() == pytest.approx([10 - 2 * 3, 20 - 2 * 5**0.5])
    assert upper.flatten().tolist() == pytest.approx([10 + 2 * 3, 20 + 2 * 5**0.5])
    assert [end.item() for end in ConformalInterval(2.0, None, 0.1, 50).apply(maps[:1, :1])] == [8, 12]
    with pytest.raises(ValueError, match="channels"):
        ConformalInterval(2.0, 5.0, 0.1, 50).apply(maps[:, :1])


def test_an_accurate_best_class_gives_sets_of_one_class() -> None:
    samples = [(maps, maps.argmax(0)) for maps, _ in segmented(20)]
    fitted = fit_set(given(samples), LABELS, 0.1)
    assert fitted.threshold == 1 and coverage(given(samples), fitted, LABELS).size == 1


def test_maps_are_resized_to_the_size_of_the_target() -> None:
    samples = segmented(40)
    scaled = partial(torch.nn.functional.interpolate, scale_factor=2)
    larger = [(maps, scaled(labels[None, None].float())[0, 0].long()) for maps, labels in samples]
    resized = [(scaled(maps[None], mode="bilinear")[0], labels) for maps, labels in larger]
    assert fit_set(given(larger), LABELS) == fit_set(given(resized), LABELS)


def test_images_without_positive_pixels_are_not_counted() -> None:
    samples = masked(60)
    empty = [(maps, torch.where(masks == 1, 0, masks)) for maps, masks in masked(30)]
    assert fit_risk_control(given(samples + empty), MASKS) == fit_risk_control(given(samples), MASKS)


def test_coverage_by_hand() -> None:
    maps = torch.tensor([[0.6, 0.6, 0.6, 0.1], [0.4, 0.4, 0.4, 0.9]]).view(2, 1, 4)
    task = SegmentationTask(("a", "b"))
    samples = [(maps, torch.tensor([[0, 0, 1, VOID]])), (maps, torch.tensor([[1, VOID, VOID, 0]]))]
    result = coverage(given(samples), ConformalSet(0.5, 0.1, 9), task)
    assert (result.per_image, result.per_pixel, result.lowest) == (pytest.approx(1 / 3), pytest.approx(2 / 5), 0)
    assert result.size == 1 and result.images == 2
    with pytest.raises(DataError, match="no image has a valid target"):
        coverage(given([(maps, torch.full((1, 4), VOID))]), ConformalSet(0.5, 0.1, 9), task)


def test_the_binomial_interval_contains_its_share_of_draws() -> None:
    low, high = binomial_interval(0.9, 50, 0.95)
    shares = np.random.default_rng(0).binomial(50, 0.9, 20_000) / 50
    assert 0.95 <= np.mean((shares >= low) & (shares <= high)) <= 0.99
    assert np.mean((shares > low) & (shares < high)) < 0.95  # without its ends it would be too narrow


# --- descriptions and invalid input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guarantee",
    [
        ConformalSet(0.25, 0.1, 50),
        ConformalInterval(1.5, None, 0.1, 50),
        ConformalInterval(1.5, 0.01, 0.1, 50),
        RiskControl(0.25, 0.1, 0.95, 50, "bernoulli"),
    ],
    ids=lambda guarantee: guarantee.kind,
)
def test_a_description_gives_the_same_guarantee(guarantee: Guarantee) -> None:
    assert guarantee.kind in GUARANTEES
    assert make_guarantee(json.loads(json.dumps(guarantee.describe(), allow_nan=False))) == guarantee


def test_an_unknown_guarantee_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'magic'.*conformal_set"):
        make_guarantee({"kind": "magic"})


def test_too_few_images_give_the_number_needed() -> None:
    assert fit_set(given(segmented(9)), LABELS, 0.1).threshold >= 0
    with pytest.raises(DataError, match=r"from 8 held-out.*at least 9"):
        fit_set(given(segmented(8)), LABELS, 0.1)
    assert fit_risk_control(given(segmented(29)), LABELS, 0.1, 0.95).threshold >= 0
    with pytest.raises(DataError, match=r"from 28 held-out.*at least 29"):
        fit_risk_control(given(segmented(28)), LABELS, 0.1, 0.95)
    for fit in (fit_set, fit_risk_control):
        with pytest.raises(DataError, match="from 0 held-out"):
            fit(given([]), LABELS)


def test_unsuitable_tasks_and_levels_are_refused() -> None:
    nothing = given([])
    with pytest.raises(UsageError, match=r"one class per pixel.*multilabel"):
        fit_set(nothing, MASKS)
    with pytest.raises(UsageError, match=r"classes.*saliency"):
        fit_risk_control(nothing, SaliencyTask())
    with pytest.raises(UsageError, match=r"values.*segmentation"):
        fit_interval(nothing, LABELS)
    with pytest.raises(UsageError, match="floor"):
        fit_interval(nothing, VALUES, floor=0.0)
    with pytest.raises(UsageError, match="miscoverage 1 "):
        fit_set(nothing, LABELS, 1.0)
    with pytest.raises(UsageError, match="confidence 0 "):
        fit_risk_control(nothing, LABELS, 0.1, 0.0)
    infinite = [(torch.full((1, 2, 2), torch.inf), torch.zeros(2, 2)) for _ in range(20)]
    with pytest.raises(DataError, match="infinite"):
        fit_interval(given(infinite), VALUES)
