"""Cascades: members run one after the other, and an image that is certain enough goes no further.

An image stops when one number, the mean uncertainty of its map, is below one threshold for all stages (Wang et al.
2022, "Wisdom of Committees"). Threshold and order are chosen among many on the held-out images, so what a policy keeps
of the score there is no estimate for other images; :attr:`Cascade.checks` are.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
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
        map: the combined map ``(B, K, h, w)`` before calibration and the members' running uncertainty -> a map >= 0,
            of which the mean over an image is used.
        members: how many members it takes at least; with fewer, no image stops.
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
"""Uncertainty of the members that have run, by name."""


def measures_for(task: Task) -> tuple[str, ...]:
    """Rows of ``UNSURENESS`` that suit a task."""
    return ("variance",) if task.distribution == "none" else ("entropy", "mutual_information")


def unsureness(
    measure: str, combined: Tensor, running: RunningUncertainty | None, distribution: Distribution, members: int
) -> Tensor:
    """Mean uncertainty of ``members`` members about each image, ``(B,)``; infinity where the measure needs more.

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
    """When to stop, and what that costs and keeps on the images that the policy was fitted on.

    Attributes:
        members: names in the order in which they run; the last one is the last for every image.
        measure: row of ``UNSURENESS``.
        threshold: an image that is less unsure than this stops; 0: none stops before the last member.
        cost: mean share of what all members of the ensemble cost, fitted on these images.
        score: by the cascade's metric, fitted on these images.
        kept: share of the full ensemble's score on the same images; ``None`` where that is not above 0.
        kept_low: 5 % quantile of ``kept`` over bootstrap samples, the lower of two: of single images, and of runs of
            neighbours, such as frames of a film. It ignores that the policy was chosen among many on these images, so
            it is a margin of safety, not a bound with 95 % confidence.
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
            raise UsageError(f"threshold {self.threshold} must be >= 0; at 0 no image stops early")


@dataclass(frozen=True)
class Check:
    """Cross-fitted cost and score: policies fitted on one half of the held-out images, measured on the other half.

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


_KEYS = {"images": "pictures"}
"""Key of a field in artifacts where it is not the field's name."""


@dataclass(frozen=True)
class Cascade:
    """Policies that no other beats at its cost, fitted on held-out images.

    Attributes:
        metric: that they are scored by.
        higher_is_better: whether more of it is better.
        images: number of images that they were fitted on.
        full: score of the full ensemble on these images.
        shares: of each member in the cost of all, summing to 1; measured where the ensemble was made.
        policies: cheapest first; the last one runs all members on every image.
        checks: what policies fitted in the same way cost and keep on images that they were not fitted on.
    """

    metric: str
    higher_is_better: bool
    images: int
    full: float
    shares: Mapping[str, float]
    policies: tuple[Policy, ...]
    checks: tuple[Check, ...]

    def for_budget(self, share: float) -> Policy:
        """The policy of the best score among those that cost at most ``share`` of what the whole ensemble costs.

        Score and cost are those on the images that the policies were fitted on.

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
        """The cheapest policy that keeps ``share`` of the full ensemble's score, by two margins.

        On the images that it was fitted on, its :attr:`Policy.kept_low` is at least ``share``, and its
        :attr:`Policy.kept` at least ``share`` plus :attr:`missed`, the worst shortfall of the cross-fitted
        :attr:`checks`. This makes it likelier that new images of the same kind keep ``share``; it guarantees nothing.
        Lower-is-better metrics keep 0.995 where the error is at most that of the full ensemble / 0.995.

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
            raise UsageError(
                f"keep {share:g}: the lower bounds of all policies are at most {most:.4g} of the full {self.metric}"
            )
        return min(able, key=lambda policy: policy.cost)

    @property
    def missed(self) -> float:
        """Largest shortfall of the cross-fitted checks: share asked for less share kept, at least 0."""
        short = [check.share - check.kept for check in self.checks if check.asked == "keep" and check.kept is not None]
        return max(0.0, *short) if short else 0.0

    def check_near(self, asked: Literal["budget", "keep"], share: float) -> Check | None:
        """The check of the same kind whose share is nearest to the one asked for; ``None`` without any."""
        same = [check for check in self.checks if check.asked == asked]
        return min(same, key=lambda check: abs(check.share - share), default=None)

    def describe(self) -> dict[str, Any]:
        """Plain values from which :func:`make_cascade` builds the same cascade."""
        values = {_KEYS.get(name, name): value for name, value in asdict(self).items()}
        return {**values, "shares": dict(self.shares)}


def make_cascade(values: Mapping[str, Any]) -> Cascade:
    """From the plain values of :meth:`Cascade.describe`.

    Raises:
        ArtifactError: values that are absent or of another kind.
    """
    try:
        policies = tuple(Policy(**{**row, "members": tuple(row["members"])}) for row in values["policies"])
        checks = tuple(Check(**row) for row in values["checks"])
        named = {field.name: values[_KEYS.get(field.name, field.name)] for field in fields(Cascade)}
        found = Cascade(**{**named, "policies": policies, "checks": checks})
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise ArtifactError(f"the cascade is damaged ({error!r}); copy the file again") from error
    unknown = {name for policy in policies for name in policy.members} - set(found.shares)
    if not policies or unknown:
        raise ArtifactError(f"the cascade is damaged (no cost of {sorted(unknown)}); copy the file again")
    return found


@dataclass(frozen=True)
class CascadeUse:
    """What a policy spent on the images that were predicted.

    Attributes:
        images: number of images that stopped after 1, 2, ... members.
        costs: share of the whole ensemble's cost after 1, 2, ... members.
    """

    images: tuple[int, ...]
    costs: tuple[float, ...]

    @property
    def members(self) -> float:
        """Mean number of members that an image saw."""
        return sum(stage * count for stage, count in enumerate(self.images, 1)) / sum(self.images)

    @property
    def cost(self) -> float:
        """Mean share of what the whole ensemble costs."""
        return sum(cost * count for cost, count in zip(self.costs, self.images, strict=True)) / sum(self.images)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the images that stopped after 1, 2, ... members."""
        return tuple(count / sum(self.images) for count in self.images)

    def __add__(self, other: "CascadeUse") -> "CascadeUse":
        """Of both together, under the same policy."""
        counts = tuple(own + more for own, more in zip(self.images, other.images, strict=True))
        return CascadeUse(counts, self.costs)


def cascade_use(used: Tensor, policy: Policy, shares: Mapping[str, float]) -> CascadeUse:
    """What images spent under a policy.

    Args:
        used: number of members that each image saw, integer ``(B,)``, 1 to that of the policy.
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
