"""Cascades: members run one after the other, and a picture that is sure enough goes no further.

What tells sure pictures from others is one number per picture and one threshold for all stages: two numbers hardly
overfit a hundred held-out pictures (Wang et al. 2022, "Wisdom of Committees").
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from densemble.ensemble.uncertainty import RunningUncertainty, entropy
from densemble.errors import ArtifactError, UsageError
from densemble.tasks import Distribution, Task

_SMALLEST = 1e-12
"""Errors count as at least this much, so that what is kept of no error at all is a number."""


@dataclass(frozen=True)
class Unsureness:
    """A row of ``UNSURENESS``.

    Attributes:
        map: the combined map ``(B, K, h, w)`` before calibration and the members' running uncertainty -> a map whose
            mean over a picture says how unsure it is, >= 0.
        members: how many members it takes at least; with fewer, no picture is sure.
    """

    map: Callable[[Tensor, RunningUncertainty | None, Distribution], Tensor | None]
    members: int


def _entropy(combined: Tensor, running: RunningUncertainty | None, distribution: Distribution) -> Tensor | None:
    return None if distribution == "none" else entropy(combined, distribution)


def _information(combined: Tensor, running: RunningUncertainty | None, distribution: Distribution) -> Tensor | None:
    return None if running is None else running.mutual_information()


def _variance(combined: Tensor, running: RunningUncertainty | None, distribution: Distribution) -> Tensor | None:
    return None if running is None else running.variance()


UNSURENESS: dict[str, Unsureness] = {
    "entropy": Unsureness(_entropy, 1),
    "mutual_information": Unsureness(_information, 2),
    "variance": Unsureness(_variance, 2),
}
"""How unsure the members that have run are of a picture, by name: of themselves, or at odds with one another."""


def measures_for(task: Task) -> tuple[str, ...]:
    """Rows of ``UNSURENESS`` that suit a task."""
    return ("variance",) if task.distribution == "none" else ("entropy", "mutual_information")


def unsureness(
    measure: str, combined: Tensor, running: RunningUncertainty | None, distribution: Distribution, members: int
) -> Tensor:
    """How unsure ``members`` members are of each picture, ``(B,)``; infinity where they are too few to say.

    Args:
        measure: row of ``UNSURENESS``.
        combined: the rule's map ``(B, K, h, w)``, not calibrated.
        running: of the same members; may be ``None`` for a row that one member is enough for.
        distribution: of the maps.
        members: how many have run.

    Raises:
        ValueError: the maps have no such unsureness.
    """
    row = UNSURENESS[measure]
    if members < row.members:
        return combined.new_full((len(combined),), math.inf)
    found = row.map(combined, running, distribution)
    if found is None:
        raise ValueError(f"maps of distribution '{distribution}' have no {measure}")
    return found.flatten(1).mean(1)


def kept_share(score: Tensor, full: Tensor, higher_is_better: bool) -> Tensor:
    """What share of the full ensemble's score is kept: score / full, or of errors full / score; above 1 is better.

    NaN where the full ensemble's score is not above 0, for there is no share of that.
    """
    if higher_is_better:
        return torch.where(full > 0, score / full, torch.nan)
    return torch.where(full >= 0, full.clamp(min=_SMALLEST) / score.clamp(min=_SMALLEST), torch.nan)


@dataclass(frozen=True)
class Policy:
    """When to stop, and what that costs and keeps of the held-out pictures.

    Attributes:
        members: names in the order in which they run; the last one is the last for every picture.
        measure: row of ``UNSURENESS``.
        threshold: a picture that is less unsure than this stops; 0: none stops before the last member.
        cost: expected, as a share of what all members of the ensemble cost.
        score: by the cascade's metric.
        kept: share of the full ensemble's score on the same pictures; ``None`` where that is not above 0.
        kept_low: what is kept at least, with 95 % confidence: the lower of two one-sided bootstrap bounds, over single
            pictures and over runs of neighbours, such as frames of a film.
    """

    members: tuple[str, ...]
    measure: str
    threshold: float
    cost: float
    score: float
    kept: float | None
    kept_low: float | None

    def __post_init__(self) -> None:
        if not self.members or len(set(self.members)) != len(self.members):
            raise UsageError(f"a policy runs each of its members once, got {list(self.members)}")
        if self.measure not in UNSURENESS:
            raise UsageError(f"no unsureness is named '{self.measure}'; there are: {', '.join(UNSURENESS)}")
        if not self.threshold >= 0:
            raise UsageError(f"threshold {self.threshold} must be >= 0; at 0 no picture stops early")


@dataclass(frozen=True)
class Check:
    """A policy's worth on pictures that it was not fitted on: each half of the held-out ones, fitted on the other.

    Attributes:
        asked: ``budget`` or ``keep``.
        share: that was asked for.
        cost: share of what all members cost.
        kept: share of the full ensemble's score; ``None`` where that is not above 0.
    """

    asked: Literal["budget", "keep"]
    share: float
    cost: float
    kept: float | None


@dataclass(frozen=True)
class Cascade:
    """Policies that no other beats at its cost, fitted on held-out pictures.

    Attributes:
        metric: that they are scored by.
        higher_is_better: whether more of it is better.
        pictures: how many they were fitted on.
        full: score of the full ensemble.
        shares: of each member in the cost of all, summing to 1; measured where the ensemble was made.
        policies: cheapest first; the last one runs all members on every picture.
        checks: what the same way of fitting is worth on pictures that it has not seen.
    """

    metric: str
    higher_is_better: bool
    pictures: int
    full: float
    shares: Mapping[str, float]
    policies: tuple[Policy, ...]
    checks: tuple[Check, ...]

    def for_budget(self, share: float) -> Policy:
        """The best-scoring policy whose expected cost is at most ``share`` of what the whole ensemble costs.

        Raises:
            UsageError: a share that is not in (0, 1], or below the cheapest policy's.
        """
        if not 0 < share <= 1:
            raise UsageError(f"budget {share:g}: give a share of the whole ensemble's cost, above 0 and at most 1")
        # Sums of shares round: all members together cost 1 and are within a budget of 1.
        able = [policy for policy in self.policies if policy.cost <= share + 1e-9]
        if not able:
            cheapest = self.policies[0]
            raise UsageError(
                f"budget {share:g}: the cheapest policy, {_told(cheapest.members)}, costs {cheapest.cost:.3g} of the "
                "whole ensemble; give that much or more"
            )
        sign = 1 if self.higher_is_better else -1
        return max(able, key=lambda policy: (sign * policy.score, -policy.cost))

    def for_keep(self, share: float) -> Policy:
        """The cheapest policy that keeps ``share`` of the full ensemble's score with 95 % confidence.

        It goes by :attr:`Policy.kept_low`, so that the promise tends to hold for new pictures of the same kind. What
        such promises missed on pictures that they were not fitted on (:attr:`checks`) is asked for on top.
        Metrics of which less is better keep 0.995 where the error is at most that of the full ensemble / 0.995.

        Raises:
            UsageError: a share that no policy keeps, or a metric that nothing is a share of.
        """
        if not (math.isfinite(share) and share > 0):
            raise UsageError(f"keep {share:g}: give a share of the full ensemble's score, such as 0.995")
        known = [policy for policy in self.policies if policy.kept_low is not None]
        if not known:
            raise UsageError(
                f"keep {share:g}: the full ensemble's {self.metric} is {self.full:.4g}, and there is no share of what "
                "is not above 0; give a budget"
            )
        everything = self.policies[-1]
        able = [
            policy
            for policy in known
            if (policy.kept_low or 0) >= share and (policy is everything or (policy.kept or 0) >= share + self.missed)
        ]
        if not able:
            most = max(policy.kept_low or 0 for policy in known)
            raise UsageError(f"keep {share:g}: no policy surely keeps more than {most:.4g} of the full {self.metric}")
        return min(able, key=lambda policy: policy.cost)

    @property
    def missed(self) -> float:
        """By how much the worst of the promises to keep a share fell short on pictures that it was not fitted on."""
        short = [check.share - check.kept for check in self.checks if check.asked == "keep" and check.kept is not None]
        return max(0.0, *short) if short else 0.0

    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_cascade` builds the same cascade."""
        return {**asdict(self), "shares": dict(self.shares)}


