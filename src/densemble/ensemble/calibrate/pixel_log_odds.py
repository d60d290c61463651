"""What an image says about a calibration: log-odds of the pixels that count, beside what is true there."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from densemble.errors import DataError, UsageError
from densemble.tasks import Distribution

Images = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Called again for every pass over the held-out data: gives activated maps float32 ``(K, h, w)`` and the target of the
same size, image by image."""

_SMALLEST = 1e-7
"""Probabilities are kept as 16-bit floats, whose smallest positive value is 6e-8."""
_LARGEST = 1 - 2**-12
"""A 16-bit float rounds whatever is larger to 1, which would be read as far surer than the network was."""


class Labelled(NamedTuple):
    """Pixels of one image whose class is known.

    Attributes:
        scores: log-probabilities, float32 ``(K, N)``.
        labels: 0..K-1, int64 ``(N,)``.
    """

    scores: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """How many pixels there are."""
        return len(self.labels)


class Masked(NamedTuple):
    """Pixels of one image with Bernoulli channels.

    Attributes:
        scores: log-odds, float32 ``(K, N)``.
        truth: float32 ``(K, N)`` in [0, 1], 0 where unknown.
        known: float32 ``(K, N)``, 1 where the truth is known, else 0.
    """

    scores: Tensor
    truth: Tensor
    known: Tensor

    @property
    def size(self) -> int:
        """How many values are known."""
        return int(self.known.sum())


Evidence = Labelled | Masked


def scores(maps: Tensor, distribution: Distribution) -> Tensor:
    """What calibration is linear in: log-probabilities, or log-odds of Bernoulli probabilities; finite."""
    return maps.clamp(min=_SMALLEST).log() if distribution == "categorical" else torch.logit(maps, eps=_SMALLEST)


def probabilities(scores: Tensor, distribution: Distribution) -> Tensor:
    """Probabilities ``(B, K, ...)`` of scores: the inverse of :func:`scores`."""
    return torch.softmax(scores, dim=1) if distribution == "categorical" else torch.sigmoid(scores)


def require_probabilities(distribution: Distribution) -> None:
    """Refuses maps that are no probabilities.

    Raises:
        UsageError: they are not.
    """
    if distribution not in ("categorical", "bernoulli"):
        raise UsageError(f"only categorical and bernoulli maps are calibrated by their logits, not '{distribution}'")


def read_evidence(maps: Tensor, target: Tensor, distribution: Distribution, ignored: int) -> Evidence:
    """The pixels of an image that count.

    Raises:
        DataError: a label outside the channels that is not the ignored one.
        UsageError: maps that are no probabilities.
        ValueError: a target of another size.
    """
    require_probabilities(distribution)
    if maps.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"maps {tuple(maps.shape)} and target {tuple(target.shape)} are of different size")
    flat = maps.float().flatten(1)
    if distribution == "categorical":
        return _read_labels(flat, target.flatten().long(), ignored)
    known = (target != ignored).reshape(flat.shape)
    truth = torch.where(known, target.reshape(flat.shape).float(), 0.0)
    return Masked(scores(flat.clamp(max=_LARGEST), distribution), truth, known.float())


def _read_labels(flat: Tensor, labels: Tensor, ignored: int) -> Labelled:
    valid = labels != ignored
    if not valid.all():
        pixels = valid.nonzero()[:, 0]
        flat, labels = flat.index_select(1, pixels), labels.index_select(0, pixels)
    wrong = (labels < 0) | (labels >= len(flat))
    if wrong.any():
        raise DataError(
            f"label {int(labels[wrong][0])} is outside the {len(flat)} classes; "
            "name more classes or ignore it with data.ignore_index"
        )
    return Labelled(scores(flat, "categorical"), labels)
