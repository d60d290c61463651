"""Fitting cascades: scores against brute force, data sets with known best policies, and errors."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from ensemble.combining import combine
from sampled import sampled
from small_heldout import SIZE, TASKS, arrays, random_target, small_set
from torch import Tensor

from densemble.ensemble.calibrate import Temperature
from densemble.ensemble.cascade import Cascade, Policy, uncertainty_measures_for, unsureness
from densemble.ensemble.combination import Combination
from densemble.ensemble.uncertainty import RunningUncertainty
from densemble.errors import DataError, UsageError
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure
from densemble.selection.cascade_subsets import subsampled
from densemble.selection.fit_cascade import fit_cascade, why_no_cascade
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.tasks import SegmentationTask

WEIGHTS = (0.2, 0.3, 0.5)
MILLISECONDS = [10.0, 15.0, 75.0]


def combination_of(held: HeldOut, weights: Sequence[float], rule: str = "mean", **parts: Any) -> Combination:
    """Members of a held-out set with these weights."""
    return Combination(held.task, dict(zip(held.names, weights, strict=True)), rule, **parts)


def brute_force(held: HeldOut, combination: Combination, objective: Objective, policy: Policy) -> tuple[float, float]:
    """(cost, score) of a policy, one image and one member at a time, by the library's own rule and uncertainty."""
    costs, rows = followed(held, combination, objective, policy)
    return float(np.mean(costs)), float(objective.value(torch.stack(rows).sum(0)))


def totals_of_policy(held: HeldOut, combination: Combination, objective: Objective, policy: Policy) -> Tensor:
    """Statistics of a policy, summed over the images."""
    return torch.stack(followed(held, combination, objective, policy)[1]).sum(0)


def followed(
    held: HeldOut, combination: Combination, objective: Objective, policy: Policy
) -> tuple[list[float], list[Tensor]]:
    """Cost and statistics of each image."""
    costs, rows = list[float](), list[Tensor]()
    indices, weights = [held.names.index(name) for name in policy.members], list(combination.weights.values())
    for maps, target in held:
        running = RunningUncertainty(held.task.distribution)
        for stage, index in enumerate(indices, 1):
            running.add(maps[index][None], weights[index])
            seen = indices[:stage]
            combined = combine(maps[seen][:, None], [weights[p] for p in seen], combination.rule, held.task)
            sure = unsureness(policy.measure, combined, running, held.task.distribution, stage) < policy.threshold
            if sure or stage == len(indices):
                break
        calibration = combination.calibration
        served = combined if calibration is None else calibration.apply(combined)
        rows.append(measure(served, target, held.task, objective)[0])
        costs.append(sum(MILLISECONDS[index] for index in seen) / sum(MILLISECONDS))
    return costs, rows


def uneven_set(metric: str, images: int = 10) -> HeldOut:
    """Two cheap members, correct on every second image only, and an expensive member that is always correct."""
    easy, hard = (small_set(TASKS[metric], spreads, images) for spreads in ([0.0, 0.0, 0.0], [2.0, 2.0, 0.0]))
    even = (np.arange(images) % 2 == 0)[:, None, None, None]
    maps = [np.where(even, own, other) for own, other in zip(arrays(easy), arrays(hard), strict=True)]
    if metric == "cc":  # probabilities
        maps = [own.clip(0, 1) for own in maps]
    return held_out(easy.names, maps, easy.targets, easy.task)


@pytest.mark.parametrize("metric", TASKS)
@pytest.mark.parametrize("rule", ["mean", "median"])
def test_cost_and_score_of_policies_equal_brute_force(metric: str, rule: str) -> None:
    held, objective = uneven_set(metric), TASKS[metric].objective(metric)
    combination = combination_of(held, WEIGHTS, rule)
    result = fit_cascade(held, combination, objective, MILLISECONDS)
    assert any(policy.threshold > 0 for policy in result.policies)
    for policy in result.policies:
        cost, score = brute_force(held, combination, objective, policy)
        assert policy.cost == pytest.approx(cost) and policy.score == pytest.approx(score, rel=1e-6), policy
        assert policy.measure in uncertainty_measures_for(held.task)
        share = score / result.full if objective.higher_is_better else result.full / score
        assert policy.kept == pytest.approx(share, rel=1e-5)
        assert policy.kept_low is not None and policy.kept is not None and policy.kept_low <= policy.kept + 1e-9


