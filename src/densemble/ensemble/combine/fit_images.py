"""Held-out images as a fit reads them: all of them in turn, or a fixed sample of their pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.ensemble.combine.log_odds import SMALLEST
from densemble.ensemble.combine.rule import Images
from densemble.ensemble.resize import resize_maps
from densemble.errors import DataError
from densemble.tasks import Distribution, Task

SAMPLE = 32_768
"""Pixels that are kept; more change what is learnt by less than another choice of images does."""


def aligned(images: Images, task: Task) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Each image's maps ``(M, K, h, w)`` at its target's size, the ideal map ``(K, h, w)``, and where it is valid.

    Raises:
        DataError: a map that is not finite.
    """
    for maps, target in images():
        wanted, valid = task.as_maps(target)
        size = (int(wanted.shape[-2]), int(wanted.shape[-1]))
        sized = resize_maps(maps.float(), size, task.target_kind == "density")
        spoilt = [m for m, own in enumerate(sized) if not own.isfinite().all()]
        if spoilt:
            raise DataError(f"held-out maps of members {spoilt} (from 0) are not finite; leave these members out")
        yield sized, wanted, valid.expand_as(wanted)


@dataclass(frozen=True)
class PixelSample:
    """N pixels: members' values ``(N, M, K)``, ideal values ``(N, K)``, and which of them are valid ``(N, K)``."""

    values: Tensor
    wanted: Tensor
    valid: Tensor


def sample_pixels(images: Images, task: Task, most: int = SAMPLE) -> PixelSample:
    """Pixels with a known target, each as likely as any other, the same at every call; memory holds few times ``most``.

    Every pixel draws a number; those with the highest stay (reservoir sampling).

    Raises:
        DataError: there is none, or a map is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    kept: list[_Drawn] = []
    lowest, count = 0.0, 0
    for maps, wanted, valid in aligned(images, task):
        known = valid.any(0).flatten().nonzero()[:, 0]
        numbers = torch.rand(len(known), generator=generator)
        high = numbers >= lowest
        values, truth, sure = (part.flatten(-2)[..., known[high]].movedim(-1, 0) for part in (maps, wanted, valid))
        kept.append((numbers[high], values, truth, sure))
        count += int(high.sum())
        if count >= 2 * most:
            kept = [_highest(kept, most)]
            lowest, count = float(kept[0][0].min()), most
    if not count:
        raise DataError("the held-out images have no pixel with a known target; nothing can be fitted to them")
    _, values, truth, sure = _highest(kept, most)
    return PixelSample(values, truth, sure)


_Drawn = tuple[Tensor, Tensor, Tensor, Tensor]


def _highest(kept: list[_Drawn], most: int) -> _Drawn:
    numbers, values, truth, sure = (torch.cat(parts) for parts in zip(*kept, strict=True))
    places = numbers.topk(min(most, len(numbers))).indices
    return numbers[places], values[places], truth[places], sure[places]


def log_loss(probabilities: Tensor, sample: PixelSample, distribution: Distribution) -> Tensor:
    """Mean negative log-likelihood, in nats per pixel (categorical) or per value, of ``(N, K)`` probabilities."""
    p = probabilities.clamp(SMALLEST, 1 - SMALLEST)
    if distribution == "categorical":
        return -(sample.wanted * p.log()).sum(1).mean()
    return F.binary_cross_entropy(p, sample.wanted, reduction="none")[sample.valid].mean()


def as_shares(weights: Sequence[float]) -> Tensor:
    """Weights divided by their sum, ``(M,)``.

    Raises:
        ValueError: one is not positive.
    """
    if any(weight <= 0 for weight in weights):
        raise ValueError(f"weights {list(weights)} must be positive: leave members without weight out")
    given = torch.tensor(list(weights), dtype=torch.float32)
    return given / given.sum()
