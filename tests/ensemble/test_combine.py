"""Every combination rule with every supported task: identities and numpy references."""

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from ensemble.combining import PAIRS, TASKS, combine, name_of, some_maps, start_of
from scipy.stats import gmean, rankdata
from torch import Tensor

from densemble.ensemble.combine import COMBINE, make_rule, require_rule, rules_for
from densemble.errors import UsageError
from densemble.tasks import HeatmapTask, MultilabelTask, RegressionTask, SaliencyTask, SegmentationTask, Task

Array = np.ndarray[Any, Any]
SEGMENTATION, MULTILABEL, SALIENCY = SegmentationTask(("a", "b", "c")), MultilabelTask(("a", "b")), SaliencyTask()
every_pair = pytest.mark.parametrize(("rule", "task"), PAIRS, ids=name_of)
every_task = pytest.mark.parametrize("task", TASKS, ids=name_of)
WEIGHTS = [2.0, 1.0, 4.0]


def own_map(rule: str, task: Task, maps: Tensor) -> Tensor:
    """Expected result of a rule for a single member ``(B, K, h, w)``."""
    if rule == "rank":
        return torch.from_numpy((rankdata(maps.flatten(2).numpy(), axis=-1) - 1) / (maps[0, 0].numel() - 1)).view_as(
            maps
        )
    if rule == "vote" and task.distribution == "categorical":
        return torch.nn.functional.one_hot(maps.argmax(1), task.out_channels).movedim(-1, 1)
    return (maps >= 0.5).float() if rule == "vote" else maps


def test_every_rule_suits_a_task_and_every_task_has_the_mean() -> None:
    assert {rule for rule, _ in PAIRS} == set(COMBINE)
    assert all("mean" in rules_for(task) for task in TASKS)


@every_pair
def test_one_member_or_equal_members_give_that_member(rule: str, task: Task) -> None:
    maps = some_maps(task, members=1)
    expected = own_map(rule, task, maps[0]).float()
    single = combine(maps, [0.3], rule, task, start_of(rule, task, [0.3]))
    torch.testing.assert_close(single, expected, atol=1e-6, rtol=1e-5)
    same = combine(maps.expand(3, -1, -1, -1, -1), WEIGHTS, rule, task, start_of(rule, task, WEIGHTS))
    torch.testing.assert_close(same, expected, atol=1e-6, rtol=1e-5)


@every_pair
def test_neither_order_nor_scale_of_weights_matters_but_weights_do(rule: str, task: Task) -> None:
    maps, order = some_maps(task).round(decimals=1), [2, 0, 1]
    fitted = start_of(rule, task, WEIGHTS)
    forth = combine(maps, WEIGHTS, rule, task, fitted)
    moved = {name: tensor if name == "bias" else tensor[order] for name, tensor in fitted.items()}
    back = combine(maps[order], [WEIGHTS[i] / 7 for i in order], rule, task, moved)
    torch.testing.assert_close(back, forth, atol=1e-6, rtol=1e-5)
    even = combine(maps, [1, 1, 1], rule, task, start_of(rule, task, [1, 1, 1]))
    # With three members, all except the middle one are trimmed, whatever their weights.
    assert rule == "trimmed" or not torch.allclose(forth, even, atol=1e-3)


@every_pair
@pytest.mark.parametrize("certain", [False, True], ids=["unsure", "saturated"])
def test_the_result_has_the_range_of_the_task(rule: str, task: Task, certain: bool) -> None:
    maps = some_maps(task, members=4)
    if certain and task.distribution == "categorical":  # members are certain of different classes
        maps = torch.nn.functional.one_hot(maps.argmax(2), task.out_channels).movedim(-1, 2).half()
    elif certain:
        maps = maps.round().half()
    out = combine(maps, [1, 2, 3, 1], rule, task, start_of(rule, task, [1, 2, 3, 1]))
    assert out.shape == maps.shape[1:] and out.dtype == torch.float32 and out.isfinite().all() and (out >= 0).all()
    if task.distribution != "none" or task.target_kind == "pixels":
        assert (out <= 1 + 1e-6).all()
    if task.distribution == "categorical":
        torch.testing.assert_close(out.sum(1), torch.ones_like(out[:, 0]))


@every_pair
def test_only_documented_rules_store_all_members(rule: str, task: Task) -> None:
    maps = [member_maps.clone() for member_maps in some_maps(task)]
    accumulator = make_rule(rule, task, start_of(rule, task, WEIGHTS))
    alive = [weakref.ref(member_maps) for member_maps in maps]
    for index in range(3):
        accumulator.add(maps[index], WEIGHTS[index], index)
    maps.clear()
    assert all((reference() is not None) == (rule == "median") for reference in alive)
    accumulator.result()


