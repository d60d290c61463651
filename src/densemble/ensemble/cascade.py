"""Cascades: members run in order, and an image stops early when its prediction is certain enough.

An image stops when one number, the mean uncertainty of its map, is below a threshold that is the same for all stages
(Wang et al. 2022, "Wisdom of Committees"). Threshold and order are selected from many on the held-out images, so the
score that a policy keeps on these images is optimistic. :attr:`Cascade.checks` estimate it for other images.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from densemble.ensemble.described import KEYS
from densemble.ensemble.uncertainty import RunningUncertainty, entropy
from densemble.errors import ArtifactError, UsageError
from densemble.tasks import Distribution, Task

_SMALLEST = 1e-12
"""Lower limit of errors in :func:`kept_share`, so that the share is defined for an error of 0."""


@dataclass(frozen=True)
class UncertaintyMeasure:
    """A row of ``UNCERTAINTY_MEASURES``.

    Attributes:
        map: takes the combined map ``(B, K, h, w)`` before calibration, the running uncertainty of the members and the
            distribution; returns a map >= 0, whose mean over an image is the uncertainty of the image.
        members: smallest number of members for which the measure is defined; with fewer, no image stops.
    """

    map: Callable[[Tensor, RunningUncertainty | None, Distribution], Tensor | None]
    members: int


UNCERTAINTY_MEASURES: dict[str, UncertaintyMeasure] = {
    "entropy": UncertaintyMeasure(
        lambda combined, _, distribution: None if distribution == "none" else entropy(combined, distribution), 1
    ),
    "mutual_information": UncertaintyMeasure(
        lambda _, running, __: None if running is None else running.mutual_information(), 2
    ),
    "variance": UncertaintyMeasure(lambda _, running, __: None if running is None else running.variance(), 2),
}
"""Measures of uncertainty by name, computed over the members that have run."""


def uncertainty_measures_for(task: Task) -> tuple[str, ...]:
    """Names of the rows of ``UNCERTAINTY_MEASURES`` that suit a task."""
    return ("variance",) if task.distribution == "none" else ("entropy", "mutual_information")


def unsureness(
    measure: str, combined: Tensor, running: RunningUncertainty | None, distribution: Distribution, members: int
) -> Tensor:
    """Mean uncertainty of each image, ``(B,)``; infinity if too few members have run for the measure.

    Args:
        measure: row of ``UNCERTAINTY_MEASURES``.
        combined: map of the combination rule ``(B, K, h, w)``, not calibrated.
        running: running uncertainty of the same members; may be ``None`` for measures that need one member only.
        distribution: distribution of the maps.
        members: number of members that have run.

    Raises:
        ValueError: the measure is not defined for maps of this distribution.
    """
    row = UNCERTAINTY_MEASURES[measure]
    if members < row.members:
        return combined.new_full((len(combined),), math.inf)
    uncertainty = row.map(combined, running, distribution)
    if uncertainty is None:
        raise ValueError(f"maps of distribution '{distribution}' have no {measure}")
    return uncertainty.flatten(1).mean(1)


def kept_share(score: Tensor, full: Tensor, higher_is_better: bool) -> Tensor:
    """Share of the full ensemble's score that is kept: score / full, or full / score for errors. Above 1 is better.

    NaN if the full ensemble's score is not above 0, because the share is not defined then.
    """
    if higher_is_better:
        return torch.where(full > 0, score / full, torch.nan)
    return torch.where(full >= 0, full.clamp(min=_SMALLEST) / score.clamp(min=_SMALLEST), torch.nan)


@dataclass(frozen=True)
class Policy:
    """Order of the members and threshold for stopping, with cost and score on the images used for fitting.

    Attributes:
        members: names in the order in which they run; an image that never stops early runs all of them.
        measure: row of ``UNCERTAINTY_MEASURES``.
        threshold: an image stops if its uncertainty is below this; 0: no image stops before the last member.
        cost: mean cost per image, as a share of the cost of the whole ensemble, on these images.
        score: value of the cascade's metric on these images.
        kept: share of the full ensemble's score on the same images; ``None`` if that score is not above 0.
        kept_low: 5 % quantile of ``kept`` over bootstrap samples: the lower of two, one that samples single images and
            one that samples runs of neighbours, such as frames of a film. It ignores that the policy was selected from
            many on these images, so it is a safety margin, not a bound with 95 % confidence.
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
            raise UsageError(f"a policy must run each of its members exactly once, got {list(self.members)}")
        if self.measure not in UNCERTAINTY_MEASURES:
            raise UsageError(
                f"no measure of uncertainty is named '{self.measure}'; there are: {', '.join(UNCERTAINTY_MEASURES)}"
            )
        if not self.threshold >= 0:
            raise UsageError(f"threshold {self.threshold} must be >= 0; at 0 no image stops early")


