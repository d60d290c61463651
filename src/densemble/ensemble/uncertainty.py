"""Uncertainty of an ensemble from running means: entropies, mutual information, variance, disagreement.

With member probabilities p_m of weight w_m (summing to 1) and their mean p: predictive entropy H(p), expected entropy
sum_m w_m H(p_m), mutual information = their difference (Depeweg et al. 2018; Lakshminarayanan et al. 2017).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from densemble.tasks import Distribution

_TINY = 1e-12


def entropy(probabilities: Tensor, distribution: Distribution) -> Tensor:
    """Entropy in nats, ``(B, K, h, w)`` -> ``(B, h, w)``: over the channels, or the mean of Bernoulli entropies."""
    p = probabilities.clamp(0, 1)
    if distribution == "categorical":
        return -(p * p.clamp(min=_TINY).log()).sum(1)
    q = 1 - p
    return -(p * p.clamp(min=_TINY).log() + q * q.clamp(min=_TINY).log()).mean(1)


class RunningUncertainty:
    """Mean, variance, expected entropy and votes of members that come one after the other (West 1979).

    Three maps of all channels and one of a single channel are kept, however many members come. Means are moved, not
    summed: of equal members each is exactly the member's own value, and what tells them apart is exactly 0.
    """

    def __init__(self, distribution: Distribution) -> None:
        self._distribution = distribution
        self._weight = 0.0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None
        self._entropy: Tensor | None = None
        self._votes: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["RunningUncertainty"]) -> "RunningUncertainty":
        """Of one batch, from its parts, whatever members each of them has seen; no more can be added."""
        found = cls(parts[0]._distribution)
        found._weight = 1.0
        found._squares = torch.cat([part.variance() for part in parts])
        found._mean = _cat([part._mean for part in parts])
        found._entropy = _cat([part._entropy for part in parts])
        found._votes = _cat([part._votes for part in parts])
        return found

    def add(self, maps: Tensor, weight: float) -> None:
        """Takes one member's activated maps ``(B, K, h, w)``; ``weight`` > 0."""
        self._weight += weight
        share = weight / self._weight
        if self._distribution != "none":
            self._entropy = _moved(self._entropy, entropy(maps, self._distribution), share)
            self._votes = _moved(self._votes, _decisions(maps, self._distribution), share)
        if self._mean is None or self._squares is None:
            self._mean, self._squares = maps.clone(), torch.zeros_like(maps)
            return
        difference = maps - self._mean
        self._mean = self._mean + difference * share
        self._squares = self._squares + weight * difference * (maps - self._mean)

    def variance(self) -> Tensor:
        """Weighted population variance over the members, ``(B, K, h, w)``."""
        if self._squares is None:
            raise ValueError("the variance of no maps is not defined")
        return self._squares / self._weight

    def expected_entropy(self) -> Tensor | None:
        """Weighted mean of the members' entropies, ``(B, h, w)``; ``None`` where values are no probabilities."""
        return self._entropy

    def mutual_information(self) -> Tensor | None:
        """Entropy of the members' weighted mean less their expected entropy, in nats, ``(B, h, w)``.

        It is never negative (Jensen), whatever rule combines the members: the mean is this one's own. ``None`` where
        values are no probabilities.
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
    known = [own for own in maps if own is not None]
    return torch.cat(known) if known else None


def _moved(mean: Tensor | None, value: Tensor, share: float) -> Tensor:
    return value if mean is None else torch.lerp(mean, value, share)


def _decisions(maps: Tensor, distribution: Distribution) -> Tensor:
    """1 where a member decides for a channel, else 0, ``(B, K, h, w)``."""
    if distribution == "categorical":
        return torch.zeros_like(maps).scatter_(1, maps.max(1, keepdim=True).indices, 1)
    return (maps >= 0.5).to(maps.dtype)
