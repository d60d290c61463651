"""Held-out images for fitting rules: one after the other, or a fixed sample of their pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.combine.log_odds import SMALLEST
from densemble.ensemble.combine.rule import Images
from densemble.ensemble.resize import resize_to_target
from densemble.errors import DataError
from densemble.tasks import Distribution, Task

SAMPLE = 32_768
"""Number of sampled pixels; more pixels change the fit less than another choice of images does."""


def aligned(images: Images, task: Task) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Iterate over images: maps ``(M, K, h, w)`` at the target's size, ideal map ``(K, h, w)``, validity of its pixels.

    Raises:
        DataError: a map is not finite.
    """
    for maps, target in images():
        ideal, valid = task.as_maps(target)
        sized = resize_to_target(maps.float(), ideal, task)
        not_finite = [member for member, member_maps in enumerate(sized) if not member_maps.isfinite().all()]
        if not_finite:
            raise DataError(f"held-out maps of members {not_finite} (from 0) are not finite; leave these members out")
        yield sized, ideal, valid.expand_as(ideal)


def require_known_pixels(count: int) -> None:
    """Raise a DataError if ``count``, the number of pixels with a known target, is 0."""
    if not count:
        raise DataError("the held-out images have no pixel with a known target; nothing can be fitted to them")


@dataclass(frozen=True)
class PixelSample:
    """N pixels: members' values ``(N, M, K)``, ideal values ``(N, K)``, and which of these are valid ``(N, K)``."""

    values: Tensor
    ideal: Tensor
    valid: Tensor


def sample_pixels(images: Images, task: Task, most: int = SAMPLE) -> PixelSample:
    """Sample pixels with a known target uniformly, with a fixed seed; memory holds a small multiple of ``most`` pixels.

    Every pixel gets a random number, and those with the highest numbers are kept (reservoir sampling).

    Raises:
        DataError: no pixel has a known target, or a map is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    kept: list[_Drawn] = []
    lowest, count = 0.0, 0
    for maps, ideal, valid in aligned(images, task):
        known = valid.any(0).flatten().nonzero()[:, 0]
        numbers = torch.rand(len(known), generator=generator)
        high = numbers >= lowest
        parts = [part.flatten(-2)[..., known[high]].movedim(-1, 0) for part in (maps, ideal, valid)]
        kept.append((numbers[high], parts[0], parts[1], parts[2]))
        count += int(high.sum())
        if count >= 2 * most:
            kept = [_highest(kept, most)]
            lowest, count = float(kept[0][0].min()), most
    require_known_pixels(count)
    return PixelSample(*_highest(kept, most)[1:])


_Drawn = tuple[Tensor, Tensor, Tensor, Tensor]
"""Random numbers ``(N,)``, and the fields of a :class:`PixelSample`."""


def _highest(kept: list[_Drawn], most: int) -> _Drawn:
    numbers, values, ideal, valid = (torch.cat(parts) for parts in zip(*kept, strict=True))
    indices = numbers.topk(min(most, len(numbers))).indices
    return numbers[indices], values[indices], ideal[indices], valid[indices]


def log_loss(probabilities: Tensor, sample: PixelSample, distribution: Distribution) -> Tensor:
    """Mean negative log-likelihood, in nats per pixel (categorical) or per value, of ``(N, K)`` probabilities."""
    p = probabilities.clamp(SMALLEST, 1 - SMALLEST)
    if distribution == "categorical":
        return -(sample.ideal * p.log()).sum(1).mean()
    return F.binary_cross_entropy(p, sample.ideal, reduction="none")[sample.valid].mean()


def as_shares(weights: Sequence[float]) -> Tensor:
    """Return weights divided by their sum, ``(M,)``.

    Raises:
        ValueError: a weight is not positive.
    """
    if any(weight <= 0 for weight in weights):
        raise ValueError(f"weights {list(weights)} must be positive: leave members without weight out")
    tensor = torch.tensor(list(weights), dtype=torch.float32)
    return tensor / tensor.sum()