@every_pair
def test_combining_no_maps_is_an_error(rule: str, task: Task) -> None:
    with pytest.raises(ValueError, match="no maps"):
        make_rule(rule, task, start_of(rule, task, WEIGHTS)).result()


def numpy_median(maps: Array, weights: Array) -> Array:
    """References per value: each member is repeated as often as its weight."""
    return np.median(np.repeat(maps, weights, axis=0), axis=0)


def numpy_trimmed(maps: Array, weights: Array) -> Array:
    out = np.empty(maps.shape[1:])
    for position in np.ndindex(out.shape):
        rows = sorted(zip(maps[(slice(None), *position)], weights, strict=True))
        high = max(value for value, _ in rows)
        rows.remove(rows[0])
        rows.remove(min(row for row in rows if row[0] == high))
        out[position] = np.average([value for value, _ in rows], weights=[weight for _, weight in rows])
    return out


def normalized(maps: Array) -> Array:
    return maps / maps.sum(1, keepdims=True)


@every_task
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 2, 1], [5, 1, 1, 2]], ids=str)
def test_median_and_trimmed_equal_references_value_by_value(task: Task, weights: list[int]) -> None:
    maps = some_maps(task, members=4, batch=1)[..., :4, :5]
    maps = maps.clamp(0.01 * maps.max(), 0.5 * maps.max())  # with equal values among the extremes
    for rule, reference in (("median", numpy_median), ("trimmed", numpy_trimmed)):
        expected = reference(maps.numpy().astype(np.float64), np.array(weights))
        expected = normalized(expected) if task.distribution == "categorical" else expected
        got = combine(maps, [float(weight) for weight in weights], rule, task).numpy()
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)


def test_fewer_than_three_members_are_not_trimmed() -> None:
    maps = some_maps(SEGMENTATION, members=2)
    assert torch.equal(combine(maps, [1, 2], "trimmed", SEGMENTATION), combine(maps, [1, 2], "mean", SEGMENTATION))


def test_a_remaining_member_of_tiny_weight_gives_a_finite_value() -> None:
    maps = torch.tensor([0.0, 1.0, 0.5]).view(3, 1, 1, 1, 1)
    assert 0 <= combine(maps, [0.5, 0.5, 1e-12], "trimmed", SALIENCY).item() <= 1


@pytest.mark.parametrize("rule", ["median", "trimmed"])
def test_certain_members_of_different_classes_give_the_mean(rule: str) -> None:
    maps = torch.eye(3).view(3, 1, 3, 1, 1)
    torch.testing.assert_close(combine(maps, [1, 1, 1], rule, SEGMENTATION), torch.full((1, 3, 1, 1), 1 / 3))


def test_logits_of_classes_are_the_geometric_mean_and_odds_of_bernoulli_are_multiplied() -> None:
    maps = some_maps(SEGMENTATION)
    weights = np.broadcast_to(np.reshape(WEIGHTS, (3, 1, 1, 1, 1)), maps.shape)
    expected = normalized(gmean(maps.numpy(), axis=0, weights=weights))
    np.testing.assert_allclose(combine(maps, WEIGHTS, "logits", SEGMENTATION), expected, rtol=1e-4)
    maps = some_maps(MULTILABEL)
    odds = gmean((maps / (1 - maps)).numpy(), axis=0, weights=weights[:, :, :2])
    np.testing.assert_allclose(combine(maps, WEIGHTS, "logits", MULTILABEL), odds / (1 + odds), rtol=1e-4)


def test_votes_are_counted() -> None:
    maps = torch.tensor([[0.6, 0.3, 0.1], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]]).view(3, 1, 3, 1, 1)
    assert combine(maps, [1, 2, 1], "vote", SEGMENTATION).flatten().tolist() == [
        0.75,
        0,
        0.25,
    ]  # ties go to the first class
    maps = torch.tensor([[0.5, 0.4], [0.9, 0.6]]).view(2, 1, 2, 1, 1)
    assert combine(maps, [1, 3], "vote", MULTILABEL).flatten().tolist() == [1, 0.75]