def make_cascade(values: Mapping[str, Any]) -> Cascade:
    """From the plain values of :meth:`Cascade.describe`.

    Raises:
        ArtifactError: values that are absent or of another kind.
    """
    try:
        policies = tuple(Policy(**{**row, "members": tuple(row["members"])}) for row in values["policies"])
        checks = tuple(Check(**row) for row in values["checks"])
        found = Cascade(**{**values, "policies": policies, "checks": checks})
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise ArtifactError(f"the cascade is damaged ({error!r}); copy the file again") from error
    unknown = {name for policy in policies for name in policy.members} - set(found.shares)
    if not policies or unknown:
        raise ArtifactError(f"the cascade is damaged (no cost of {sorted(unknown)}); copy the file again")
    return found


@dataclass(frozen=True)
class CascadeUse:
    """What a policy really spent.

    Attributes:
        pictures: number of pictures that stopped after 1, 2, ... members.
        costs: share of the whole ensemble's cost after 1, 2, ... members.
    """

    pictures: tuple[int, ...]
    costs: tuple[float, ...]

    @property
    def members(self) -> float:
        """Mean number of members that a picture saw."""
        return sum(stage * count for stage, count in enumerate(self.pictures, 1)) / sum(self.pictures)

    @property
    def cost(self) -> float:
        """Mean share of what the whole ensemble costs."""
        return sum(cost * count for cost, count in zip(self.costs, self.pictures, strict=True)) / sum(self.pictures)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the pictures that stopped after 1, 2, ... members."""
        return tuple(count / sum(self.pictures) for count in self.pictures)

    def __add__(self, other: "CascadeUse") -> "CascadeUse":
        """Of both together, under the same policy."""
        counts = tuple(own + more for own, more in zip(self.pictures, other.pictures, strict=True))
        return CascadeUse(counts, self.costs)


def cascade_use(used: Tensor, policy: Policy, shares: Mapping[str, float]) -> CascadeUse:
    """What pictures spent under a policy.

    Args:
        used: number of members that each picture saw, integer ``(B,)``, 1 to that of the policy.
        policy: that they were predicted with.
        shares: of each member in the cost of all.
    """
    stages = len(policy.members)
    counts = torch.bincount(used.cpu().long(), minlength=stages + 1)[1:].tolist()
    return CascadeUse(tuple(counts), cumulated(policy.members, shares))


def cumulated(members: tuple[str, ...], shares: Mapping[str, float]) -> tuple[float, ...]:
    """Share of the whole ensemble's cost after 1, 2, ... of the members."""
    return tuple(math.fsum(shares[name] for name in members[:stage]) for stage in range(1, len(members) + 1))


def _told(members: tuple[str, ...]) -> str:
    return f"'{members[0]}' alone" if len(members) == 1 else f"at most {len(members)} members"
