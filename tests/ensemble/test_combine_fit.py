"""Fitted combination rules: compared with their objectives and other solvers; invariances."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ensemble.combining import FITTED_PAIRS, H, W, combine, held_out, name_of, only_known, start_of
from sklearn.linear_model import LinearRegression
from torch import Tensor

from densemble.ensemble.combine import COMBINE, Fitted, Images
from densemble.ensemble.combine.fit_images import sample_pixels
from densemble.errors import DataError
from densemble.tasks import HeatmapTask, RegressionTask, SaliencyTask, SegmentationTask, Task

every_fitted = pytest.mark.parametrize(("rule", "task"), FITTED_PAIRS, ids=name_of)
REGRESSION, SEGMENTATION = RegressionTask(), SegmentationTask(("a", "b", "c"))
WEIGHTS = [1.0, 1.0, 1.0]


def fit(rule: str, images: Images, task: Task, weights: list[float] = WEIGHTS) -> dict[str, Tensor]:
    learn = COMBINE[rule].fit
    assert learn is not None
    return learn(images, weights, task)


def objective(rule: str, fitted: Fitted, images: Images, task: Task) -> float:
    """Mean log-loss or squared error over all valid pixels, in numpy."""
    losses = []
    for maps, target in images():
        p = combine(maps[:, None], WEIGHTS, rule, task, fitted)[0].double().numpy()
        expected, valid = (part.numpy() for part in task.as_maps(target))
        valid = np.broadcast_to(valid, expected.shape)
        if task.distribution == "none":
            losses.append(((p - expected) ** 2)[valid])
        elif task.distribution == "categorical":
            losses.append(-np.log((p * expected).sum(0)[valid[0]]))
        else:
            losses.append(-(expected * np.log(p) + (1 - expected) * np.log1p(-p))[valid])
    return float(np.concatenate(losses).mean())


@every_fitted
def test_a_fit_improves_the_objective_on_its_images(rule: str, task: Task) -> None:
    images = held_out(task)
    fitted = fit(rule, images, task)
    assert objective(rule, fitted, images, task) < objective(rule, start_of(rule, task, WEIGHTS), images, task)


@every_fitted
def test_a_fit_ignores_unknown_pixels_and_the_scale_of_weights_and_is_deterministic(rule: str, task: Task) -> None:
    images = held_out(task)
    first = fit(rule, images, task, [1.0, 2.0, 1.0])
    assert all(tensor.dtype == torch.float32 and not tensor.requires_grad for tensor in first.values())
    with torch.no_grad():
        changed = only_known(torch.zeros_like, images, task)
        second = fit(rule, changed, task, [1.0, 2.0, 1.0])
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
    for name, tensor in fit(rule, images, task, [10.0, 20.0, 10.0]).items():
        torch.testing.assert_close(tensor, first[name], atol=1e-3, rtol=1e-3)


@every_fitted
def test_saturated_half_precision_predictions_can_be_fitted(rule: str, task: Task) -> None:
    images = held_out(task)

    def saturated() -> Iterator[tuple[Tensor, Tensor]]:
        for maps, target in images():
            certain = torch.eye(task.out_channels)[maps.argmax(1)].movedim(-1, 1)
            yield (certain if task.distribution == "categorical" else maps.round()).half(), target

    fitted = fit(rule, saturated, task)
    maps = next(saturated())[0][:, None]
    assert combine(maps, WEIGHTS, rule, task, fitted).isfinite().all()


@every_fitted
def test_a_fit_refuses_unknown_targets_and_maps_that_are_not_finite(rule: str, task: Task) -> None:
    with pytest.raises(DataError, match="no pixel"):
        fit(rule, lambda: [], task)
    maps, target = next(iter(held_out(task)()))
    maps[1, 0, 3, 3] = torch.nan
    with pytest.raises(DataError, match=r"members \[1\]"):
        fit(rule, lambda: [(maps, target)], task)


def test_a_target_without_known_pixels_is_ignored() -> None:
    target = torch.full((H, W), SEGMENTATION.ignore_index)
    with pytest.raises(DataError, match="no pixel"):
        fit("stacking", lambda: [(torch.full((3, 3, H, W), 1 / 3), target)], SEGMENTATION)


def test_stacking_corrects_a_member_with_permuted_classes() -> None:
    labels = torch.randint(0, 3, (20, 20))
    right = torch.nn.functional.one_hot(labels, 3).movedim(-1, 0) * 0.4 + 0.2
    maps = torch.stack([right[[1, 2, 0]], torch.full_like(right, 1 / 3)])
    fitted = fit("stacking", lambda: [(maps, labels)], SEGMENTATION, [1.0, 1.0])
    assert torch.equal(combine(maps[:, None], [1, 1], "stacking", SEGMENTATION, fitted).argmax(1)[0], labels)
    assert not torch.equal(combine(maps[:, None], [1, 1], "logits", SEGMENTATION).argmax(1)[0], labels)


def test_class_weights_prefer_the_accurate_member_of_each_class() -> None:
    task, labels = SegmentationTask(("a", "b", "c", "d")), torch.randint(0, 4, (40, 40))
    right = torch.nn.functional.one_hot(labels, 4).movedim(-1, 0).float()
    knows_ab = torch.where(labels < 2, right, torch.tensor([0, 0, 0.5, 0.5])[:, None, None])
    knows_cd = torch.where(labels >= 2, right, torch.tensor([0.5, 0.5, 0, 0])[:, None, None])
    maps = torch.stack([knows_ab, knows_cd])
    weights = fit("class_weights", lambda: [(maps, labels)], task, [1.0, 1.0])["class_weights"]
    torch.testing.assert_close(weights.sum(0), torch.ones(4))
    assert (weights[0, :2] > 0.8).all() and (weights[1, 2:] > 0.8).all()


def values_and_truth() -> tuple[Tensor, Tensor]:
    target = 1 + 4 * torch.rand(30, 40)
    return torch.stack([s * target + n * torch.randn(30, 40) for s, n in ((1.1, 0.2), (0.9, 0.4), (1.3, 0.8))]), target


def test_precisions_are_weights_over_squared_errors() -> None:
    maps, target = values_and_truth()
    target[0] = torch.nan
    errors = np.array([np.nanmean((values - target).numpy() ** 2) for values in maps])
    expected = np.array([1.0, 2.0, 1.0]) / errors
    got = fit("inverse_variance", lambda: [(maps[:, None], target)], REGRESSION, [1.0, 2.0, 1.0])["precisions"]
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-5)


def test_members_without_error_share_the_weight() -> None:
    target = torch.rand(5, 6) + 1
    maps = torch.stack([target, target, target + 1])[:, None]
    got = fit("inverse_variance", lambda: [(maps, target)], REGRESSION)["precisions"]
    np.testing.assert_allclose(got, [0.5, 0.5, 0], atol=1e-6)
    perfect = fit("inverse_variance", lambda: [(maps[:2], target)], REGRESSION, [3.0, 1.0])["precisions"]
    np.testing.assert_allclose(perfect, [0.75, 0.25])


def test_stacked_values_are_non_negative_least_squares() -> None:
    maps, target = values_and_truth()
    expected = LinearRegression(positive=True, fit_intercept=False).fit(maps.flatten(1).T, target.flatten()).coef_
    halves = [(maps[:, None, :10], target[:10]), (maps[:, None, 10:], target[10:])]
    got = fit("stacking", lambda: halves, REGRESSION)["kernel"][:, 0]
    np.testing.assert_allclose(got, expected, atol=5e-3)
    assert (got >= 0).all() and expected.min() < 0.5


def test_maps_are_compared_at_the_size_of_the_target_and_keep_their_count() -> None:
    task = HeatmapTask(("a",), mode="density")
    maps = torch.full((1, 1, 4, 6), 1.0)
    got = fit("stacking", lambda: [(maps, torch.full((1, 8, 12), 0.5))], task, [1.0])["kernel"]
    assert got.item() == pytest.approx(2, abs=1e-3)  # 24 of 48: a pixel of the target is a quarter of a map's


def test_a_sample_holds_all_of_few_pixels_and_a_uniform_part_of_many() -> None:
    task, generator = SaliencyTask(), torch.Generator().manual_seed(0)
    images = [(torch.full((1, 1, 20, 20), n / 40), torch.rand(20, 20, generator=generator)) for n in range(40)]
    whole = sample_pixels(lambda: images, task, most=40 * 400)
    ideal = torch.cat([target.flatten() for _, target in images])
    assert torch.equal(whole.ideal[:, 0].sort().values, ideal.sort().values)
    some = sample_pixels(lambda: images, task, most=2000)
    assert some.values.shape == (2000, 1, 1)
    counts = torch.bincount((some.values.flatten() * 40).round().long(), minlength=40)
    assert counts.min() > 25 and counts.max() < 80  # 50 of each image, give or take four standard deviations
    assert torch.equal(some.values, sample_pixels(lambda: images, task, most=2000).values)
