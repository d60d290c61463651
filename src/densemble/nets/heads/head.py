"""What every head is: maps go in, logits come out, with one exact resize at the end."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from densemble.nets.heads.layers import resize
from densemble.shapes import Size


class DenseHead(nn.Module, ABC):
    """Feature maps ``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)``."""

    @abstractmethod
    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """Logits ``(B, K, h, w)`` at the head's own size, before the last resize.

        Args:
            maps: ``[(B, C, H, W), ...]`` deepest first.
            size: where steps that double stop; ``None``: they go as far as they were made to. For any ``size`` at
                least as large as that on both axes, both give the same.
        """

    def forward(self, maps: Sequence[Tensor], size: Size) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` with (h, w) = ``size``."""
        return resize(self.grid(maps, size), size)
