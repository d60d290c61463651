"""Stacking: combination by a linear layer that is fitted on held-out images (Wolpert 1992).

The layer is a 1x1 convolution. The stored predictions for the fit may be smaller than the maps combined later, and a
wider kernel would have a different meaning at that size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from densemble.ensemble.combine.fit_images import aligned, as_shares, log_loss, require_known_pixels, sample_pixels
from densemble.ensemble.combine.log_odds import from_logits, to_logits
from densemble.ensemble.combine.minimize import minimize
from densemble.ensemble.combine.rule import Fitted, Images, Rule, fitted_tensor
from densemble.errors import UsageError
from densemble.tasks import Task

_PULL = 1e-2
"""Penalty, in nats, per squared difference between a parameter and its initial value: with a lower one, the score on
images of other scenes drops."""
_RIDGE = 1e-4
"""The same penalty for values, relative to their mean square."""


class _StackedSum:
    """Sum over the members that checks their number: without one of them the sum is no valid prediction."""

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
                f"stacking was fitted for {len(self._kernel)} members, got {self._members}; "
                "fit it again without the others, or combine by 'mean'"
            )
        return self._sum


class StackedLogits(_StackedSum):
    """Sum over the members of a 1x1 convolution of each member's logits.

    Args:
        task: task whose channels are the input and the output.
        fitted: ``kernel`` ``(M, K, K)`` (member, out, in) and ``bias`` ``(K,)``.

    Raises:
        UsageError: a tensor is missing or has another shape.
    """

    def __init__(self, task: Task, fitted: Fitted) -> None:
        channels = task.out_channels
        super().__init__(fitted_tensor(fitted, "kernel", None, channels, channels))
        self._bias = fitted_tensor(fitted, "bias", channels)
        self._distribution = task.distribution

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add the probabilities ``(B, K, h, w)`` of member ``index``."""
        logits = to_logits(maps, self._distribution)
        self._add(torch.einsum("oi,bihw->bohw", self._kernel[index].to(maps), logits))

    def result(self) -> Tensor:
        """Return probabilities ``(B, K, h, w)``.

        Raises:
            UsageError: a member that the rule was fitted for is missing.
        """
        logits = self._whole()
        return from_logits(logits + self._bias.to(logits)[:, None, None], self._distribution)


class StackedValues(_StackedSum):
    """Sum of the members' values, each multiplied by a number >= 0 per member and channel (Breiman 1996).

    So nonnegative values stay nonnegative. Pixels of images are clipped to [0, 1].

    Args:
        task: meaning of the values.
        fitted: ``kernel`` ``(M, K)``.

    Raises:
        UsageError: the kernel is missing or has another shape.
    """

    def __init__(self, task: Task, fitted: Fitted) -> None:
        super().__init__(fitted_tensor(fitted, "kernel", None, task.out_channels))
        self._pixels = task.target_kind == "pixels"

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add the values ``(B, K, h, w)`` of member ``index``."""
        self._add(maps * self._kernel[index].to(maps)[:, None, None])

    def result(self) -> Tensor:
        """Return values ``(B, K, h, w)``.

        Raises:
            UsageError: a member that the rule was fitted for is missing.
        """
        return self._whole().clamp(0, 1) if self._pixels else self._whole()


def make_stacking(task: Task, fitted: Fitted) -> Rule:
    """Create the accumulator for a task: of logits, or of values that are not probabilities."""
    return StackedValues(task, fitted) if task.distribution == "none" else StackedLogits(task, fitted)


def fit_stacking(images: Images, weights: Sequence[float], task: Task) -> dict[str, Tensor]:
    """Fit the convolution to held-out images, with a penalty for the distance from the mean with ``weights``.

    Probabilities: minimizes the log-loss on a sample of pixels, starting from the mean of logits. Values: minimizes the
    squared error on all pixels, in closed form.

    Raises:
        DataError: no pixel has a known target, or a map is not finite.
    """
    shares = as_shares(weights)
    return _fit_values(images, shares, task) if task.distribution == "none" else _fit_logits(images, shares, task)


def _fit_logits(images: Images, shares: Tensor, task: Task) -> dict[str, Tensor]:
    sample, channels = sample_pixels(images, task), task.out_channels
    logits = to_logits(sample.values.transpose(1, 2), task.distribution).transpose(1, 2).flatten(1)
    # One matrix: rows are members times input channels, plus a last one for the bias; columns are output channels.
    mean = (shares[:, None, None] * torch.eye(channels)).flatten(0, 1)
    start = torch.cat([mean, torch.zeros(1, channels)])

    def loss(matrix: Tensor) -> Tensor:
        combined = from_logits(logits @ matrix[:-1] + matrix[-1], task.distribution)
        return log_loss(combined, sample, task.distribution) + _PULL * (matrix - start).square().sum()

    matrix = minimize(loss, start)
    kernel = matrix[:-1].view(len(shares), channels, channels).transpose(1, 2)
    return {"kernel": kernel.contiguous(), "bias": matrix[-1].clone()}


def _fit_values(images: Images, shares: Tensor, task: Task) -> dict[str, Tensor]:
    members, channels = len(shares), task.out_channels
    products = torch.zeros(channels, members, members, dtype=torch.float64)
    target_products = torch.zeros(channels, members, dtype=torch.float64)
    count = 0
    for maps, ideal, valid in aligned(images, task):
        for k in range(channels):
            values, target = maps[:, k, valid[k]].double(), ideal[k, valid[k]].double()
            products[k] += values @ values.T
            target_products[k] += values @ target
        count += int(valid.sum())
    require_known_pixels(count)
    kernel = [_non_negative(products[k], target_products[k], shares.double()) for k in range(channels)]
    return {"kernel": torch.stack(kernel, dim=1).float()}


def _non_negative(products: Tensor, target_products: Tensor, start: Tensor) -> Tensor:
    """Weights >= 0 of least squared error + ridge towards ``start``, from sums of products (Lawson & Hanson 1974)."""
    from scipy.optimize import nnls

    ridge = _RIDGE * products.diagonal().mean()
    if ridge == 0:
        return start  # all predictions of the channel are 0, or none of its pixels is known
    upper = torch.linalg.cholesky(products + ridge * torch.eye(len(start), dtype=products.dtype)).T
    right = torch.linalg.solve_triangular(upper.T, (target_products + ridge * start)[:, None], upper=False)[:, 0]
    return torch.from_numpy(nnls(upper.numpy(), right.numpy())[0])
