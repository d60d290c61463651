"""The range test: the steepest point of a curve, and an unchanged network."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import SETTINGS, Fit, member_folder, replace, small_model

from densemble.data.decoded_cache import DecodedSplit
from densemble.data.transforms import AUGMENT
from densemble.tasks import SaliencyTask
from densemble.training.callbacks import read_rows
from densemble.training.dataset import DecodedSamples, EpochSampler, batches
from densemble.training.rate import HIGHEST, LOWEST, STEPS, find_learning_rate, steepest

Splits = tuple[DecodedSplit, DecodedSplit]


def feed_of(splits: Splits) -> Any:
    samples = DecodedSamples(splits[0], (12, 16), "heat", 0.0, AUGMENT["none"], 0)
    return batches(samples, EpochSampler(len(splits[0]), 0, 8), 8)


@pytest.mark.parametrize("middle", [1e-4, 1e-3, 1e-2])
def test_the_steepest_point_of_a_curve(middle: float) -> None:
    rates = [1e-6 * 10 ** (step / 10) for step in range(56)]
    curve = [(rate, 1 / (1 + math.exp(3 * math.log10(rate / middle)))) for rate in rates]  # falls fastest at `middle`
    assert steepest(curve) == pytest.approx(middle)


def test_the_first_and_last_steps_are_ignored() -> None:
    rates = [1e-6 * 2**step for step in range(20)]
    falls_at_the_ends = [(rate, 10 - step * 0.01) for step, rate in enumerate(rates)]
    falls_at_the_ends[0] = (rates[0], 100)
    falls_at_the_ends[-1] = (rates[-1], -100)
    falls_at_the_ends[10] = (rates[10], 8)
    assert steepest(falls_at_the_ends) == rates[9]
    assert steepest([]) == steepest(falls_at_the_ends[:9]) == 1e-3, "too short to tell"


def test_the_model_is_not_changed(splits: Splits) -> None:
    model = small_model().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rate, curve = find_learning_rate(model, SaliencyTask(), SETTINGS, feed_of(splits))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(part.training for part in model.modules()) and all(p.requires_grad for p in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    rates = [step_rate for step_rate, _ in curve]
    assert rates == sorted(rates) and rates[0] == LOWEST and rates[-1] <= HIGHEST * 1.001 and len(rates) <= STEPS
    assert rate in rates and 1e-5 < rate < HIGHEST
    assert find_learning_rate(model, SaliencyTask(), SETTINGS, feed_of(splits))[0] == rate, "the result is repeatable"


@pytest.mark.slow
def test_a_frozen_backbone_does_not_affect_the_range_test(splits: Splits) -> None:
    """The loss curve with cached features equals that with a frozen backbone."""
    frozen = replace(SETTINGS, freeze_epochs=2, freeze_statistics=True)
    model = small_model()
    images = list(feed_of(splits))
    with torch.no_grad():
        features = [(model.eval().features(image), target) for image, target in images]
    _, computed = find_learning_rate(model, SaliencyTask(), frozen, images)
    _, cached = find_learning_rate(model, SaliencyTask(), frozen, features)
    assert [loss for _, loss in cached] == pytest.approx([loss for _, loss in computed], rel=1e-3)
    _, learning = find_learning_rate(model, SaliencyTask(), SETTINGS, images)
    assert [loss for _, loss in learning][-20:] != pytest.approx([loss for _, loss in computed][-20:], rel=1e-3)


def test_a_range_test_without_batches() -> None:
    assert find_learning_rate(small_model(), SaliencyTask(), SETTINGS, []) == (1e-3, [])


def test_batches_are_not_kept(splits: Splits) -> None:
    """60 batches of a large run would fill the memory."""
    import gc
    import weakref

    alive: list[Any] = []
    most = 0

    class Feed:
        def __iter__(self) -> Any:
            nonlocal most
            for images, target in feed_of(splits):
                alive.append(weakref.ref(target))
                most = max(most, sum(reference() is not None for reference in alive))
                yield images, target

    find_learning_rate(small_model(), SaliencyTask(), SETTINGS, Feed())
    gc.collect()
    assert len(alive) > 20 and most < 10


def test_auto_trains_at_the_rate_of_the_range_test(fit: Fit, tmp_path: Path) -> None:
    fitted = fit(tmp_path, replace(SETTINGS, learning_rate="auto", batch_size=4))
    highest = max(row["learning_rate"] for row in read_rows(member_folder(tmp_path).metrics))
    assert 0.3 * fitted["learning_rate"] < highest <= fitted["learning_rate"]


def test_auto_with_cached_features(fit: Fit, tmp_path: Path) -> None:
    settings = replace(SETTINGS, learning_rate="auto", freeze_epochs=2, augment="none", cache_features=True)
    assert 1e-6 < fit(tmp_path, settings)["learning_rate"] < HIGHEST
