"""Selection, weights and rules of an assembly, on stored predictions with known best members."""

import json
import platform
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from selection.written_runs import IMAGES, NAMES, Written, noisy
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.ensemble.calibrate import Temperature, VectorScaling
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE
from densemble.ensemble.guarantee import ConformalSet
from densemble.errors import DataError, UsageError
from densemble.evaluation.bootstrap import ConfidenceInterval
from densemble.metrics import Objective
from densemble.selection import assemble as assembling
from densemble.selection.baseline_filter import BaselineFilter
from densemble.selection.choose import best_rule, select_weights
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.selection.options import Options
from densemble.storage.runs import read_json
from densemble.storage.writing import write_json

Fresh = Callable[[str], Written]
GOOD, FAIR, BAD = 1.0, 1.5, 6.0


def analysis(run: Written) -> dict[str, Any]:
    """The analysis, which must be strict JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    result: dict[str, Any] = json.loads((run.path / "analysis.json").read_text(), parse_constant=refuse)
    return result


def score(run: Written, weights: dict[str, float]) -> float:
    """Primary metric of a weighted mean of kept maps, image by image."""
    metric = run.task.metrics()
    total = sum(weights.values())
    maps = sum(np.load(run.maps(name)).astype(np.float32) * weight / total for name, weight in weights.items())
    for kept, target in zip(torch.from_numpy(maps), run.targets(), strict=True):
        size = tuple(target.shape[-2:])
        metric.update(torch.nn.functional.interpolate(kept[None], size=size, mode="bilinear")[0], target, None)
    return float(metric.compute()[run.task.primary])


def planted(run: Written, spreads: tuple[float, float, float]) -> HeldOut:
    run.plant(spreads)
    maps = [np.load(run.maps(name)) for name in NAMES]
    return held_out(NAMES, maps, [(target, None) for target in run.targets()], run.task)


def choose(held: HeldOut, milliseconds: dict[str, float] | None = None, **options: Any) -> dict[str, float]:
    """Weights of the selected candidates by name."""
    weights = select_weights(held, Options(**options), NAMES, held.task.objective(), milliseconds or {})
    return {name: weight for name, weight in zip(NAMES, weights, strict=True) if weight}


def test_a_fitted_rule_is_compared_with_the_mean_image_by_image(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fitted rule that equals the mean has no gain on any image."""
    held = planted(fresh("segmentation"), (FAIR, GOOD, BAD))
    monkeypatch.setitem(COMBINE, "fitted mean", replace(COMBINE["mean"], fit=lambda images, weights, task: {}))
    monkeypatch.setattr("densemble.selection.choose.rules_for", lambda task: ["fitted mean"])
    compared: list[tuple[Tensor, Tensor]] = []

    def gain(rows: Tensor, mean: Tensor, objective: Objective, seed: int) -> ConfidenceInterval:
        compared.append((rows, mean))
        return ConfidenceInterval(0.0, 0.0, 0.0)

    monkeypatch.setattr("densemble.selection.choose.bootstrap_gain", gain)
    combination = Combination(held.task, dict.fromkeys(NAMES, 1.0))
    assert best_rule(held, combination, held.task.objective()) == "mean"
    ((rows, mean),) = compared
    assert len(rows) == IMAGES and torch.equal(rows, mean)


def test_strategies_select_the_expected_members(fresh: Fresh) -> None:
    run = fresh("segmentation")
    held = planted(run, (FAIR, GOOD, BAD))
    assert choose(held, select="best") == {"two": 1.0}
    assert choose(held, select="all") == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    assert choose(held, select="three, one") == {"one": 0.5, "three": 0.5}
    assert choose(held, select="three,one", weights=(1, 3)) == {"one": 0.75, "three": 0.25}
    assert choose(held, select="all", weights=(2, 1, 1)) == {"one": 0.5, "two": 0.25, "three": 0.25}
    assert choose(held, select="all", weights=(2, 0, 2)) == {"one": 0.5, "three": 0.5}
    subsets = [subset for count in (1, 2, 3) for subset in combinations(NAMES, count)]
    scores = {subset: score(run, dict.fromkeys(subset, 1.0)) for subset in subsets}
    assert set(choose(held, select="exhaustive")) == set(max(scores, key=lambda subset: scores[subset]))
    assert score(run, choose(held, select="greedy")) >= max(scores.values()) - 1e-6
    ensemble = run.run.assemble("three,two", weights=[1, 3])
    assert ensemble.weights == {"two": 0.75, "three": 0.25}
    assert read_json(run.path / "ensemble.json")["weights"] == {"one": 0.0, "two": 0.75, "three": 0.25}


