"""Selection of candidates with weights, by a strategy or by name, and selection of the combination rule."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE, rule_row, rules_for
from densemble.errors import UsageError, unknown_name
from densemble.evaluation.bootstrap import bootstrap_gain
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.options import Options
from densemble.selection.strategies import SELECT, greedy_by_cost


def select_weights(
    held: HeldOut,
    options: Options,
    eligible: Sequence[str],
    objective: Objective,
    milliseconds: Mapping[str, float],
) -> list[float]:
    """Select candidates and return one weight per candidate, 0 for those that are not selected.

    Args:
        held: held-out predictions to select by.
        options: options of the assembly.
        eligible: candidates that a strategy may select.
        objective: objective of the selection.
        milliseconds: time of each candidate by name, for a budget.
    """
    if options.named or options.weights is not None or options.select == "all":
        return named_weights(options, held.names)
    pool = held.of([name for name in held.names if name in eligible])
    if options.budget is not None:
        costs = [milliseconds[name] for name in pool.names]
        selection = greedy_by_cost(pool, objective, costs, options.budget)
    else:
        selection = SELECT[options.select](pool, objective)
    weights = dict(zip(pool.names, selection.weights, strict=True))
    return [weights.get(name, 0.0) for name in held.names]


def named_weights(options: Options, names: Sequence[str]) -> list[float]:
    """Return one weight per candidate, with a sum of 1, for candidates that are selected by name or all together.

    Args:
        options: options of the assembly, with names or ``all`` in ``select``.
        names: names of all candidates.

    Raises:
        UsageError: a name that is not the name of a candidate, or invalid weights.
    """
    requested = options.named or tuple(names)
    missing = [name for name in requested if name not in names]
    if missing:
        raise UsageError(f"{unknown_name('trained member', missing[0], names)}; or select {', '.join(SELECT)}")
    weights = list(options.weights) if options.weights is not None else [1.0] * len(requested)
    if len(weights) != len(requested):
        raise UsageError(f"{len(weights)} weights for {len(requested)} members; give one each")
    if any(not math.isfinite(weight) or weight < 0 for weight in weights) or not sum(weights):
        raise UsageError(f"weights {weights} must be >= 0, finite and not all 0")
    total = sum(weights)
    return [weights[requested.index(name)] / total if name in requested else 0.0 for name in names]


def mean_of(held: HeldOut, weights: Sequence[float]) -> tuple[HeldOut, Combination]:
    """Return the candidates with a weight above 0, and their weighted mean."""
    selected = {name: weight for name, weight in zip(held.names, weights, strict=True) if weight > 0}
    return held.of(list(selected)), Combination(held.task, selected)


def fit_rule(held: HeldOut, combination: Combination, rule: str) -> Combination:
    """Change the rule of a combination; a rule with fitted parameters is fitted on ``held``."""
    fit = rule_row(rule).fit
    if fit is None:
        return replace(combination, rule=rule, fitted={})
    shares = list(combination.weights.values())
    fitted = fit(lambda: ((maps, target) for maps, (target, _) in held), shares, held.task)
    return replace(combination, rule=rule, fitted=fitted)


def crossed_halves(held: HeldOut) -> list[tuple[list[int], list[int]]]:
    """Return two pairs of images to fit on and images to measure on: the halves of the images with a known target.

    The halves are contiguous, because neighbouring images, such as video frames, must stay together. The list is empty
    if fewer than two images have a known target.
    """
    known = [image for image in held.images if held.task.as_maps(held.targets[image][0])[1].any()]
    middle = len(known) // 2
    first, second = known[:middle], known[middle:]
    return [(first, second), (second, first)] if first else []


def best_rule(
    held: HeldOut, combination: Combination, objective: Objective, seed: int = 0, measured: HeldOut | None = None
) -> str:
    """Return the best rule with a certain gain over the mean, else the mean.

    A gain is certain if its confidence interval lies above 0. A rule with fitted parameters is fitted on one half of
    the images and scored on the other.

    Args:
        held: maps of the members, to fit the rules on.
        combination: combination of the members.
        objective: objective of the score.
        seed: seed of the intervals.
        measured: maps of the same candidates and images to score; default: ``held``.
    """
    crossed = crossed_halves(held)
    # The order of the fitted rules, so that the bootstrap pairs the same images.
    images = [image for _, unseen in crossed for image in unseen] or list(held.images)
    scored = (held if measured is None else measured.of(held.names)).only(images)
    (mean,) = combined_statistics([(scored, fit_rule(held, combination, "mean"))], [objective])
    scores = {}
    for name in rules_for(held.task):
        if COMBINE[name].fit is None:
            parts = [(scored, fit_rule(held, combination, name))]
        elif crossed:
            parts = [(scored.only(unseen), fit_rule(held.only(seen), combination, name)) for seen, unseen in crossed]
        else:
            continue
        (rows,) = combined_statistics(parts, [objective])
        if bootstrap_gain(rows, mean, objective, seed=seed).low > 0:
            scores[name] = float(objective.signed(rows.sum(0)))
    return max(scores, key=lambda name: scores[name], default="mean")


def combined_statistics(parts: Sequence[tuple[HeldOut, Combination]], objectives: Sequence[Objective]) -> list[Tensor]:
    """Compute the statistics ``(N, S)`` of the combined maps of all images for each objective, in one pass."""
    rows: list[list[Tensor]] = [[] for _ in objectives]
    for held, combination in parts:
        for maps, target in held:
            combined = combination.combine(maps[:, None])
            for objective_rows, objective in zip(rows, objectives, strict=True):
                objective_rows.append(measure(combined, target, held.task, objective))
    return [torch.cat(objective_rows) for objective_rows in rows]
