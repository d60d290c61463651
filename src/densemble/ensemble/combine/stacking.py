"""Stacking: the members' maps go through one more layer, which learns on held-out images (Wolpert 1992).

The layer is a 1x1 convolution. Kept predictions may be smaller than the maps that are combined later, and a wider
kernel would mean something else there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from densemble.ensemble.combine.fit_images import aligned, as_shares, log_loss, sample_pixels
from densemble.ensemble.combine.log_odds import from_logits, to_logits
from densemble.ensemble.combine.minimize import minimize
from densemble.ensemble.combine.rule import Fitted, Images, Rule, learnt
from densemble.errors import DataError, UsageError
from densemble.tasks import Task

_PULL = 1e-2
"""Log-loss per squared difference of a parameter from where it started: with less, images of another scene lose."""
_RIDGE = 1e-4
"""The same for values: relative to the values' mean square."""


class _StackedSum:
    """Counts the members: a sum without one of them would be no prediction."""

    def __init__(self, kernel: Tensor) -> None:
        self._kernel = kernel
        self._sum: Tensor | None = None
        self._members = 0

    def _add(self, part: Tensor) -> None:
        self._sum = part if self._sum is None else self._sum + part
        self._members += 1

    def _whole(self) -> Tensor:
        if self._sum is None:
            raise ValueError("the sum of no maps is not defined")
        if self._members != len(self._kernel):
            raise UsageError(
                f"stacking was fitted for {len(self._kernel)} members and {self._members} are there; "
                "fit it again without the others, or combine by 'mean'"
            )
        return self._sum


class StackedLogits(_StackedSum):
    """Sum over the members of a 1x1 convolution of each one's logits.

    Args:
        task: whose channels go in and come out.
        fitted: ``kernel`` ``(M, K, K)`` (member, out, in) and ``bias`` ``(K,)``.

    Raises:
        UsageError: they are absent or of another shape.
    """

    def __init__(self, task: Task, fitted: Fitted) -> None:
        channels = task.out_channels
        super().__init__(learnt(fitted, "kernel", None, channels, channels))
        self._bias = learnt(fitted, "bias", channels)
        self._distribution = task.distribution

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes the probabilities ``(B, K, h, w)`` of member ``index``."""
        logits = to_logits(maps, self._distribution)
        self._add(torch.einsum("oi,bihw->bohw", self._kernel[index].to(maps), logits))

    def result(self) -> Tensor:
        """Probabilities ``(B, K, h, w)``.

        Raises:
            UsageError: not all members were added that the rule was fitted for.
        """
        logits = self._whole()
        return from_logits(logits + self._bias.to(logits)[:, None, None], self._distribution)


class StackedValues(_StackedSum):
    """Sum of the members' values, each times a number >= 0 of its own per channel (Breiman 1996).

    What cannot be negative stays so; pixels of images are kept within [0, 1].

    Args:
        task: whose values they are.
        fitted: ``kernel`` ``(M, K)``.

    Raises:
        UsageError: it is absent or of another shape.
    """

    def __init__(self, task: Task, fitted: Fitted) -> None:
        super().__init__(learnt(fitted, "kernel", None, task.out_channels))
        self._pixels = task.target_kind == "pixels"

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes the values ``(B, K, h, w)`` of member ``index``."""
        self._add(maps * self._kernel[index].to(maps)[:, None, None])

    def result(self) -> Tensor:
        """Values ``(B, K, h, w)``.

        Raises:
            UsageError: not all members were added that the rule was fitted for.
        """
        return self._whole().clamp(0, 1) if self._pixels else self._whole()


def make_stacking(task: Task, fitted: Fitted) -> Rule:
    """The stacking that a task takes: of logits, or of values that are no probabilities."""
    return StackedValues(task, fitted) if task.distribution == "none" else StackedLogits(task, fitted)


def fit_stacking(images: Images, weights: Sequence[float], task: Task) -> dict[str, Tensor]:
    """The convolution that fits held-out images best, pulled towards the mean with ``weights``, one per member.

    Probabilities: by log-loss, from the mean of logits, on a sample of pixels. Values: by squared error, exactly, on
    all pixels.

    Raises:
        DataError: no pixel has a known target, or a map is not finite.
    """
    shares = as_shares(weights)
    return _fit_values(images, shares, task) if task.distribution == "none" else _fit_logits(images, shares, task)


def _fit_logits(images: Images, shares: Tensor, task: Task) -> dict[str, Tensor]:
    sample, channels = sample_pixels(images, task), task.out_channels
    logits = to_logits(sample.values.transpose(1, 2), task.distribution).transpose(1, 2).flatten(1)
    # One matrix: a row per member and channel that goes in, and a last one for the bias; a column per channel.
    mean = (shares[:, None, None] * torch.eye(channels)).flatten(0, 1)
    start = torch.cat([mean, torch.zeros(1, channels)])

    def loss(matrix: Tensor) -> Tensor:
        combined = from_logits(logits @ matrix[:-1] + matrix[-1], task.distribution)
        return log_loss(combined, sample, task.distribution) + _PULL * (matrix - start).square().sum()

    found = minimize(loss, start)
    kernel = found[:-1].view(len(shares), channels, channels).transpose(1, 2)
    return {"kernel": kernel.contiguous(), "bias": found[-1].clone()}


def _fit_values(images: Images, shares: Tensor, task: Task) -> dict[str, Tensor]:
    members, channels = len(shares), task.out_channels
    products = torch.zeros(channels, members, members, dtype=torch.float64)
    with_truth = torch.zeros(channels, members, dtype=torch.float64)
    count = 0
    for maps, wanted, valid in aligned(images, task):
        for k in range(channels):
            own, truth = maps[:, k, valid[k]].double(), wanted[k, valid[k]].double()
            products[k] += own @ own.T
            with_truth[k] += own @ truth
        count += int(valid.sum())
    if not count:
        raise DataError("the held-out images have no pixel with a known target; nothing can be fitted to them")
    kernel = [_non_negative(products[k], with_truth[k], shares.double()) for k in range(channels)]
    return {"kernel": torch.stack(kernel, dim=1).float()}


def _non_negative(products: Tensor, with_truth: Tensor, start: Tensor) -> Tensor:
    """Weights >= 0 of least squared error + ridge towards ``start``, from sums of products (Lawson & Hanson 1974)."""
    from scipy.optimize import nnls

    ridge = _RIDGE * products.diagonal().mean()
    if ridge == 0:
        return start  # all predictions of the channel are 0, or nothing is known of it
    upper = torch.linalg.cholesky(products + ridge * torch.eye(len(start), dtype=products.dtype)).T
    wanted = torch.linalg.solve_triangular(upper.T, (with_truth + ridge * start)[:, None], upper=False)[:, 0]
    return torch.from_numpy(nnls(upper.numpy(), wanted.numpy())[0])