def test_strategies_ignore_candidates_below_the_baselines(fresh: Fresh) -> None:
    run = fresh("segmentation")
    held = planted(run, (FAIR, GOOD, BAD))
    objective = run.task.objective()
    # Hits and unions of one class: IoU of the three candidates 0.5, 0.2, 0.4 on image 7, and 0.1, 0.9, 0.1 on image 9.
    rows = torch.tensor([[[5.0, 10], [1, 10]], [[2, 10], [9, 10]], [[4, 10], [1, 10]]])
    beaten, unbeaten = (torch.tensor([[[value, 10.0], [0, 10]]]) for value in (3.0, 6.0))
    eligible = BaselineFilter(NAMES, rows, torch.cat([beaten, beaten / 3]), {7: 0, 9: 1}, objective).eligible([7])
    assert eligible == ["one", "three"]
    assert BaselineFilter(NAMES, rows, unbeaten, {7: 0, 9: 1}, objective).eligible([7]) == list(NAMES)
    assert BaselineFilter(NAMES, rows, unbeaten, {7: 0, 9: 1}, objective).eligible([9]) == list(NAMES)
    assert BaselineFilter(NAMES, rows, beaten.flip(1) / 2, {7: 0, 9: 1}, objective).eligible([9]) == ["two"]
    assert select_weights(held, Options(select="best"), eligible, objective, {})[1] == 0
    assert select_weights(held, Options(select="two"), eligible, objective, {}) == [0, 1, 0]
    assert select_weights(held, Options(select="all"), eligible, objective, {})[1] > 0


@pytest.mark.parametrize(
    ("select", "weights", "message"),
    [
        ("one,four", None, "no trained member is named 'four'; there are: one, two, three"),
        ("gredy", None, "no trained member is named 'gredy'.*or select greedy"),
        ("one,two", (1,), "1 weights for 2 members"),
        ("all", (1, 2), "2 weights for 3 members"),
        ("all", (0, 0, 0), "not all 0"),
        ("all", (1, -1, 1), ">= 0"),
        ("all", (1, float("nan"), 1), "finite"),
    ],
)
def test_wrong_names_and_weights(select: str, weights: tuple[float, ...] | None, message: str, fresh: Fresh) -> None:
    with pytest.raises(UsageError, match=message):
        choose(planted(fresh("depth"), (GOOD, FAIR, BAD)), select=select, weights=weights)


@pytest.mark.slow
def test_a_budget_is_respected(fresh: Fresh) -> None:
    run = fresh("segmentation")
    held = planted(run, (GOOD, FAIR, FAIR))
    costs = {"one": 10.0, "two": 1.0, "three": 2.0}
    assert "one" in choose(held, costs, budget=100)
    assert set(choose(held, costs, budget=5)) <= {"two", "three"}
    assert choose(held, costs, budget=1.5) == {"two": 1.0}
    with pytest.raises(UsageError, match=r"no candidate runs within 0.5 ms; the fastest, 'two', needs 1 ms"):
        choose(held, costs, budget=0.5)
    machine = f"{platform.node()}, {torch.get_num_threads()} threads, 48x64"
    write_json(run.run.folder.milliseconds, {"machine": machine, "rounds": 7, "milliseconds": costs})
    cheap = run.run.assemble(budget=5)
    spent = read_json(run.path / "ensemble.json")["milliseconds"]
    assert spent == sum(costs[name] for name in cheap.members) <= 5
    front = analysis(run)["pareto"]
    assert [row["milliseconds"] for row in front] == sorted(row["milliseconds"] for row in front)
    assert all(row["milliseconds"] == sum(costs[name] for name in row["members"]) for row in front)


@pytest.mark.parametrize(
    ("kind", "weighing"),
    [
        pytest.param("segmentation", {"stacking", "class_weights"}, marks=pytest.mark.slow),
        ("depth", {"stacking", "inverse_variance"}),
    ],
)
def test_auto_selects_a_weighing_rule_if_two_of_three_members_are_bad(
    kind: str, weighing: set[str], fresh: Fresh
) -> None:
    run, lines = fresh(kind), []
    run.plant([GOOD / 4, BAD, BAD])
    ensemble = run.run.assemble("all", "auto", report=lines.append)
    assert ensemble.combine in weighing and f"combined by: {ensemble.combine}" in lines
    values = analysis(run)
    assert values["chosen"]["combine"] == ensemble.combine
    assert {row["name"] for row in values["rules"]} >= {"mean", "median", "trimmed", *weighing}
    # The mean of the planted maps by hand, and the good member alone.
    sign = 1 if values["higher_is_better"] else -1
    mean, alone = score(run, dict.fromkeys(NAMES, 1.0)), score(run, {"one": 1.0})
    result = ensemble.metrics["val"][run.task.primary]
    assert sign * (result - mean) > 0.5 * sign * (alone - mean) > 0


