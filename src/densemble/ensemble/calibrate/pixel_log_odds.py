"""Pixels with a known target: their logits and targets, as input of the fit of a calibration."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from densemble.ensemble.combine.log_odds import to_logits
from densemble.errors import UsageError
from densemble.metrics.segmentation import require_labels
from densemble.tasks import Distribution

Images = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Called for every pass over the held-out data: yields the activated map, float32 ``(K, h, w)``, and the target, of the
same size, of each image."""

_LARGEST = 1 - 2**-12
"""float16 rounds larger probabilities to 1, whose log-odds would be much larger than those of the network."""


class LabelledPixels(NamedTuple):
    """Pixels of one image with a known class.

    Attributes:
        logits: log-probabilities, float32 ``(K, N)``.
        labels: 0..K-1, int64 ``(N,)``.
    """

    logits: Tensor
    labels: Tensor

    @property
    def size(self) -> int:
        """Number of pixels."""
        return len(self.labels)


class BernoulliPixels(NamedTuple):
    """Pixels of one image with Bernoulli channels.

    Attributes:
        logits: log-odds, float32 ``(K, N)``.
        target: float32 ``(K, N)`` in [0, 1], 0 where unknown.
        known: float32 ``(K, N)``, 1 where the target is known, else 0.
    """

    logits: Tensor
    target: Tensor
    known: Tensor

    @property
    def size(self) -> int:
        """Number of known values."""
        return int(self.known.sum())


KnownPixels = LabelledPixels | BernoulliPixels


def require_probabilities(distribution: Distribution) -> None:
    """Check that maps are probabilities.

    Raises:
        UsageError: they are not.
    """
    if distribution not in ("categorical", "bernoulli"):
        raise UsageError(f"only categorical and bernoulli maps are calibrated by their logits, not '{distribution}'")


def read_known_pixels(maps: Tensor, target: Tensor, distribution: Distribution, ignored: int) -> KnownPixels:
    """Read the pixels of an image that have a known target.

    Raises:
        DataError: a label is neither a class nor the ignored label.
        UsageError: maps are not probabilities.
        ValueError: maps and target have different sizes.
    """
    require_probabilities(distribution)
    if maps.shape[-2:] != target.shape[-2:]:
        raise ValueError(f"maps {tuple(maps.shape)} and target {tuple(target.shape)} are of different size")
    flat = maps.float().flatten(1)
    if distribution == "categorical":
        return _read_labels(flat, target.flatten().long(), ignored)
    known = (target != ignored).reshape(flat.shape)
    values = torch.where(known, target.reshape(flat.shape).float(), 0.0)
    return BernoulliPixels(to_logits(flat.clamp(max=_LARGEST), distribution), values, known.float())


def _read_labels(flat: Tensor, labels: Tensor, ignored: int) -> LabelledPixels:
    valid = labels != ignored
    if not valid.all():
        pixels = valid.nonzero()[:, 0]
        flat, labels = flat.index_select(1, pixels), labels.index_select(0, pixels)
    require_labels(labels, len(flat))
    return LabelledPixels(to_logits(flat, "categorical"), labels)
