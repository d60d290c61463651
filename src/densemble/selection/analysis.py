"""The analysis of an assembly as plain values: what the report and the leaderboard are made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from densemble.evaluation.bootstrap import ConfidenceInterval, bootstrap, bootstrap_gain
from densemble.evaluation.scores import EnsembleMetrics
from densemble.evaluation.trust import reliability_table
from densemble.metrics import Metric, Objective
from densemble.report.html_page import Values
from densemble.selection.choose import further_objectives
from densemble.selection.cross_fit import CrossFit, ImageResult
from densemble.selection.error_correlation import error_correlation
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.open_candidates import Dropped
from densemble.selection.strategies import ParetoPoint, price
from densemble.selection.variants import Candidate
from densemble.storage.runs import MemberFolder
from densemble.tasks import Task
from densemble.training.callbacks import read_rows

CALIBRATION_METRICS = ("miou", "ece", "classwise_ece", "brier", "nll")
"""Metrics that are shown before and after calibration."""


def heading(run: str, task: Task, objective: Objective, images: int, map_size: Sequence[int]) -> Values:
    """What the analysis is about."""
    return {
        "run": run,
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "task": task.name,
        "metric": objective.name,
        "higher_is_better": objective.higher_is_better,
        "pictures": images,
        "map_size": list(map_size),
    }


def interval(value: ConfidenceInterval) -> dict[str, float | None]:
    """An interval as plain values."""
    return {key: _number(number) for key, number in value._asdict().items()}


def cross_fitted(found: CrossFit, folds: str, seed: int) -> Values:
    """Scores of the ensemble on images that played no part in making it, and what its gain is made of.

    The gain is over the single member that was best on the other folds, uncalibrated. It is the sum of ``selection``
    (members, weights and rule) and ``calibration``.
    """
    objective = found.objective
    whole, uncalibrated, best = found.of("ensemble"), found.of("uncalibrated"), found.of("best member")
    assert found.calibrated is not None
    return {
        "folds": folds,
        "score": interval(bootstrap(whole, objective, seed=seed)),
        "scores": _scalars(found.calibrated.metric),
        "gain": {
            "total": interval(bootstrap_gain(whole, best, objective, seed=seed)),
            "selection": interval(bootstrap_gain(uncalibrated, best, objective, seed=seed)),
            "calibration": interval(bootstrap_gain(whole, uncalibrated, objective, seed=seed)),
        },
    }


def strategy_rows(found: CrossFit, milliseconds: Sequence[float], seed: int) -> list[Values]:
    """Ways of selecting, each followed by the same steps, on images that played no part in them."""
    objective, best, every = found.objective, found.of("best"), found.of("all")
    rows = []
    for name, weights in found.weights.items():
        own = found.of(name)
        score = interval(bootstrap(own, objective, seed=seed))
        rows.append(
            {
                "name": name, "score": score["value"], "low": score["low"], "high": score["high"],
                "members": round(sum(sum(w > 0 for w in each) for each in weights) / len(weights), 1),
                "milliseconds": sum(price(each, milliseconds) for each in weights) / len(weights),
                "gain_over_best": interval(bootstrap_gain(own, best, objective, seed=seed)),
                "gain_over_all": interval(bootstrap_gain(own, every, objective, seed=seed)),
            }
        )  # fmt: skip
    return rows


def rule_rows(found: CrossFit, task: Task, seed: int) -> list[Values]:
    """Rules for the selected members, uncalibrated, on images that neither selection nor rule was fitted on."""
    rows = []
    objective, others = found.objective, further_objectives(task)
    for name, (parts, *sums) in found.rules.items():
        own, mean = torch.cat(parts), torch.cat(found.rules["mean"][0])
        score = interval(bootstrap(own, objective, seed=seed))
        values = {one.name: float(one.value(torch.cat(each).sum(0))) for one, each in zip(others, sums, strict=True)}
        rows.append(
            {
                "name": name, "score": score["value"], "low": score["low"], "high": score["high"],
                "gain_over_mean": interval(bootstrap_gain(own, mean, objective, seed=seed)),
                **{key: _number(value) for key, value in values.items()},
            }
        )  # fmt: skip
    return rows


def member_rows(
    candidates: Sequence[Candidate], shares: Mapping[str, float], objective: Objective,
    milliseconds: Mapping[str, float], found: CrossFit | None,
) -> list[Values]:  # fmt: skip
    """Every candidate: score, cost, share, and what the cross-fitted ensemble loses without it."""
    worth = {} if found is None else leave_one_out(found)
    return [
        {
            "name": candidate.name,
            "kind": candidate.kind,
            "score": _number(candidate.val.get(objective.name)),
            "milliseconds": milliseconds[candidate.name],
            "parameters": candidate.record.get("parameters"),
            "share": shares[candidate.name],
            "leave_one_out": _number(worth.get(candidate.name)),
            "state": "done",
        }
        for candidate in candidates
    ]


def leave_one_out(found: CrossFit) -> dict[str, float]:
    """How much better the cross-fitted ensemble is with a member than without; only those that some fold selected."""
    objective, whole = found.objective, found.of("ensemble")
    sign = 1 if objective.higher_is_better else -1
    worth = {}
    for name, parts in found.without.items():
        rows = torch.cat(parts)
        if len(rows) == len(whole) and not torch.equal(rows, whole):
            worth[name] = sign * float(objective.value(whole.sum(0)) - objective.value(rows.sum(0)))
    return worth


def baseline_rows(baselines: Mapping[str, Mapping[str, Any]], objective: Objective) -> list[Values]:
    """Predictions that need no training."""
    return [{"name": name, "score": _number(scores.get(objective.name))} for name, scores in baselines.items()]


def class_table(
    task: Task, candidates: Sequence[Candidate], selected: Mapping[str, Sequence[float]], saved: Mapping[str, Any],
    found: CrossFit | None,
) -> Values | None:  # fmt: skip
    """IoU of each class.

    Of the file as saved and of its members on all validation images, equal to ``evaluate``; of the other candidates as
    trained; and of the cross-fitted ensemble.
    """
    key = "iou_per_class"
    if key not in saved:
        return None
    scores = {candidate.name: candidate.val[key] for candidate in candidates if candidate.val.get(key)} | dict(selected)
    scores["ensemble"] = saved[key]
    if found is not None and found.calibrated is not None:
        scores["ensemble, cross-fitted"] = found.calibrated.metric.compute()[key]
    return {
        "classes": list(task.classes),
        "scores": {name: [_number(value) for value in row] for name, row in scores.items()},
    }


def correlation(held: HeldOut) -> Values:
    """Which members err together."""
    matrix = error_correlation(held).tolist()
    return {"names": list(held.names), "matrix": [[_number(value) for value in row] for row in matrix]}


def image_rows(images: Sequence[ImageResult], stems: Sequence[str]) -> list[Values]:
    """All images, the one that the members disagree about most first."""
    return [
        {"picture": stems[one.image], "number": one.image, "score": _number(one.score),
         "disagreement": _number(one.disagreement)}
        for one in sorted(images, key=lambda one: -one.disagreement)
    ]  # fmt: skip


def trust_values(found: CrossFit) -> Values:
    """``calibration`` and ``risk_coverage`` of the cross-fitted ensemble, as far as the task has them."""
    if found.plain is None or found.calibrated is None:
        return {}
    before, after = found.plain.trust.compute(), found.calibrated.trust.compute()
    values: Values = {"risk_coverage": {**after["risk_coverage"], "random": after["risk_coverage"]["risk"]}}
    if "interval_coverage" not in after:
        return {**values, "calibration": {"before": _reliability(found.plain), "after": _reliability(found.calibrated)}}
    one, two = before["interval_coverage"], after["interval_coverage"]
    rows = zip(one["levels"], one["coverage"] or [], two["coverage"] or [], strict=False)
    coverage = [{"nominal": level, "before": old, "after": new} for level, old, new in rows]
    return {**values, "calibration": {"coverage": coverage}}


def pareto_rows(trades: Sequence[ParetoPoint]) -> list[Values]:
    """The Pareto front of score against time."""
    return [{**asdict(trade), "members": list(trade.members), "weights": list(trade.weights)} for trade in trades]


def dropped_rows(dropped: Sequence[Dropped]) -> list[dict[str, str]]:
    """Candidates that could not be used."""
    return [asdict(one) for one in dropped]


def training_curves(folders: Mapping[str, MemberFolder]) -> dict[str, list[dict[str, float]]]:
    """Rows of the epochs of each member; a value that an epoch did not have, or that is not finite, is absent."""
    return {
        name: [{key: value for key, value in row.items() if math.isfinite(value)} for row in read_rows(folder.metrics)]
        for name, folder in folders.items()
        if folder.metrics.is_file()
    }


def _reliability(measured: EnsembleMetrics) -> Values:
    values = measured.metric.compute()
    found: Values = {name: values[name] for name in CALIBRATION_METRICS if name in values}
    return {**found, "table": reliability_table(measured.metric)}


def _scalars(metric: Metric) -> dict[str, float | None]:
    return {name: _number(value) for name, value in metric.compute().items() if not isinstance(value, list)}


def _number(value: Any) -> float | None:
    """A number that strict JSON can hold."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