@dataclass(frozen=True)
class Check:
    """Cross-fitted cost and score: policies fitted on one half of the held-out images, measured on the other half.

    Attributes:
        asked: kind of the request, ``budget`` or ``keep``.
        share: requested share.
        cost: share of the cost of all members.
        kept: share of the full ensemble's score; ``None`` if that is not above 0.
    """

    asked: Literal["budget", "keep"]
    share: float
    cost: float
    kept: float | None


@dataclass(frozen=True)
class Cascade:
    """Policies fitted on held-out images, each with the best score at its cost.

    Attributes:
        metric: metric of the scores.
        higher_is_better: whether a higher value of the metric is better.
        images: number of images used for fitting.
        full: score of the full ensemble on these images.
        shares: share of each member in the cost of all members, summing to 1; measured where the ensemble was made.
        policies: cheapest first; the last one runs all members on every image.
        checks: cost and kept score of policies fitted in the same way, on images that were not used for fitting.
    """

    metric: str
    higher_is_better: bool
    images: int
    full: float
    shares: Mapping[str, float]
    policies: tuple[Policy, ...]
    checks: tuple[Check, ...]

    def for_budget(self, share: float) -> Policy:
        """Return the policy with the best score that costs at most ``share`` of the whole ensemble.

        Cost and score are those on the images used for fitting.

        Raises:
            UsageError: ``share`` is not in (0, 1], or is lower than the cost of the cheapest policy.
        """
        if not 0 < share <= 1:
            raise UsageError(f"budget {share:g}: give a share of the whole ensemble's cost, above 0 and at most 1")
        # Sums of shares round: all members together cost 1 and are within a budget of 1.
        affordable = [policy for policy in self.policies if policy.cost <= share + 1e-9]
        if not affordable:
            cheapest = self.policies[0]
            raise UsageError(
                f"budget {share:g}: the cheapest policy, {_format_members(cheapest.members)}, costs "
                f"{cheapest.cost:.3g} of the whole ensemble; give that much or more"
            )
        sign = 1 if self.higher_is_better else -1
        return max(affordable, key=lambda policy: (sign * policy.score, -policy.cost))

    def for_keep(self, share: float) -> Policy:
        """Return the cheapest policy that keeps ``share`` of the full ensemble's score, with two safety margins.

        On the images used for fitting, :attr:`Policy.kept_low` is at least ``share``, and :attr:`Policy.kept` is at
        least ``share`` plus :attr:`missed`, the largest shortfall of the cross-fitted :attr:`checks`. The margins make
        it more likely that new images keep ``share``; they do not guarantee it. For lower-is-better metrics, a share
        of 0.995 is kept if the error is at most the full ensemble's error / 0.995.

        Raises:
            UsageError: no policy keeps this share, or the share is not defined for the full ensemble's score.
        """
        if not (math.isfinite(share) and share > 0):
            raise UsageError(f"keep {share:g}: give a positive share of the full ensemble's score, such as 0.995")
        known = [policy for policy in self.policies if policy.kept_low is not None]
        if not known:
            raise UsageError(
                f"keep {share:g}: the full ensemble's {self.metric} is {self.full:.4g}; a share is defined only for "
                "scores above 0; give a budget"
            )
        full_policy = self.policies[-1]
        sufficient = [
            policy
            for policy in known
            if (policy.kept_low or 0) >= share and (policy is full_policy or (policy.kept or 0) >= share + self.missed)
        ]
        if not sufficient:
            highest = max(policy.kept_low or 0 for policy in known)
            raise UsageError(
                f"keep {share:g}: the lower bounds of all policies are at most {highest:.4g} of the full "
                f"{self.metric}; give a lower share"
            )
        return min(sufficient, key=lambda policy: policy.cost)

    @property
    def missed(self) -> float:
        """Largest shortfall of the cross-fitted checks: requested share minus kept share, at least 0."""
        short = [check.share - check.kept for check in self.checks if check.asked == "keep" and check.kept is not None]
        return max(0.0, *short) if short else 0.0

    def check_near(self, asked: Literal["budget", "keep"], share: float) -> Check | None:
        """The check of the same kind whose share is nearest to ``share``; ``None`` if there is none."""
        same = [check for check in self.checks if check.asked == asked]
        return min(same, key=lambda check: abs(check.share - share), default=None)

    def describe(self) -> dict[str, Any]:
        """Return plain values; :func:`make_cascade` builds the same cascade from them."""
        values = {KEYS.get(name, name): value for name, value in asdict(self).items()}
        return {**values, "shares": dict(self.shares)}