def grown(held: HeldOut, random: np.random.Generator) -> HeldOut:
    """Other maps and targets of the same images, both of twice the size."""
    task = held.task
    targets = [random_target(task, random) for _ in held.targets]
    large = [target.repeat_interleave(2, -2).repeat_interleave(2, -1) for target in targets]
    ideal = torch.stack([task.as_maps(target)[0] for target in large]).numpy()
    noise = [random.normal(size=ideal.shape).astype(np.float32) * 0.3 for _ in held.names]
    maps = [np.abs(ideal + own) for own in noise]
    if task.distribution == "categorical":
        maps = [own / own.sum(1, keepdims=True) for own in maps]
    elif task.distribution == "bernoulli":
        maps = [own.clip(0, 1) for own in maps]
    return held_out(held.names, maps, [(target, None) for target in large], task)


@pytest.mark.parametrize("metric", sampled(list(TASKS), list(TASKS)[1:2]))
def test_cost_and_score_on_served_maps_equal_brute_force(metric: str) -> None:
    held, objective = uneven_set(metric), TASKS[metric].objective(metric)
    combination = combination_of(held, WEIGHTS)
    first = fit_cascade(held, combination, objective, MILLISECONDS)
    other = grown(held, np.random.default_rng(5))
    result = fit_cascade(held, combination, objective, MILLISECONDS, other)
    known = {(policy.members, policy.measure, policy.threshold) for policy in first.policies}
    assert {(policy.members, policy.measure, policy.threshold) for policy in result.policies} <= known
    assert result.full != first.full
    for policy in result.policies:
        cost, score = brute_force(other, combination, objective, policy)
        assert policy.cost == pytest.approx(cost) and policy.score == pytest.approx(score, rel=1e-5), policy
    assert result.policies[-1].kept == result.policies[-1].kept_low == 1
    for check in result.checks:  # fitted on either half alone, kept of the other half as it is served
        rows = []
        for seen, unseen in ((range(5), range(5, 10)), (range(5, 10), range(5))):
            half = fit_cascade(held.only(seen), combination, objective, MILLISECONDS, other.only(seen))
            bare = Cascade(**{**vars(half), "checks": ()})
            policy = bare.for_budget(check.share) if check.asked == "budget" else bare.for_keep(check.share)
            rows.append(totals_of_policy(other.only(unseen), combination, objective, policy))
        score = float(objective.value(torch.stack(rows).sum(0)))
        share = score / result.full if objective.higher_is_better else result.full / score
        assert check.kept == pytest.approx(share, rel=1e-5), check


def test_scores_include_the_calibration() -> None:
    task = TASKS["nll"]
    held, objective = small_set(task, [1.5, 1.0, 0.7], images=8), task.objective("nll")
    combination = combination_of(held, WEIGHTS, calibration=Temperature(2.0, task.distribution))
    result = fit_cascade(held, combination, objective, MILLISECONDS)
    assert result.full != pytest.approx(
        fit_cascade(held, combination_of(held, WEIGHTS), objective, MILLISECONDS).full, rel=1e-3
    )
    for policy in result.policies:
        assert policy.score == pytest.approx(brute_force(held, combination, objective, policy)[1], rel=1e-6)


