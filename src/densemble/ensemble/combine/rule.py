"""What a combination rule is: an accumulator of members' maps, and a row that says whom it suits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from densemble.errors import UsageError
from densemble.tasks import Task

Fitted = Mapping[str, Tensor]
"""What a rule learnt on held-out images, by name; empty for a rule that learns nothing."""

Images = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Called for every pass over held-out images: gives each one's maps ``(M, K, h, w)`` and target."""


class Rule(Protocol):
    """Activated maps of the members go in one after the other, one map comes out."""

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        """Takes one member's activated maps ``(B, K, h, w)``, float32.

        Args:
            maps: of the member.
            weight: positive; a rule that was fitted has the weights in what it learnt and leaves this one out.
            index: the member's place among those that the rule was fitted for.
        """

    def result(self) -> Tensor:
        """The combined maps ``(B, K, h, w)``.

        Raises:
            ValueError: nothing was added.
        """


@dataclass(frozen=True)
class CombinationRule:
    """A row of ``COMBINE``.

    Attributes:
        make: a fresh accumulator for a task, with what was learnt.
        suits: whether the rule means something for a task.
        fit: learns from held-out images and the members' weights; ``None``: nothing is learnt.
        needs_all: whether a member that is left out spoils what was learnt; else the others' shares grow.
        whole_image: compares a pixel with all others of its image, so that an image cannot be combined in parts.
        averages: gives the weighted mean of the maps, which may then be computed otherwise.
    """

    make: Callable[[Task, Fitted], Rule]
    suits: Callable[[Task], bool] = lambda task: True
    fit: Callable[[Images, Sequence[float], Task], dict[str, Tensor]] | None = None
    needs_all: bool = False
    whole_image: bool = False
    averages: bool = False


def learnt(fitted: Fitted, name: str, *shape: int | None) -> Tensor:
    """One of the tensors that a rule was fitted to; ``None`` in ``shape`` stands for any length.

    Raises:
        UsageError: it is absent, of another shape, or not finite.
    """
    if name not in fitted:
        raise UsageError(f"the rule learns '{name}' on held-out images, and it was not given; fit the rule first")
    tensor = fitted[name]
    if len(shape) != tensor.ndim or any(n not in (None, m) for n, m in zip(shape, tensor.shape, strict=True)):
        wanted = " x ".join("any" if length is None else str(length) for length in shape)
        raise UsageError(f"the rule's '{name}' must be {wanted}, got {tuple(tensor.shape)}; fit the rule again")
    if not tensor.isfinite().all():
        raise UsageError(f"the rule's '{name}' is not finite; fit the rule again")
    return tensor
