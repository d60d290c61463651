"""Interface of a combination rule: an accumulator of members' maps, and the row that describes it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from densemble.errors import UsageError
from densemble.tasks import Task

Fitted = Mapping[str, Tensor]
"""Parameters that a rule learned on held-out images, by name; empty for a rule without a fit."""

Images = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Called for every pass over the held-out images: yields the members' maps ``(M, K, h, w)`` and the target of each."""


class Rule(Protocol):
    """Accumulator: takes the activated maps of one member after the other and returns one map."""

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Add one member's activated maps ``(B, K, h, w)``, float32.

        Args:
            maps: maps of the member.
            weight: positive weight; a fitted rule uses its fitted weights instead.
            index: index of the member among those that the rule was fitted for.
        """

    def result(self) -> Tensor:
        """Return the combined maps ``(B, K, h, w)``.

        Raises:
            ValueError: nothing was added.
        """


@dataclass(frozen=True)
class CombinationRule:
    """A row of ``COMBINE``.

    Attributes:
        make: creates an empty accumulator from a task and the fitted parameters.
        suits: whether the rule is meaningful for a task.
        fit: learns parameters from held-out images and the members' weights; ``None``: the rule has no parameters.
        needs_all: whether the fitted parameters are invalid without one of the members; else the shares of the others
            grow.
        whole_image: whether a pixel is compared with all others of its image, so an image cannot be combined in parts.
        jumps: whether the result jumps where two nearly equal pixels change their order, so that rounding decides;
            other runtimes round in other ways, and cannot give the same result.
        averages: whether the result is the weighted mean of the maps, which other code may compute in its place.
    """

    make: Callable[[Task, Fitted], Rule]
    suits: Callable[[Task], bool] = lambda task: True
    fit: Callable[[Images, Sequence[float], Task], dict[str, Tensor]] | None = None
    needs_all: bool = False
    whole_image: bool = False
    jumps: bool = False
    averages: bool = False


def fitted_tensor(fitted: Fitted, name: str, *shape: int | None) -> Tensor:
    """Return one of the fitted parameters of a rule; ``None`` in ``shape`` stands for any length.

    Raises:
        UsageError: the tensor is missing, has another shape, or is not finite.
    """
    if name not in fitted:
        raise UsageError(f"the rule needs '{name}', which is fitted on held-out images; fit the rule first")
    tensor = fitted[name]
    if len(shape) != tensor.ndim or any(n not in (None, m) for n, m in zip(shape, tensor.shape, strict=True)):
        expected = " x ".join("any" if length is None else str(length) for length in shape)
        raise UsageError(f"the rule's '{name}' must be {expected}, got {tuple(tensor.shape)}; fit the rule again")
    if not tensor.isfinite().all():
        raise UsageError(f"the rule's '{name}' is not finite; fit the rule again")
    return tensor