@pytest.mark.parametrize("task", [SALIENCY, HeatmapTask(("a", "b"))], ids=name_of)
def test_ranks_are_invariant_to_monotone_changes_and_equal_scipys(task: Task) -> None:
    maps = some_maps(task).round(decimals=2)
    ranks = (rankdata(maps.flatten(3).numpy(), axis=-1) - 1) / (maps[0, 0, 0].numel() - 1)
    expected = np.average(ranks, axis=0, weights=WEIGHTS).reshape(maps.shape[1:])
    np.testing.assert_allclose(combine(maps, WEIGHTS, "rank", task), expected, atol=1e-6)
    changed = torch.stack([maps[0], maps[1] ** 3, 0.1 + 0.2 * maps[2]])
    torch.testing.assert_close(combine(changed, WEIGHTS, "rank", task), combine(maps, WEIGHTS, "rank", task))


def test_histograms_are_averaged_quantile_by_quantile() -> None:
    first, second = torch.tensor([[0.0, 0.4], [0.2, 1.0]]), torch.tensor([[0.2, 0.0], [0.2, 0.4]])
    # Sorted: 0 .2 .4 1 and 0 .2 .2 .4; common: 0 .2 .3 .7; first -> 0 .3 .2 .7; second -> .25 0 .25 .7.
    expected = torch.tensor([[0.125, 0.15], [0.225, 0.7]])
    got = combine(torch.stack([first, second])[:, None, None], [1, 1], "histogram", SALIENCY)
    torch.testing.assert_close(got[0, 0], expected)


def test_members_with_one_order_of_pixels_get_the_common_histogram() -> None:
    maps = some_maps(SALIENCY, members=1)[0]
    members = torch.stack([maps, maps**2, maps / 2])
    ordered = members.flatten(3).sort(-1).values.numpy()
    got = combine(members, WEIGHTS, "histogram", SALIENCY).flatten(2).sort(-1).values
    np.testing.assert_allclose(got, np.average(ordered, axis=0, weights=WEIGHTS), rtol=1e-5)


def test_stacking_is_a_convolution_over_all_members_logits() -> None:
    maps, kernel, bias = some_maps(SEGMENTATION), torch.randn(3, 3, 3), torch.randn(3)
    stacked = torch.cat(list(maps.log()), dim=1)
    logits = torch.nn.functional.conv2d(stacked, torch.cat(list(kernel), dim=1)[..., None, None], bias)
    got = combine(maps, WEIGHTS, "stacking", SEGMENTATION, {"kernel": kernel, "bias": bias})
    torch.testing.assert_close(got, logits.softmax(1))


def test_without_a_member_the_shares_of_the_others_grow_and_stacking_fails() -> None:
    maps = some_maps(SEGMENTATION)
    for rule in ("class_weights", "stacking"):
        accumulator = make_rule(rule, SEGMENTATION, start_of(rule, SEGMENTATION, WEIGHTS))
        accumulator.add(maps[2], 1.0, 2)
        assert COMBINE[rule].needs_all == (rule == "stacking")
        if COMBINE[rule].needs_all:
            with pytest.raises(UsageError, match="for 3 members, got 1"):
                accumulator.result()
        else:
            torch.testing.assert_close(accumulator.result(), maps[2])


def test_stacked_pixels_stay_within_images() -> None:
    image = next(task for task in TASKS if task.target_kind == "pixels")
    out = combine(some_maps(image), [1, 1, 1], "stacking", image, {"kernel": torch.ones(3, image.out_channels)})
    assert out.max() == 1


@pytest.mark.parametrize(
    ("rule", "task", "word"),
    [
        (
            "meen",
            SEGMENTATION,
            r"no combination rule is named 'meen'; did you mean 'mean' or 'median'\? .*: mean, logits",
        ),
        ("rank", SEGMENTATION, "'rank' does not suit segmentation; these do: mean, logits"),
        ("vote", SALIENCY, "does not suit saliency"),
        ("logits", RegressionTask(), "does not suit regression"),
        ("inverse_variance", MULTILABEL, "does not suit multilabel"),
    ],
)
def test_an_unsuitable_rule_is_refused_with_a_list_of_suitable_ones(rule: str, task: Task, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        require_rule(rule, task)
    with pytest.raises(UsageError, match=word):
        make_rule(rule, task)


@pytest.mark.parametrize(
    ("fitted", "word"),
    [
        (None, "fit the rule first"),
        ({"class_weights": torch.ones(3, 5)}, r"any x 3, got \(3, 5\)"),
        ({"class_weights": torch.ones(3)}, "any x 3"),
        ({"class_weights": torch.full((3, 3), torch.nan)}, "not finite"),
    ],
)
def test_fitted_parameters_are_checked(fitted: dict[str, Tensor] | None, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        make_rule("class_weights", SEGMENTATION, fitted)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0, 1.0], [1.0, float("nan"), 1.0]])
def test_wrong_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(UsageError, match="weights"):
        combine(some_maps(SEGMENTATION), weights, "mean", SEGMENTATION)
