"""Uncertainty of an ensemble from running means: entropies, mutual information, variance, disagreement.

With member probabilities p_m of weight w_m (summing to 1) and their mean p: predictive entropy H(p), expected entropy
sum_m w_m H(p_m), mutual information = their difference (Depeweg et al. 2018; Lakshminarayanan et al. 2017).

None of these is linear in the probabilities: an interpolated entropy is not the entropy of the interpolated map. For
another size, resize the members' maps before they are added.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.tasks import Distribution

UNCERTAINTY = frozenset({"variance", "entropy", "expected_entropy", "mutual_information", "disagreement"})
"""Names of the maps of uncertainty; values that are no probabilities have only the variance."""
Asked = bool | Collection[str]
"""Which maps of uncertainty to compute: their names, or all, or none."""

_TINY = 1e-12
_STRIP_VALUES = 1 << 18
"""Of a map that a CPU works on at once: in memory that fits its cache and is used again, it is four times faster."""


def asked_maps(asked: Asked, distribution: Distribution) -> frozenset[str]:
    """Names of the maps to compute: those that are asked for and that maps of this distribution have."""
    able = UNCERTAINTY if distribution != "none" else frozenset({"variance"})
    if isinstance(asked, bool):
        return able if asked else frozenset()
    return able & frozenset(asked)


def entropy(probabilities: Tensor, distribution: Distribution) -> Tensor:
    """Entropy in nats, ``(B, K, h, w)`` -> ``(B, h, w)``: over the channels, or the mean of Bernoulli entropies."""
    strips = [_entropy(probabilities[..., rows, :], distribution) for rows in _strips(probabilities)]
    return strips[0] if len(strips) == 1 else torch.cat(strips, dim=-2)


def _entropy(probabilities: Tensor, distribution: Distribution) -> Tensor:
    p = probabilities.clamp(0, 1)
    if distribution == "categorical":
        return -(p * p.clamp(min=_TINY).log()).sum(1)
    q = 1 - p
    return -(p * p.clamp(min=_TINY).log() + q * q.clamp(min=_TINY).log()).mean(1)


def _strips(maps: Tensor) -> list[slice]:
    """Rows of maps ``(..., h, w)`` to work on at once: all of them, except on a CPU."""
    height = int(maps.shape[-2])
    rows = height if maps.device.type != "cpu" else max(_STRIP_VALUES * height // max(maps.numel(), 1), 1)
    return [slice(first, min(first + rows, height)) for first in range(0, height, rows)]


@dataclass(frozen=True)
class Moments:
    """What uncertainty is computed from, all of it linear in the members' shares, so that windows can be blended.

    Attributes:
        mean: weighted mean of the members' maps ``(B, K, h, w)``, float64.
        square: weighted mean of their squares, float64.
        entropy: weighted mean of their entropies ``(B, h, w)``.
        votes: share of the weight that decides for a channel ``(B, K, h, w)``.
    """

    mean: Tensor | None
    square: Tensor | None
    entropy: Tensor | None
    votes: Tensor | None


class RunningUncertainty:
    """Mean, variance, expected entropy and votes of members that are added one after the other (West 1979).

    At most three maps of all channels and one of a single channel are kept, for any number of members. The updates
    move means instead of adding to sums: the mean of equal members is exactly the member's value, and their variance
    and mutual information are exactly 0.

    Args:
        distribution: of the maps.
        maps: names of the maps that will be read; what only others need is not computed.
    """

    def __init__(self, distribution: Distribution, maps: Collection[str] = UNCERTAINTY) -> None:
        self._distribution = distribution
        self.maps = asked_maps(maps, distribution)
        """Names of the maps that can be read."""
        self._weight = 0.0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None
        self._entropy: Tensor | None = None
        self._votes: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["RunningUncertainty"]) -> "RunningUncertainty":
        """One batch from its parts, which may have seen different members; nothing can be added to it."""
        found = cls(parts[0]._distribution, parts[0].maps)
        found._weight = 1.0
        found._squares = torch.cat([part.variance() for part in parts]) if "variance" in found.maps else None
        found._mean = _cat([part._mean for part in parts])
        found._entropy = _cat([part._entropy for part in parts])
        found._votes = _cat([part._votes for part in parts])
        return found

    @classmethod
    def restored(cls, moments: Moments, distribution: Distribution, maps: Collection[str]) -> "RunningUncertainty":
        """From :meth:`moments`, which may have been blended in between; nothing can be added to it."""
        found = cls(distribution, maps)
        found._weight = 1.0
        found._mean = None if moments.mean is None else moments.mean.float()
        if moments.mean is not None and moments.square is not None:
            found._squares = (moments.square - moments.mean.square()).clamp(min=0).float()
        found._entropy, found._votes = moments.entropy, moments.votes
        return found

    def add(self, maps: Tensor, weight: float) -> None:
        """Adds one member's activated maps ``(B, K, h, w)``; ``weight`` > 0."""
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
            self._votes[..., rows, :].lerp_(_decisions(maps, self._distribution), share)
        if self._mean is not None:
            mean = self._mean[..., rows, :]
            difference = maps - mean
            mean.add_(difference, alpha=share)
            if self._squares is not None:
                self._squares[..., rows, :].addcmul_(difference, maps - mean, value=weight)

    def moments(self) -> Moments:
        """What :meth:`restored` continues from."""
        if self._mean is None:
            return Moments(None, None, self._entropy, self._votes)
        mean = self._mean.double()
        square = self.variance().double() + mean.square() if "variance" in self.maps else None
        return Moments(mean, square, self._entropy, self._votes)

    def variance(self) -> Tensor:
        """Weighted population variance over the members, ``(B, K, h, w)``.

        Raises:
            ValueError: no member was added, or the variance was not asked for.
        """
        if self._squares is None:
            raise ValueError("no variance: add a member's maps to sums that were made for 'variance'")
        return self._squares / self._weight

    def expected_entropy(self) -> Tensor | None:
        """Weighted mean of the members' entropies, ``(B, h, w)``; ``None`` where values are no probabilities."""
        return self._entropy

    def mutual_information(self) -> Tensor | None:
        """Entropy of the members' weighted arithmetic mean less their expected entropy, in nats, ``(B, h, w)``.

        It is never negative (Jensen), whatever rule combines the members. ``None`` where values are no probabilities.
        """
        if self._mean is None or self._entropy is None:
            return None
        return (entropy(self._mean, self._distribution) - self._entropy).clamp(min=0)  # below 0 by rounding only

    def disagreement(self) -> Tensor | None:
        """Weighted share of the members that decide otherwise than most, in [0, 1], ``(B, h, w)``.

        A member decides for its most probable class, or of Bernoulli channels for those of 0.5 and more; there it is
        the mean over the channels. ``None`` where values are no probabilities. Freeman's (1965) variation ratio.
        """
        if self._votes is None:
            return None
        if self._distribution == "categorical":
            return 1 - self._votes.amax(1)
        return torch.minimum(self._votes, 1 - self._votes).mean(1)


def _cat(maps: Sequence[Tensor | None]) -> Tensor | None:
    known = [part for part in maps if part is not None]
    return torch.cat(known) if known else None


def _decisions(maps: Tensor, distribution: Distribution) -> Tensor:
    """1 where a member decides for a channel, else 0, ``(B, K, h, w)``."""
    if distribution == "categorical":
        return torch.zeros_like(maps).scatter_(1, maps.max(1, keepdim=True).indices, 1)
    return (maps >= 0.5).to(maps.dtype)