def make_cascade(values: Mapping[str, Any]) -> Cascade:
    """Build a cascade from the plain values of :meth:`Cascade.describe`.

    Raises:
        ArtifactError: values are missing or have the wrong type.
    """
    try:
        policies = tuple(Policy(**{**row, "members": tuple(row["members"])}) for row in values["policies"])
        checks = tuple(Check(**row) for row in values["checks"])
        names = {key: name for name, key in KEYS.items()}
        arguments = {names.get(key, key): value for key, value in values.items()}
        cascade = Cascade(**{**arguments, "policies": policies, "checks": checks})
    except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
        raise ArtifactError(f"the cascade is damaged ({error!r}); copy the file again") from error
    unknown = {name for policy in policies for name in policy.members} - set(cascade.shares)
    if not policies or unknown:
        raise ArtifactError(f"the cascade is damaged (no cost of {sorted(unknown)}); copy the file again")
    return cascade


@dataclass(frozen=True)
class CascadeUse:
    """Members that a policy ran on the predicted images, and their cost.

    Attributes:
        images: number of images that stopped after 1, 2, ... members.
        costs: cost after 1, 2, ... members, as a share of the cost of the whole ensemble.
    """

    images: tuple[int, ...]
    costs: tuple[float, ...]

    @property
    def members(self) -> float:
        """Mean number of members per image."""
        return sum(stage * count for stage, count in enumerate(self.images, 1)) / sum(self.images)

    @property
    def cost(self) -> float:
        """Mean cost per image, as a share of the cost of the whole ensemble."""
        return sum(cost * count for cost, count in zip(self.costs, self.images, strict=True)) / sum(self.images)

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of the images that stopped after 1, 2, ... members."""
        return tuple(count / sum(self.images) for count in self.images)

    def __add__(self, other: "CascadeUse") -> "CascadeUse":
        """Add the use on other images under the same policy."""
        counts = tuple(mine + others for mine, others in zip(self.images, other.images, strict=True))
        return CascadeUse(counts, self.costs)


def cascade_use(used: Tensor, policy: Policy, shares: Mapping[str, float]) -> CascadeUse:
    """Count the members that each image needed under a policy, with their cost.

    Args:
        used: number of members that ran on each image, integer ``(B,)``, from 1 to the number in the policy.
        policy: policy of the prediction.
        shares: share of each member in the cost of all members.
    """
    stages = len(policy.members)
    counts = torch.bincount(used.cpu().long(), minlength=stages + 1)[1:].tolist()
    return CascadeUse(tuple(counts), cumulative_costs(policy.members, shares))


def cumulative_costs(members: tuple[str, ...], shares: Mapping[str, float]) -> tuple[float, ...]:
    """Cost after 1, 2, ... of the members, as a share of the cost of the whole ensemble."""
    return tuple(math.fsum(shares[name] for name in members[:stage]) for stage in range(1, len(members) + 1))


def _format_members(members: tuple[str, ...]) -> str:
    return f"'{members[0]}' alone" if len(members) == 1 else f"at most {len(members)} members"