@pytest.mark.slow
def test_auto_keeps_the_mean_if_no_rule_can_gain(fresh: Fresh) -> None:
    run = fresh("segmentation")
    run.plant([0.0, 0.0, 0.0])  # all members are equal, so that every rule without fitted parameters gives their map
    ensemble = run.run.assemble("all", "auto", calibrate="none")
    assert ensemble.combine == "mean"
    gains = {row["name"]: row["gain_over_mean"]["value"] for row in analysis(run)["rules"]}
    assert {name: gains[name] for name in ("logits", "median", "trimmed", "vote")} == pytest.approx(
        dict.fromkeys(("logits", "median", "trimmed", "vote"), 0.0), abs=1e-9
    )
    run.plant([GOOD, GOOD, GOOD])
    alone = run.run.assemble("one", "auto")
    assert alone.combine == "mean" and not analysis(run)["rules"]


def crossed_loss(run: Written, maps: Tensor, method: str) -> float:
    """Mean NLL of maps; each half is calibrated on the other half, by brute force."""
    logs = maps.double().clamp(min=1e-12).log()
    labels = torch.stack(run.targets()).long()
    total, count = 0.0, 0
    for seen, unseen in ((slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 4))):
        scale = torch.ones(3 if method == "vector" else 1, dtype=torch.float64)
        bias = torch.zeros(3, dtype=torch.float64)
        learnt = [scale, bias] if method == "vector" else [scale]

        def loss(part: slice, scale: Tensor = scale, bias: Tensor = bias) -> Tensor:
            scores = logs[part] * scale.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
            return torch.nn.functional.cross_entropy(scores, labels[part], ignore_index=255)

        descend(learnt, lambda loss=loss, seen=seen: loss(seen))
        known = int((labels[unseen] != 255).sum())
        total, count = total + float(loss(unseen).detach()) * known, count + known
    return total / count


def descend(learnt: list[Tensor], loss: Callable[[], Tensor]) -> None:
    optimizer = torch.optim.LBFGS(learnt, max_iter=200, line_search_fn="strong_wolfe")
    for tensor in learnt:
        tensor.requires_grad_()

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(step)


@pytest.mark.parametrize(
    ("tilt", "method"), [pytest.param(0.0, "temperature", marks=pytest.mark.slow), (2.0, "vector")]
)
def test_auto_selects_the_calibration_with_the_best_held_out_likelihood(tilt: float, method: str, fresh: Fresh) -> None:
    run = fresh("segmentation")
    random = np.random.default_rng(0)
    maps = torch.stack([noisy(run.task, target, GOOD, random) for target in run.targets()])
    # Twice the logarithm and how often a class occurs is how likely it is, given two and such noise (Bayes).
    counts = torch.bincount(torch.stack(run.targets()).flatten().long(), minlength=3)[:3].float()
    likely = 2 * maps.log() + (counts / counts.sum()).log()[:, None, None]
    tilted = torch.softmax(0.7 * likely + torch.tensor([0.0, tilt, -tilt])[:, None, None], 1)
    small = torch.nn.functional.adaptive_avg_pool2d(tilted, (12, 16))
    for name in NAMES:  # all members of a run serve maps of one size
        run.plant_maps(name, small.half().numpy(), tilted.numpy())
    losses = {each: crossed_loss(run, tilted, each) for each in ("temperature", "vector")}
    assert min(losses, key=lambda each: losses[each]) == method, losses
    ensemble = run.run.assemble("one", calibrate="auto")
    if method == "temperature":  # the temperature of the member already calibrates it
        calibration = ensemble.calibration or Temperature(1.0, "categorical")
        assert isinstance(calibration, Temperature) and calibration.value == pytest.approx(1, abs=0.01)
    else:
        assert isinstance(ensemble.calibration, VectorScaling)
    assert analysis(run)["calibration"]["after"]["nll"] == pytest.approx(losses[method], abs=2e-3)


