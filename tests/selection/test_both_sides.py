"""Scores on stored predictions equal the scores of the networks, up to the rounding of 16-bit floats."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from selection.written_runs import NAMES, Written, make_network
from torch import Tensor

from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import rules_for
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.prediction import Prediction
from densemble.evaluation.scores import evaluate, images_with_targets
from densemble.selection.calibration import fit_calibration, member_temperatures
from densemble.selection.choose import fit_rule, mean_of
from densemble.selection.conformal import fit_guarantee
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.selection.options import Options

KINDS = ("saliency", "segmentation", "multilabel", "depth")
TOLERANCE = 0.01
"""float16 probabilities are exact to 0.0005; temperatures below 1 increase the error up to five times."""


def nearly(result: Tensor | None, expected: Tensor | None, name: str) -> None:
    """Require equality except for 2 % of the values: rounding decides between members with equal values."""
    assert (result is None) == (expected is None), name
    if result is None or expected is None:
        return
    assert result.shape == expected.shape, name
    scale = max(float(expected.abs().max()), 1.0)
    far = (result.double() - expected.double()).abs() > TOLERANCE * scale
    assert far.double().mean() <= 0.02, f"{name}: {int(far.sum())} of {far.numel()} values differ"


def require_same(result: Prediction, expected: Prediction, *but: str) -> None:
    for name, value in expected.__dict__.items():
        if name not in but:
            nearly(getattr(result, name), value, name)


def kept(run: Written) -> tuple[HeldOut, Combination]:
    """Kept predictions of all three members, with different weights."""
    maps = [np.load(run.maps(name), mmap_mode="r") for name in NAMES]
    held = held_out(NAMES, maps, [(target, None) for target in run.small_targets()], run.task)
    return mean_of(held, (0.5, 0.3, 0.2))


network = functools.cache(make_network)


def networks_of(held: HeldOut, combination: Combination, run: Written, options: Options | None = None) -> Ensemble:
    """The ensemble of the networks of the kept predictions."""
    guarantee = None if options is None else fit_guarantee(held, combination, options)
    members = {name: network(run.task, seed) for seed, name in enumerate(NAMES)}
    temperatures = dict(zip(NAMES, held.temperatures, strict=True))
    return Ensemble(
        members, combination.weights, run.task, combination.rule, temperatures=temperatures,
        fitted=combination.fitted, calibration=combination.calibration, guarantee=guarantee,
    ).eval()  # fmt: skip


def require_near(measured: dict[str, Any], scores: dict[str, Any]) -> None:
    assert scores
    for name, value in scores.items():
        assert measured[name] == pytest.approx(value, rel=5e-3, abs=5e-3), name


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_equals_that_of_the_networks(kind: str, written: Callable[[str], Written]) -> None:
    run = written(kind)
    images = next(images_with_targets(run.data, "val"))[0]
    for rule in rules_for(run.task):
        held, mean = kept(run)
        combination = fit_rule(held, mean, rule)
        result = combination.predict(held.read(0)[:, None])
        require_same(result, networks_of(held, combination, run).predict(images))


@pytest.mark.parametrize(
    ("kind", "method"),
    [("segmentation", "temperature"), ("segmentation", "vector"), ("multilabel", "vector"), ("depth", "variance")],
)
def test_calibrated_prediction_equals_that_of_the_networks(
    kind: str, method: str, written: Callable[[str], Written]
) -> None:
    run = written(kind)
    images = next(images_with_targets(run.data, "val"))[0]
    plain, mean = kept(run)
    held = member_temperatures(plain, method)
    combination = fit_calibration(held, mean, method)
    assert combination.calibration is not None
    result = combination.predict(held.read(0)[:, None])
    require_same(result, networks_of(held, combination, run).predict(images))
    with pytest.raises(AssertionError, match="variance" if kind == "depth" else "mean"):
        require_same(result, networks_of(plain, mean, run).predict(images))


@pytest.mark.parametrize(
    ("kind", "guarantee"),
    [("segmentation", "set"), ("segmentation", "risk"), ("multilabel", "risk"), ("depth", "interval")],
)
def test_a_guarantee_holds_on_the_images_that_it_was_fitted_on(
    kind: str, guarantee: str, written: Callable[[str], Written]
) -> None:
    run = written(kind)
    options = Options(guarantee=guarantee, level=0.4, confidence=0.6)
    held, combination = kept(run)
    combination = fit_calibration(held, combination, "variance" if guarantee == "interval" else "none")
    ensemble = networks_of(held, combination, run, options)
    measured = evaluate(ensemble, run.data, "val")["guarantee"]
    assert measured["promised"] == pytest.approx(0.6) and measured["checked_on"] == len(run.data.val)
    assert measured["coverage"] >= 0.6 - TOLERANCE  # at the targets' own size, four times that of the kept maps


@pytest.mark.parametrize(
    ("kind", "rule", "method"),
    [
        pytest.param("segmentation", "mean", "auto", marks=pytest.mark.slow),
        pytest.param("segmentation", "median", "temperature", marks=pytest.mark.slow),
        pytest.param("segmentation", "logits", "none", marks=pytest.mark.slow),
        ("segmentation", "stacking", "vector"),
        pytest.param("multilabel", "class_weights", "auto", marks=pytest.mark.slow),
        ("depth", "stacking", "auto"),
        pytest.param("saliency", "histogram", "none", marks=pytest.mark.slow),
    ],
)
def test_scores_of_an_assembly_equal_those_of_its_networks(
    kind: str, rule: str, method: str, fresh: Callable[[str], Written]
) -> None:
    run = fresh(kind)
    ensemble = run.run.assemble("all", rule, calibrate=method)
    assert ensemble.combine == rule and (ensemble.calibration is None) == (method == "none")
    measured = evaluate(ensemble, run.data, "val")
    require_near(measured, ensemble.metrics["val"])
    for name, own in ensemble.metrics["members"].items():
        if ensemble.temperatures[name] == 1:
            require_near(measured["members"][name], own)