@pytest.mark.parametrize("metric", TASKS)
def test_policies_form_a_pareto_front(metric: str) -> None:
    task = TASKS[metric]
    held, objective = small_set(task, [2.0, 1.0, 0.5, 1.5], images=12), task.objective(metric)
    result = fit_cascade(held, combination_of(held, (0.25,) * 4), objective, [10.0, 20.0, 40.0, 30.0])
    sign = 1 if objective.higher_is_better else -1
    *front, everything = result.policies
    for cheaper, dearer in pairwise(front):
        assert cheaper.cost <= dearer.cost
        assert sign * dearer.score > sign * cheaper.score or dearer.kept_low > cheaper.kept_low
    assert sorted(everything.members) == sorted(held.names) and everything.threshold == 0
    assert everything.cost == pytest.approx(1) and everything.score == pytest.approx(result.full)
    assert everything.kept == everything.kept_low == 1
    assert result.for_keep(1.0).kept_low >= 1 and sum(result.shares.values()) == pytest.approx(1)


def hard_and_easy(images: int = 24) -> HeldOut:
    """A cheap member that is right, and sure, on every second image, and a guess elsewhere; a dear one always right.

    The cheap one weighs little, so that the mean of both is right wherever the dear one is.
    """
    random = np.random.default_rng(0)
    task = SegmentationTask(("a", "b", "c"))
    targets = [random_target(task, random) for _ in range(images)]
    ideal = torch.stack([task.as_maps(target)[0] for target in targets])
    sure: Tensor = torch.softmax(8 * ideal, 1)
    guess = torch.softmax(torch.from_numpy(random.normal(size=(images, 3, *SIZE))).float() / 10, 1)
    easy = (torch.arange(images) % 2 == 0)[:, None, None, None]
    cheap = torch.where(easy, sure, guess)
    maps = [cheap.half().numpy(), sure.half().numpy()]
    return held_out(["cheap", "dear"], maps, [(target, None) for target in targets], task)


def test_certain_images_stop_early() -> None:
    held = hard_and_easy()
    result = fit_cascade(held, combination_of(held, (0.2, 0.8)), held.task.objective(), [1.0, 9.0])
    policy = result.for_keep(1.0)
    assert policy.members == ("cheap", "dear") and policy.measure == "entropy" and policy.threshold > 0
    assert policy.cost == pytest.approx((0.1 + 1.0) / 2) and policy.kept == 1
    assert result.for_budget(0.5).score < result.for_budget(0.6).score == result.full
    keep = {check.share: check for check in result.checks if check.asked == "keep"}
    assert keep[0.995].kept == pytest.approx(1) and keep[0.995].cost == pytest.approx(0.55)


def test_checks_are_measured_on_the_other_half() -> None:
    """A policy that is good on the first half only is reported with its score on the second half."""
    held = hard_and_easy()
    cheap = arrays(held)[0].copy()
    cheap[:12] = arrays(held)[1][:12]  # right everywhere in the first half
    maps = [cheap, arrays(held)[1]]
    other = held_out(held.names, maps, held.targets, held.task)
    result = fit_cascade(other, combination_of(other, (0.2, 0.8)), held.task.objective(), [1.0, 9.0])
    shares = {kind: {check.share for check in result.checks if check.asked == kind} for kind in ("keep", "budget")}
    assert shares["keep"] == {0.98, 0.99, 0.995, 1.0}
    assert {0.4, 0.5, 0.7} <= shares["budget"] <= {0.1, 0.2, 0.3, 0.4, 0.5, 0.7}  # none below the cheapest member
    keep = {check.share: check for check in result.checks if check.asked == "keep"}
    assert keep[1.0].kept < 0.95
    assert result.for_keep(1.0).kept_low >= 1


def test_failures_of_neighbours_lower_the_bound() -> None:
    """Video frames: six bad images in a row are less evidence than six scattered ones."""

    def low(bad: list[int]) -> float:
        held = hard_and_easy(60)
        cheap = arrays(held)[1].copy()
        cheap[bad] = arrays(held)[0][1]
        result = fit_cascade(
            held_out(held.names, [cheap, arrays(held)[1]], held.targets, held.task),
            combination_of(held, (0.2, 0.8)), held.task.objective(), [1.0, 9.0],
        )  # fmt: skip
        alone = next(policy for policy in result.policies if policy.members == ("cheap",))
        assert alone.kept_low is not None
        return alone.kept_low

    assert low([0, 1, 2, 3, 4, 5]) < low([5, 15, 25, 35, 45, 55]) - 0.005


