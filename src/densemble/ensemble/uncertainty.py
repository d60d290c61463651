"""Uncertainty of an ensemble from running means: entropies, mutual information, variance, disagreement.

With member probabilities p_m of weight w_m (summing to 1) and their mean p: predictive entropy H(p), expected entropy
sum_m w_m H(p_m), mutual information = their difference (Depeweg et al. 2018; Lakshminarayanan et al. 2017).

None of these is linear in the probabilities: an interpolated entropy is not the entropy of the interpolated map. To get
another size, resize the members' maps before adding them.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.tasks import Distribution

UNCERTAINTY = frozenset({"variance", "entropy", "expected_entropy", "mutual_information", "disagreement"})
"""Names of the uncertainty maps; values that are not probabilities have only the variance."""
Asked = bool | Collection[str]
"""Requested uncertainty maps: their names, or all, or none."""

_TINY = 1e-12
_STRIP_VALUES = 1 << 18
"""Number of values that a CPU processes at once: strips that fit its cache are four times faster."""


def requested_maps(asked: Asked, distribution: Distribution) -> frozenset[str]:
    """Return the names of the maps to compute: those requested and available for this distribution."""
    available = UNCERTAINTY if distribution != "none" else frozenset({"variance"})
    if isinstance(asked, bool):
        return available if asked else frozenset()
    return available & frozenset(asked)


def entropy(probabilities: Tensor, distribution: Distribution) -> Tensor:
    """Entropy in nats, ``(B, K, h, w)`` -> ``(B, h, w)``: over the channels, or the mean of the Bernoulli entropies."""
    strips = [_entropy(probabilities[..., rows, :], distribution) for rows in _strips(probabilities)]
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=-2)


def _entropy(probabilities: Tensor, distribution: Distribution) -> Tensor:
    p = probabilities.clamp(0, 1)
    if distribution == "categorical":
        return -(p * p.clamp(min=_TINY).log()).sum(1)
    q = 1 - p
    return -(p * p.clamp(min=_TINY).log() + q * q.clamp(min=_TINY).log()).mean(1)


def _strips(maps: Tensor) -> list[slice]:
    """Split the rows of maps ``(..., h, w)`` into strips to process at once; one strip unless the maps are on a CPU."""
    if torch.compiler.is_exporting():  # the size may be symbolic
        return [slice(None)]
    height = int(maps.shape[-2])
    rows = height if maps.device.type != "cpu" else max(_STRIP_VALUES * height // max(maps.numel(), 1), 1)
    return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


@dataclass(frozen=True)
class Moments:
    """Moments from which uncertainty is computed; linear in the members' shares, so windows can be blended.

    Attributes:
        mean: weighted mean of the members' maps ``(B, K, h, w)``, float64.
        square: weighted mean of their squares, float64.
        entropy: weighted mean of their entropies ``(B, h, w)``.
        votes: share of the weight of members that decide for a channel ``(B, K, h, w)``.
    """

    mean: Tensor | None
    square: Tensor | None
    entropy: Tensor | None
    votes: Tensor | None


class RunningUncertainty:
    """Running mean, variance, expected entropy and votes of members added one after the other (West 1979).

    Memory does not grow with the number of members: at most three maps with all channels and one with a single channel
    are stored. The updates move means instead of adding to sums, so the mean of equal members is exactly the member's
    value, and their variance and mutual information are exactly 0.

    Args:
        distribution: distribution of the maps.
        maps: names of the maps to read later; anything that only the others need is not computed.
    """

    def __init__(self, distribution: Distribution, maps: Collection[str] = UNCERTAINTY) -> None:
        self._distribution = distribution
        self.maps = requested_maps(maps, distribution)
        """Names of the maps that can be read."""
        self._weight = 0.0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None
        self._entropy: Tensor | None = None
        self._votes: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["RunningUncertainty"]) -> "RunningUncertainty":
        """Concatenate the parts of a batch, which may have different members. No member can be added afterwards."""
        whole = cls(parts[0]._distribution, parts[0].maps)
        whole._weight = 1.0
        whole._squares = torch.cat([part.variance() for part in parts]) if "variance" in whole.maps else None
        whole._mean = _cat([part._mean for part in parts])
        whole._entropy = _cat([part._entropy for part in parts])
        whole._votes = _cat([part._votes for part in parts])
        return whole

    @classmethod
    def restored(cls, moments: Moments, distribution: Distribution, maps: Collection[str]) -> "RunningUncertainty":
        """Restore from :meth:`moments`, which may have been blended. No member can be added afterwards."""
        running = cls(distribution, maps)
        running._weight = 1.0
        running._mean = None if moments.mean is None else moments.mean.float()
        if moments.mean is not None and moments.square is not None:
            running._squares = (moments.square - moments.mean.square()).clamp(min=0).float()
        running._entropy, running._votes = moments.entropy, moments.votes
        return running

    def add(self, maps: Tensor, weight: float) -> None:
        """Add one member's activated maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._weight += weight
        share = weight / self._weight
        if self._weight == weight:
            self._begin(maps)
        for rows in _strips(maps):
            self._add_rows(maps[..., rows, :], rows, weight, share)

    def _begin(self, maps: Tensor) -> None:
        if self.maps & {"variance", "mutual_information"}:
            self._mean = torch.zeros_like(maps)
        if "variance" in self.maps:
            self._squares = torch.zeros_like(maps)
        if self.maps & {"expected_entropy", "mutual_information"}:
            self._entropy = torch.zeros_like(maps[:, 0])
        if "disagreement" in self.maps:
            self._votes = torch.zeros_like(maps)

    def _add_rows(self, maps: Tensor, rows: slice, weight: float, share: float) -> None:
        if self._entropy is not None:
            self._entropy[..., rows, :].lerp_(entropy(maps, self._distribution), share)
        if self._votes is not None:
            self._votes[..., rows, :].lerp_(decisions(maps, self._distribution), share)
        if self._mean is not None:
            mean = self._mean[..., rows, :]
            difference = maps - mean
            mean.add_(difference, alpha=share)
            if self._squares is not None:
                self._squares[..., rows, :].addcmul_(difference, maps - mean, value=weight)

    def moments(self) -> Moments:
        """Return the moments for :meth:`restored`."""
        if self._mean is None:
            return Moments(None, None, self._entropy, self._votes)
        mean = self._mean.double()
        square = self.variance().double() + mean.square() if "variance" in self.maps else None
        return Moments(mean, square, self._entropy, self._votes)

    def variance(self) -> Tensor:
        """Weighted population variance over the members, ``(B, K, h, w)``.

        Raises:
            ValueError: no member was added, or the variance is not among :attr:`maps`.
        """
        if self._squares is None:
            raise ValueError("there is no variance: request the map 'variance' and add a member first")
        return self._squares / self._weight

    def expected_entropy(self) -> Tensor | None:
        """Weighted mean of the members' entropies, ``(B, h, w)``; ``None`` if values are not probabilities."""
        return self._entropy

    def mutual_information(self) -> Tensor | None:
        """Entropy of the members' weighted arithmetic mean minus their expected entropy, in nats, ``(B, h, w)``.

        It is never negative (Jensen), for every combination rule. ``None`` if values are not probabilities.
        """
        if self._mean is None or self._entropy is None:
            return None
        return (entropy(self._mean, self._distribution) - self._entropy).clamp(min=0)  # only rounding gives < 0

    def disagreement(self) -> Tensor | None:
        """Weighted share of the members whose decision differs from the most common one, in [0, 1], ``(B, h, w)``.

        A member decides for its most probable class; for Bernoulli channels, for each channel of at least 0.5, and the
        result is the mean over the channels. ``None`` if values are not probabilities. This is the variation ratio of
        Freeman (1965).
        """
        if self._votes is None:
            return None
        if self._distribution == "categorical":
            return 1 - self._votes.amax(1)
        return torch.minimum(self._votes, 1 - self._votes).mean(1)


def _cat(maps: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in maps if part is not None]
    return torch.cat(known) if known else None


def decisions(maps: Tensor, distribution: Distribution) -> Tensor:
    """Return 1 where a member decides for a channel, else 0, ``(B, K, h, w)``; ties go to the first class."""
    if distribution == "categorical":
        return torch.zeros_like(maps).scatter_(1, maps.max(1, keepdim=True).indices, 1)
    return (maps >= 0.5).to(maps.dtype)
