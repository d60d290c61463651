"""What a choice gains on pictures that it was not made by, and how sure that is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densemble.errors import UsageError
from densemble.heldout.choose import best, everyone, price
from densemble.heldout.predictions import HeldOut
from densemble.heldout.scores import statistics
from densemble.metrics import Objective

LEVEL = 0.95
RESAMPLES = 2000

Choice = Callable[[HeldOut], Sequence[float]]
"""Pictures to choose by -> a weight per candidate."""


class Interval(NamedTuple):
    """A value between the ends of its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Outcome:
    """What one strategy scored on pictures that it had not seen.

    Attributes:
        score: of all those pictures together.
        over_best: gain over the single candidate that was best on the pictures chosen by; above 0 is better, whatever
            the direction of the metric.
        over_all: gain over the mean of all candidates.
        weights: one per candidate, as chosen each time.
        members: how many candidates run, a mean over the choices.
        milliseconds: of them, a mean over the choices; ``None`` where times are not known.
    """

    score: Interval
    over_best: Interval
    over_all: Interval
    weights: tuple[tuple[float, ...], ...]
    members: float
    milliseconds: float | None


def resample(pictures: int, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """How often each picture is drawn, with replacement, into each sample of as many: float64 ``(resamples, N)``."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.multinomial(pictures, [1 / pictures] * pictures, size=resamples)).double()


def bootstrap(rows: Tensor, objective: Objective, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """A score and its percentile interval over resampled pictures (Efron 1979).

    Args:
        rows: statistics of each picture ``(N, S)``.
        objective: whose statistics they are.
        resamples: number of samples.
        seed: of the samples.
    """
    drawn = objective.value(resample(len(rows), resamples, seed) @ rows)
    return _interval(objective.value(rows.sum(0)), drawn)


def bootstrap_gain(
    new: Tensor, old: Tensor, objective: Objective, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """How much better one mixture is than another, both on the same resampled pictures; above 0 is better.

    Args:
        new: statistics of each picture ``(N, S)``.
        old: of the same pictures.
        objective: whose statistics they are.
        resamples: number of samples.
        seed: of the samples.
    """
    counts = resample(len(new), resamples, seed)
    sign = 1 if objective.higher_is_better else -1
    gains = sign * (objective.value(counts @ new) - objective.value(counts @ old))
    return _interval(sign * (objective.value(new.sum(0)) - objective.value(old.sum(0))), gains)


def halvings(
    held: HeldOut,
    choices: Mapping[str, Choice],
    objective: Objective,
    repeats: int = 5,
    seed: int = 0,
    milliseconds: Sequence[float] | None = None,
) -> list[dict[str, Outcome]]:
    """Scores of strategies that choose on a random half of the pictures, on the other half, once per repeat.

    Args:
        held: candidates and images.
        choices: strategies by name.
        objective: of the task.
        repeats: number of halvings.
        seed: of the halvings, and of the intervals.
        milliseconds: of each candidate.

    Raises:
        UsageError: fewer than 2 pictures.
    """
    if len(held) < 2:
        raise UsageError(f"{len(held)} held-out picture cannot be halved; keep at least 2 for validation")
    random = np.random.default_rng(seed)
    middle = len(held) // 2
    found = []
    for _ in range(repeats):
        order = random.permutation(held.pictures).tolist()
        found.append(_outcomes(held, choices, objective, [(order[:middle], order[middle:])], seed, milliseconds))
    return found


def _outcomes(
    held: HeldOut,
    choices: Mapping[str, Choice],
    objective: Objective,
    splits: Sequence[tuple[list[int], list[int]]],
    seed: int,
    milliseconds: Sequence[float] | None,
) -> dict[str, Outcome]:
    """Of (pictures to choose by, pictures to score) pairs; the last two rows are the best single and all."""
    chosen: list[list[tuple[float, ...]]] = []
    rows = []
    for seen, unseen in splits:
        known = held.only(seen)
        weights = [tuple(float(weight) for weight in choice(known)) for choice in choices.values()]
        weights += [best(known, objective).weights, everyone(known, objective).weights]
        chosen.append(weights)
        rows.append(statistics(held.only(unseen), weights, objective))
    *own, single, every = torch.cat(rows, dim=1)
    found = {}
    for number, (name, mine) in enumerate(zip(choices, own, strict=True)):
        weights = [each[number] for each in chosen]
        costs = None if milliseconds is None else [price(each, milliseconds) for each in weights]
        found[name] = Outcome(
            score=bootstrap(mine, objective, seed=seed),
            over_best=bootstrap_gain(mine, single, objective, seed=seed),
            over_all=bootstrap_gain(mine, every, objective, seed=seed),
            weights=tuple(weights),
            members=float(np.mean([np.count_nonzero(each) for each in weights])),
            milliseconds=None if costs is None else float(np.mean(costs)),
        )
    return found


def _interval(value: Tensor, drawn: Tensor) -> Interval:
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=drawn.dtype)
    low, high = torch.nanquantile(drawn, ends).tolist()
    return Interval(float(value), low, high)
