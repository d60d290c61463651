"""Who helps where: members that err alike, what each is worth, on which classes, and where they disagree."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import RunningUncertainty
from densemble.errors import UsageError
from densemble.heldout.choose import price
from densemble.heldout.predictions import HeldOut
from densemble.heldout.scores import measure, totals
from densemble.tasks import MultilabelTask, SegmentationTask, Task
from densemble.tasks.objectives import Objective, make_objective
from densemble.tasks.objectives.segmentation import class_overlaps

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Worth:
    """What the ensemble loses without a member.

    Attributes:
        name: of the member.
        weight: its share.
        without: score of the others with their weights renormalized; NaN where there are no others.
        gain: how much better the score is with it; above 0 it helps, whatever the direction of the metric.
        milliseconds: of its own; ``None`` where times are not known.
        share: of the milliseconds of all chosen members.
    """

    name: str
    weight: float
    without: float
    gain: float
    milliseconds: float | None
    share: float | None


@dataclass(frozen=True)
class ClassScores:
    """IoU of each class; NaN for a class that occurs nowhere.

    Attributes:
        classes: K names.
        members: rows as wide as K, by the candidate's name.
        ensemble: one row.
    """

    classes: tuple[str, ...]
    members: dict[str, tuple[float, ...]]
    ensemble: tuple[float, ...]


@dataclass(frozen=True)
class Disputed:
    """A picture and how far the members agree about it.

    Attributes:
        picture: its number.
        score: of the ensemble on this picture alone; NaN where it is undefined.
        disagreement: mean over the pixels of the mutual information in nats or, where values are no probabilities, of
            the standard deviation over the members in the target's unit.
    """

    picture: int
    score: float
    disagreement: float


def error_correlation(held: HeldOut) -> Tensor:
    """Pearson's correlation of the candidates' errors over all valid pixels of all pictures.

    The error of a pixel is 0 or 1 where there are classes, else the absolute difference. Members that err at the same
    pixels cannot correct each other.

    Returns:
        float64 ``(M, M)``; NaN beside a candidate whose error is the same everywhere.
    """
    count = len(held.names)
    pixels, sums, products = 0, torch.zeros(count, dtype=torch.float64), torch.zeros(count, count, dtype=torch.float64)
    for maps, (target, _) in held:
        errors = torch.stack([_errors(one, target, held.task) for one in maps])
        pixels += errors.shape[1]
        sums += errors.sum(1)
        products += errors @ errors.T
    covariance = products * pixels - torch.outer(sums, sums)
    squares = products.diagonal() * pixels
    spread = torch.where(covariance.diagonal() > _ROUNDING * squares, covariance.diagonal(), 0.0).sqrt()
    both = torch.outer(spread, spread)
    return torch.where(both > 0, covariance / both, torch.nan)


def leave_one_out(
    held: HeldOut, weights: Sequence[float], objective: Objective, milliseconds: Sequence[float] | None = None
) -> list[Worth]:
    """What each chosen member is worth, the most valuable first.

    Args:
        held: candidates and pictures, best those that were not used to choose.
        weights: one per candidate; those of 0 are not looked at.
        objective: of the task.
        milliseconds: of each candidate.
    """
    chosen = [number for number, weight in enumerate(weights) if weight > 0]
    reduced = [[0.0 if number == left else weight for number, weight in enumerate(weights)] for left in chosen]
    mixtures = [list(weights), *reduced] if len(chosen) > 1 else [list(weights)]
    scores = objective.value(totals(held, mixtures, objective)).tolist()
    whole, others = scores[0], scores[1:] or [torch.nan]
    sign = 1 if objective.higher_is_better else -1
    total, cost = sum(weights), None if milliseconds is None else price(weights, milliseconds)
    found = []
    for number, without in zip(chosen, others, strict=True):
        own = None if milliseconds is None else milliseconds[number]
        share = None if own is None or not cost else own / cost
        gain = sign * (whole - without)
        found.append(Worth(held.names[number], weights[number] / total, without, gain, own, share))
    return sorted(found, key=lambda worth: -worth.gain)


def class_scores(held: HeldOut, weights: Sequence[float]) -> ClassScores:
    """IoU of each class, of every candidate and of the ensemble of them.

    Raises:
        UsageError: the task has no classes.
    """
    task = held.task
    if not isinstance(task, SegmentationTask | MultilabelTask):
        raise UsageError(f"{task.name} has no classes to compare members by; segmentation and multilabel have")
    mixtures = [*torch.eye(len(held.names)).tolist(), list(weights)]
    overlaps = class_overlaps(totals(held, mixtures, make_objective(task, "miou")))
    *members, ensemble = (tuple(row) for row in overlaps.tolist())
    return ClassScores(task.classes, dict(zip(held.names, members, strict=True)), ensemble)


def disputed(held: HeldOut, weights: Sequence[float], objective: Objective) -> list[Disputed]:
    """All pictures, the one that the members disagree about most first.

    Args:
        held: candidates and pictures.
        weights: one per candidate; those of 0 have no say.
        objective: of the task.
    """
    names = [name for name, weight in zip(held.names, weights, strict=True) if weight > 0]
    shares = torch.tensor([weight for weight in weights if weight > 0])
    shares = shares / shares.sum()
    found = []
    for picture, (maps, truth) in zip(held.pictures, held.of(names), strict=True):
        mixture = torch.tensordot(shares, maps, 1)[None]
        score = objective.value(measure(mixture, truth, held.task, objective)[0])
        found.append(Disputed(picture, float(score), _disagreement(maps, shares.tolist(), held.task)))
    return sorted(found, key=lambda one: -one.disagreement)


def _errors(maps: Tensor, target: Tensor, task: Task) -> Tensor:
    """Error of one candidate's maps ``(K, h, w)`` at each valid pixel, float64 ``(N,)``."""
    size = (int(target.shape[-2]), int(target.shape[-1]))
    maps = resize_maps(maps[None], size, task.target_kind == "density")[0]
    wanted, valid = task.as_maps(target)
    if task.target_kind == "labels":
        return (maps.argmax(0) != target.long())[valid[0]].double()
    if task.target_kind == "masks":
        return ((maps >= 0.5) != (wanted >= 0.5))[valid].double()
    return (maps - wanted).abs()[valid.expand_as(wanted)].double()


def _disagreement(maps: Tensor, shares: Sequence[float], task: Task) -> float:
    running = RunningUncertainty(task.distribution)
    for one, share in zip(maps, shares, strict=True):
        running.add(one[None], share)
    information = running.mutual_information()
    return float((running.variance().sqrt() if information is None else information).mean())
