"""Report, leaderboard and ``evaluate`` of one artifact give the same numbers on the same images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sampled import sampled
from selection.written_runs import NAMES, Written

from densemble.evaluation.scores import evaluate
from densemble.selection import assemble as assembling
from densemble.storage.artifact import load, save
from densemble.storage.runs import read_json

CASES = [
    *[("segmentation", rule, method) for rule in ("mean", "vote", "stacking") for method in ("temperature", "vector")],
    ("multilabel", "mean", "vector"),
    ("multilabel", "vote", "temperature"),
    ("depth", "mean", "variance"),
    ("saliency", "stacking", "none"),
]


@pytest.mark.parametrize(
    ("kind", "rule", "method"),
    sampled(CASES, [("segmentation", "stacking", "vector")]),
)
def test_report_leaderboard_and_evaluate_agree(
    kind: str, rule: str, method: str, fresh: Callable[[str], Written], tmp_path: Path
) -> None:
    run, path = fresh(kind), tmp_path / "e.safetensors"
    save(run.run.assemble("all", rule, calibrate=method), path)
    ensemble = load(path)
    assert ensemble.combine == rule
    # In this process: with another number of threads sums are rounded otherwise, which may decide an even pixel.
    measured = evaluate(ensemble, run.data, "val")
    row = run.run.leaderboard().loc["ensemble (all)" if rule == "mean" else f"ensemble (all, {rule})"]
    analysis = read_json(run.path / "analysis.json")
    numbers = {name: value for name, value in measured.items() if isinstance(value, float)}
    assert len(numbers) >= 3
    for name, value in numbers.items():
        assert row[name] == pytest.approx(value, abs=1e-6), name
        assert analysis["chosen"]["val"][name] == pytest.approx(value, abs=1e-6), name
    if "per_class" in analysis:
        table = analysis["per_class"]["scores"]
        expected = {"ensemble": measured, **measured["members"]}
        for name, scores in expected.items():
            found, exact = (np.array(own, float) for own in (table[name], scores["iou_per_class"]))
            np.testing.assert_allclose(found, exact, atol=1e-6, err_msg=name)
        assert set(table) == {*NAMES, "ensemble", "ensemble, cross-fitted"}


def test_scores_agree_on_images_outside_the_selection(
    fresh: Callable[[str], Written], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, lines = fresh("segmentation"), list[str]()
    monkeypatch.setattr(assembling, "MAX_IMAGES", 5)
    ensemble = run.run.assemble("all", "mean", calibrate="vector", report=lines.append)
    assert any(line == f"selected on 5 of {len(run.data.val)} validation images" for line in lines)
    measured = evaluate(ensemble, run.data, "val")
    assert ensemble.metrics["val"]["miou"] == pytest.approx(measured["miou"], abs=1e-6)
    assert ensemble.metrics["val"]["nll"] == pytest.approx(measured["nll"], abs=1e-6)


def test_gain_is_the_sum_of_its_parts_and_equals_the_strategy(fresh: Callable[[str], Written]) -> None:
    run = fresh("segmentation")
    run.plant([1.0, 1.5, 6.0])
    run.run.assemble("all", "vote", calibrate="vector")
    analysis = read_json(run.path / "analysis.json")
    crossed = analysis["cross_fitted"]
    total, selection, calibration = (crossed["gain"][name]["value"] for name in ("total", "selection", "calibration"))
    assert total == pytest.approx(selection + calibration)
    row = next(row for row in analysis["strategies"] if row["name"] == "all")
    assert row["score"] == pytest.approx(crossed["score"]["value"])
    assert crossed["scores"]["miou"] == pytest.approx(crossed["score"]["value"], abs=1e-6)
    board = run.run.leaderboard()
    assert row["gain_over_best"] == crossed["gain"]["total"]
    assert board.loc["ensemble (all, vote), cross-fitted", "miou"] == pytest.approx(crossed["score"]["value"], abs=1e-6)
    # The reference is one existing member on all images, and not the best one of each fold.
    assert crossed["best_member"] == "one"
    alone = run.run.assemble("one", calibrate="none").metrics["val"]["miou"]
    assert total == pytest.approx(crossed["score"]["value"] - alone, abs=1e-6)


def test_a_fold_is_not_used_in_its_fit(fresh: Callable[[str], Written]) -> None:
    """Other predictions of a fold's images do not change the selection and the fits for that fold."""
    from densemble.selection import cross_fit as module

    seen: list[tuple[Any, ...]] = []
    run = fresh("segmentation")
    run.plant([1.0, 1.2, 1.4])

    def record(result: Any, fits: Any, requested: str, *held: Any) -> None:
        fitted = fits[requested]
        combination = fitted.combination
        seen.append((fitted.weights, fitted.held.temperatures, combination.rule, combination.calibration.describe()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_measure", record)
        patch.setattr(module, "CrossFit", module.CrossFit)
        for change in (False, True):
            if change:
                for name in NAMES:  # the second fold's predictions
                    maps = np.load(run.maps(name))
                    maps[4:] = np.roll(maps[4:], 1, axis=1)
                    run.plant_maps(name, maps)
            with pytest.raises(KeyError):  # nothing was measured
                run.run.assemble("greedy", "auto", calibrate="vector")
    first, second, changed_first, changed_second = seen
    assert changed_second == second and changed_first != first
