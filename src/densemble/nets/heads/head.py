"""Base class of all heads, and the type of the rows of ``HEADS``."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from densemble.nets.heads.layers import resize
from densemble.shapes import Size


class DenseHead(nn.Module, ABC):
    """Map feature maps ``[(B, C, H, W), ...]``, deepest first, to logits ``(B, K, h, w)``.

    Every head ends with one exact resize, so it accepts feature maps of any size.
    """

    @abstractmethod
    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """Logits ``(B, K, h, w)`` at the resolution of the head, before the last resize.

        Args:
            maps: ``[(B, C, H, W), ...]`` deepest first.
            size: (h, w) at which doubling steps stop; ``None``: no limit. Any ``size`` that is at least as large as
                the unlimited result on both axes gives the same logits as ``None``.
        """

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` with (h, w) = ``size``."""
        return resize(self.grid(maps, size), size)


MakeHead = Callable[[Sequence[int], int, int], DenseHead]
"""(channels of the feature maps, deepest first; out_channels; doublings of the largest map) -> head."""


@dataclass(frozen=True)
class Head:
    """A row of ``HEADS``.

    Attributes:
        make: see :data:`MakeHead`.
        multi_level: the head uses all feature maps. Otherwise it uses only the deepest, and an automatic cut keeps
            more detail.
        tuned: ``densemble tune`` tries this head.
    """

    make: MakeHead
    multi_level: bool = False
    tuned: bool = True