@pytest.mark.slow
def test_the_requested_calibration_is_used(fresh: Fresh) -> None:
    run = fresh("segmentation")
    run.plant([GOOD, FAIR, BAD])
    plain = run.run.assemble("all", calibrate="none")
    assert plain.calibration is None and set(plain.temperatures.values()) == {1.0}
    ensemble = run.run.assemble("all", calibrate="vector")
    assert ensemble.calibration is not None and ensemble.calibration.describe()["kind"] == "vector"
    assert set(ensemble.temperatures.values()) != {1.0}
    assert ensemble.metrics["val"]["nll"] < plain.metrics["val"]["nll"]
    assert read_json(run.path / "ensemble.json")["calibration"] == ensemble.calibration.describe()


def test_guarantee_images_are_used_by_no_other_fit(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fresh("segmentation")
    run.plant([GOOD, FAIR, FAIR])
    seen: list[tuple[int, ...]] = []

    def spy(held: HeldOut, combination: Combination, options: Any) -> Any:
        seen.append(held.images)
        return fit_guarantee(held, combination, options)

    fit_guarantee = assembling.fit_guarantee
    monkeypatch.setattr(assembling, "fit_guarantee", spy)
    options = {"combine": "auto", "guarantee": "set", "level": 0.25}
    first = run.run.assemble(**options)
    before = read_json(run.path / "ensemble.json")
    (unseen,) = seen
    assert len(unseen) == IMAGES // 2 == before["guarantee"]["pictures"]
    assert isinstance(first.guarantee, ConformalSet) and first.guarantee.miscoverage == 0.25
    # Other predictions of those images change the guarantee, and nothing else that was chosen or fitted.
    for number, name in enumerate(NAMES):
        maps = np.load(run.maps(name))
        for image in unseen:
            maps[image] = np.roll(maps[image], number + 1, axis=0)
        run.plant_maps(name, maps)
    second = run.run.assemble(**options)
    after = read_json(run.path / "ensemble.json")
    for key in ("weights", "combine", "temperatures", "calibration", "milliseconds"):
        assert after[key] == before[key], key
    assert all(torch.equal(first.fitted[key], second.fitted[key]) for key in first.fitted)
    assert after["guarantee"]["threshold"] < before["guarantee"]["threshold"]
    assert unseen == (1, 3, 5, 7)


@pytest.mark.parametrize(
    ("kind", "guarantee", "known"),
    [
        ("segmentation", "risk", "risk_control"),
        pytest.param("multilabel", "risk", "risk_control", marks=pytest.mark.slow),
        pytest.param("depth", "interval", "conformal_interval", marks=pytest.mark.slow),
    ],
)
def test_other_guarantees(kind: str, guarantee: str, known: str, fresh: Fresh) -> None:
    run = fresh(kind)
    run.plant([GOOD, FAIR, FAIR])
    ensemble = run.run.assemble("all", guarantee=guarantee, level=0.6, confidence=0.8)
    assert ensemble.guarantee is not None
    described = ensemble.guarantee.describe()
    assert described["kind"] == known and described["pictures"] == IMAGES // 2
    reported = analysis(run)["guarantee"]
    assert read_json(run.path / "ensemble.json")["guarantee"] == described
    assert reported.items() >= described.items()
    # Fitted again on each half of its images and measured on the other half.
    assert 0 <= reported["low"] <= reported["coverage"] <= reported["high"] <= 1
    assert reported["promised"] == pytest.approx(0.4) and reported["checked_on"] == IMAGES // 2
    with pytest.raises(DataError, match="at least"):
        run.run.assemble("all", guarantee=guarantee, level=0.01)


def test_saliency_can_be_selected_by_fixations(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fresh("saliency")
    run.plant([BAD, FAIR, GOOD])
    worth = {}
    for name in NAMES:
        metric = run.task.metrics()
        for own, sample in zip(np.load(run.maps(name)), run.data.val, strict=True):
            big = torch.nn.functional.interpolate(torch.from_numpy(own)[None].float(), (48, 64), mode="bilinear")
            target = torch.from_numpy(np.array(run.data.read_pair(sample)[1]))
            metric.update(big[0], target, torch.from_numpy(run.data.read_points(sample)))
        worth[name] = float(metric.compute()["nss"])
    ensemble = run.run.assemble("best", metric="nss")
    assert list(ensemble.members) == [max(worth, key=lambda name: worth[name])] == ["three"]
    assert ensemble.metrics["val"]["nss"] == pytest.approx(worth["three"], abs=1e-3)
    values = analysis(run)
    assert values["metric"] == "nss" and values["strategies"] and (run.path / "report.html").is_file()
    monkeypatch.setattr(FolderData, "read_points", lambda self, sample: None)
    with pytest.raises(DataError, match="'nss' is undefined on the 8 held-out images"):
        run.run.assemble("best", metric="nss")
