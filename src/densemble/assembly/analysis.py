"""The analysis of an assembly as plain values: what the report and the leaderboard are made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from densemble.assembly.candidates import Candidate, Dropped
from densemble.assembly.choosing import RuleScore
from densemble.heldout.choose import Trade
from densemble.heldout.explain import class_scores, disputed, error_correlation, leave_one_out
from densemble.heldout.gain import Interval, Outcome
from densemble.heldout.predictions import HeldOut
from densemble.storage.runs import MemberFolder
from densemble.tasks import MultilabelTask, SegmentationTask, Task
from densemble.tasks.objectives import Objective
from densemble.training.callbacks import read_rows


def heading(run: str, task: Task, objective: Objective, held: HeldOut) -> dict[str, Any]:
    """What the analysis is about."""
    height, width = held.size
    return {
        "run": run,
        "made": datetime.now(UTC).strftime("%Y-%m-%d"),
        "task": task.name,
        "metric": objective.name,
        "higher_is_better": objective.higher_is_better,
        "pictures": len(held),
        "map_size": [height, width],
    }


def interval(value: Interval) -> dict[str, float | None]:
    """An interval as plain values."""
    return {key: _number(number) for key, number in value._asdict().items()}


def strategy_row(name: str, outcome: Outcome) -> dict[str, Any]:
    """One way of choosing, scored on pictures that it was not chosen by."""
    score = interval(outcome.score)
    return {
        "name": name, "score": score["value"], "low": score["low"], "high": score["high"],
        "members": round(outcome.members, 1), "milliseconds": outcome.milliseconds,
        "gain_over_best": interval(outcome.over_best), "gain_over_all": interval(outcome.over_all),
    }  # fmt: skip


def rule_row(name: str, rule: RuleScore) -> dict[str, Any]:
    """One rule; those that learn are scored where they did not."""
    score = interval(rule.score)
    others = {key: _number(value) for key, value in rule.others.items()}
    gain = interval(rule.over_mean)
    return {
        "name": name, "score": score["value"], "low": score["low"], "high": score["high"], "gain_over_mean": gain,
        **others,
    }  # fmt: skip


def member_rows(
    candidates: Sequence[Candidate], held: HeldOut, weights: Sequence[float], objective: Objective,
    milliseconds: Mapping[str, float],
) -> list[dict[str, Any]]:  # fmt: skip
    """Every candidate: score, cost, share, and what the ensemble loses without it."""
    costs = [milliseconds[name] for name in held.names]
    worth = {one.name: one for one in leave_one_out(held, weights, objective, costs)}
    share = dict(zip(held.names, weights, strict=True))
    return [
        {
            "name": candidate.name,
            "kind": candidate.kind,
            "score": _number(candidate.val.get(objective.name)),
            "milliseconds": milliseconds[candidate.name],
            "parameters": candidate.record.get("parameters"),
            "share": share[candidate.name],
            "leave_one_out": _number(worth[candidate.name].gain) if candidate.name in worth else None,
            "state": "done",
        }
        for candidate in candidates
    ]


def baseline_rows(baselines: Mapping[str, Mapping[str, Any]], objective: Objective) -> list[dict[str, Any]]:
    """What needs no training."""
    return [{"name": name, "score": _number(scores.get(objective.name))} for name, scores in baselines.items()]


def explanation(held: HeldOut, weights: Sequence[float], objective: Objective, stems: Sequence[str]) -> dict[str, Any]:
    """Who errs with whom, who helps on which class, and where the members disagree."""
    matrix = error_correlation(held)
    found: dict[str, Any] = {
        "error_correlation": {
            "names": list(held.names),
            "matrix": [[_number(value) for value in row] for row in matrix.tolist()],
        }
    }
    if isinstance(held.task, SegmentationTask | MultilabelTask):
        scores = class_scores(held, weights)
        rows = {**scores.members, "ensemble": scores.ensemble}
        found["per_class"] = {
            "classes": list(scores.classes),
            "scores": {name: [_number(value) for value in row] for name, row in rows.items()},
        }
    found["disagreement"] = [
        {"picture": stems[one.picture], "number": one.picture, "score": _number(one.score),
         "disagreement": _number(one.disagreement)}
        for one in disputed(held, weights, objective)
    ]  # fmt: skip
    return found


def trade_rows(trades: Sequence[Trade]) -> list[dict[str, Any]]:
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


def _number(value: Any) -> float | None:
    """A number that strict JSON can hold."""
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