def test_bad_members_at_the_end_do_not_run() -> None:
    held = small_set(TASKS["miou"], [0.3, 9.0, 9.0], images=12)
    result = fit_cascade(held, combination_of(held, (1 / 3,) * 3), held.task.objective(), MILLISECONDS)
    best = result.for_budget(1.0)
    assert best.members[0] == "member0" and best.cost < 1 and best.kept is not None and best.kept > 1


def test_kept_share_is_undefined_for_negative_scores() -> None:
    held = small_set(TASKS["cc"], [0.1, 0.1], images=6)
    upside_down = tuple((1 - own).astype(np.float16) for own in arrays(held))
    negative = held_out(held.names, upside_down, held.targets, held.task)
    result = fit_cascade(negative, combination_of(negative, (0.5, 0.5)), held.task.objective(), [1.0, 2.0])
    assert result.full < 0 and {policy.kept for policy in result.policies} == {None}
    with pytest.raises(UsageError, match="budget"):
        result.for_keep(0.9)
    assert result.for_budget(1.0).score >= result.full and {check.asked for check in result.checks} == {"budget"}


def test_ensembles_without_cascade() -> None:
    held = small_set(TASKS["miou"], [1.0, 1.0])
    objective = held.task.objective()
    assert why_no_cascade(3, "mean") is None and "one member" in str(why_no_cascade(1, "mean"))
    fitted = {"kernel": torch.ones(2, 3, 3), "bias": torch.zeros(3)}
    with pytest.raises(UsageError, match=r"stacking.*all members"):
        fit_cascade(held, combination_of(held, (0.5, 0.5), "stacking", fitted=fitted), objective, [1.0, 1.0])
    with pytest.raises(DataError, match="3 held-out images"):
        fit_cascade(held.only([0, 1, 2]), combination_of(held, (0.5, 0.5)), objective, [1.0, 1.0])
    unknown = TASKS["cc"].objective("nss")  # of images without fixations
    heat = small_set(TASKS["cc"], [1.0, 1.0])
    with pytest.raises(DataError, match="nss is undefined"):
        fit_cascade(heat, combination_of(heat, (0.5, 0.5)), unknown, [1.0, 1.0])


def test_images_in_any_order() -> None:
    held, objective = small_set(TASKS["cc"], [1.5, 0.7], images=12), TASKS["cc"].objective()
    some = held.only([11, 2, 3, 7, 8, 5])
    result: Cascade = fit_cascade(some, combination_of(some, (0.5, 0.5)), objective, [1.0, 2.0])
    assert result.images == 6
    for policy in result.policies:
        if not policy.threshold:
            assert policy.score == pytest.approx(_score(some, objective, policy.members), rel=1e-6)
    assert {policy.members for policy in result.policies if not policy.threshold} >= {("member1",)}


def _score(held: HeldOut, objective: Objective, members: tuple[str, ...]) -> float:
    """Score of the mean of some members, image by image."""
    rows = [measure(maps.mean(0)[None], target, held.task, objective)[0] for maps, target in held.of(members)]
    return float(objective.value(torch.stack(rows).sum(0)))


def test_only_pixelwise_targets_of_the_map_size_are_subsampled() -> None:
    maps, same, other = torch.rand(2, 3, 100, 100), torch.zeros(100, 100), torch.zeros(50, 50)
    assert subsampled(maps, (same, None), "heat")[0] is maps  # its peaks and its sum would change
    assert subsampled(maps, (other, None), "labels")[0] is maps
    assert subsampled(maps, (same, None), "labels", max_pixels=None)[0] is maps
    some, (target, _) = subsampled(maps, (torch.arange(10_000).view(100, 100), None), "labels", max_pixels=2500)
    assert torch.equal(some, maps[..., ::2, ::2]) and torch.equal(target, torch.arange(10_000).view(100, 100)[::2, ::2])
