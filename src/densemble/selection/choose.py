"""Choosing: candidates and shares by a strategy or by name, and the rule that joins them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import COMBINE, rules_for
from densemble.errors import UsageError
from densemble.evaluation.bootstrap import ConfidenceInterval, bootstrap, bootstrap_gain
from densemble.metrics import Objective
from densemble.selection.candidate_scores import measure
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.options import AUTOMATIC, Options
from densemble.selection.strategies import SELECT, greedy_by_cost
from densemble.tasks import Task

Choice = Callable[[HeldOut], Sequence[float]]
"""Held-out predictions to choose by -> a weight per candidate."""
HONESTY = ("nll", "ece")
"""Metrics of probabilities that are told of every rule."""


def make_choice(
    options: Options, able: Sequence[str], objective: Objective, milliseconds: Mapping[str, float]
) -> Callable[[HeldOut], list[float]]:
    """What the options ask for, as a function of the images to choose by.

    Args:
        options: of the assembly.
        able: candidates among which a strategy chooses.
        objective: that is chosen by.
        milliseconds: by name, for a budget.
    """

    def choose(held: HeldOut) -> list[float]:
        if options.named or options.weights is not None or options.select == "all":
            return _named(options, held.names)
        among = held.of([name for name in held.names if name in able])
        if options.budget is not None:
            costs = [milliseconds[name] for name in among.names]
            found = greedy_by_cost(among, objective, costs, options.budget)
        else:
            found = SELECT[options.select](among, objective)
        own = dict(zip(among.names, found.weights, strict=True))
        return [own.get(name, 0.0) for name in held.names]

    return choose


def require_members(options: Options, names: Sequence[str]) -> None:
    """Checks members that are named one by one, and their weights.

    Raises:
        UsageError: a name that is not there, or weights that do not fit.
    """
    if options.named or options.weights is not None:
        _named(options, names)


def _named(options: Options, names: Sequence[str]) -> list[float]:
    wanted = options.named or tuple(names)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UsageError(
            f"no trained member is named '{missing[0]}'; there are: {', '.join(names)}; or select {', '.join(SELECT)}"
        )
    given = list(options.weights) if options.weights is not None else [1.0] * len(wanted)
    if len(given) != len(wanted):
        raise UsageError(f"{len(given)} weights for {len(wanted)} members; give one each")
    if any(not math.isfinite(weight) or weight < 0 for weight in given) or not sum(given):
        raise UsageError(f"weights {given} must be >= 0, finite and not all 0")
    total = sum(given)
    return [given[wanted.index(name)] / total if name in wanted else 0.0 for name in names]


def mean_of(held: HeldOut, weights: Sequence[float]) -> tuple[HeldOut, Combination]:
    """The candidates with a weight above 0, and their weighted mean."""
    chosen = {name: weight for name, weight in zip(held.names, weights, strict=True) if weight > 0}
    return held.of(list(chosen)), Combination(held.task, chosen)


def fit_rule(held: HeldOut, combination: Combination, rule: str) -> Combination:
    """The same members and calibration under another rule, fitted on ``held`` if it is one that learns."""
    fit = COMBINE[rule].fit
    if fit is None:
        return replace(combination, rule=rule, fitted={})
    shares = list(combination.weights.values())
    fitted = fit(lambda: ((maps, target) for maps, (target, _) in held), shares, held.task)
    return replace(combination, rule=rule, fitted=fitted)


def halves(held: HeldOut) -> tuple[list[int], list[int]]:
    """First and second half of the images of which something is known, in their order: neighbours, such as frames of
    a film, stay together. The first is empty where there are fewer than two."""
    known = [number for number in held.images if held.task.as_maps(held.targets[number][0])[1].any()]
    middle = len(known) // 2
    return known[:middle], known[middle:]


@dataclass(frozen=True)
class RuleScore:
    """What a rule scores.

    Attributes:
        score: by the metric that is chosen by, with its interval.
        over_mean: gain over the mean on the same images; above 0 is better, whatever the direction of the metric.
        others: further metrics of the same maps, by name.
    """

    score: ConfidenceInterval
    over_mean: ConfidenceInterval
    others: dict[str, float]


def score_rules(
    held: HeldOut, combination: Combination, objective: Objective, seed: int = 0, measured: HeldOut | None = None
) -> dict[str, RuleScore]:
    """Every rule that suits the task; one that learns is scored on each half as fitted on the other half.

    Args:
        held: the members' maps that rules are fitted on.
        combination: of the members.
        objective: that is scored by.
        seed: of the intervals.
        measured: maps of the same candidates and images that are scored; default ``held``.
    """
    first, second = halves(held)
    task = held.task
    others = further_objectives(task)
    images = [*first, *second] if first and second else list(held.images)
    scored = held if measured is None else measured.of(held.names)

    found = {}
    mean = combined_statistics([(scored.only(images), fit_rule(held, combination, "mean"))], [objective])[0]
    for name in rules_for(task):
        if COMBINE[name].fit is None:
            parts = [(scored.only(images), fit_rule(held, combination, name))]
        elif first and second:
            crossed = ((first, second), (second, first))
            parts = [(scored.only(unseen), fit_rule(held.only(seen), combination, name)) for seen, unseen in crossed]
        else:
            continue
        rows, *sums = combined_statistics(parts, [objective, *others])
        values = {one.name: float(one.value(own.sum(0))) for one, own in zip(others, sums, strict=True)}
        gain = bootstrap_gain(rows, mean, objective, seed=seed)
        found[name] = RuleScore(bootstrap(rows, objective, seed=seed), gain, values)
    return found


def further_objectives(task: Task) -> list[Objective]:
    """Metrics of probabilities that are shown for every rule."""
    return [task.objective(name) for name in HONESTY if name in task.metrics().objectives]


def combined_statistics(parts: Sequence[tuple[HeldOut, Combination]], wanted: Sequence[Objective]) -> list[Tensor]:
    """Statistics ``(N, S)`` of the combined maps of all images for each objective, in one pass."""
    rows: list[list[Tensor]] = [[] for _ in wanted]
    for held, combination in parts:
        for maps, truth in held:
            combined = combination.combine(maps[:, None])
            for own, objective in zip(rows, wanted, strict=True):
                own.append(measure(combined, truth, held.task, objective))
    return [torch.cat(own) for own in rows]


def choose_rule(options: Options, rules: Mapping[str, RuleScore], objective: Objective) -> str:
    """The rule that was asked for.

    ``auto`` leaves the mean only for a rule that is surely better: the best of those with a gain whose interval is
    above 0.
    """
    if options.combine != AUTOMATIC:
        return options.combine
    sign = 1 if objective.higher_is_better else -1
    surely = {name: sign * rule.score.value for name, rule in rules.items() if rule.over_mean.low > 0}
    return max(surely, key=lambda name: surely[name]) if surely else "mean"
