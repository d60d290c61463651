"""torchvision's vision transformers for images of any size."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class ResamplingTransformer(nn.Module):
    """A torchvision ``VisionTransformer`` with the same keys, for images of any size (Dosovitskiy et al. 2021).

    The image is padded with zeros to whole patches. Position embeddings are resampled bicubically to its grid.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.conv_proj = transformer.conv_proj
        self.class_token = transformer.class_token
        self.encoder = transformer.encoder
        self.heads = transformer.heads
        self.patch = int(transformer.patch_size)  # type: ignore[arg-type]
        self.grid = int(transformer.image_size) // self.patch  # type: ignore[arg-type]
        self.checkpointing = False
        self.feature_info = [{"module": f"encoder.layers.{name}"} for name, _ in self._layers()]

    def _layers(self) -> list[tuple[str, nn.Module]]:
        return list(self.encoder.layers.named_children())  # type: ignore[union-attr]

    def _tokens(self, images: Tensor) -> tuple[Tensor, int, int]:
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.patch, 0, -height % self.patch))
        patches: Tensor = self.conv_proj(images)  # type: ignore[operator]
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(tokens.shape[0], -1, -1), tokens], 1)  # type: ignore[operator]
        return self.encoder.dropout(tokens + self._positions(rows, columns)), rows, columns  # type: ignore[operator,union-attr]

    def _positions(self, rows: int, columns: int) -> Tensor:
        stored: Tensor = self.encoder.pos_embedding  # type: ignore[assignment,union-attr]
        if (rows, columns) == (self.grid, self.grid):
            return stored
        first, grid = stored[:, :1], stored[:, 1:].transpose(1, 2).reshape(1, -1, self.grid, self.grid)
        resampled = F.interpolate(grid, (rows, columns), mode="bicubic", antialias=True, align_corners=False)
        return torch.cat([first, resampled.flatten(2).transpose(1, 2)], 1)

    def forward_intermediates(
        self, x: Tensor, indices: Sequence[int], stop_early: bool = True, intermediates_only: bool = True
    ) -> list[Tensor]:
        """Feature maps ``(B, D, H / patch, W / patch)`` after the layers ``indices``, with timm's interface.

        The two flags exist for compatibility with timm and have no effect: later layers do not run, and only the
        maps are returned.
        """
        layers = self._layers()
        tokens, rows, columns = self._tokens(x)
        maps = {}
        for i, (_, layer) in enumerate(layers[: max(indices) + 1]):
            recompute = self.checkpointing and torch.is_grad_enabled()
            tokens = checkpoint(layer, tokens, use_reentrant=False) if recompute else layer(tokens)
            if i in indices:
                maps[i] = tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))
        return [maps[i] for i in indices]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each layer for the gradient instead of storing its inner tensors."""
        self.checkpointing = enable

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` -> class scores ``(B, classes)``, as in torchvision."""
        tokens, _, _ = self._tokens(x)
        for _, layer in self._layers():
            tokens = layer(tokens)
        scores: Tensor = self.heads(self.encoder.ln(tokens)[:, 0])  # type: ignore[operator,union-attr]
        return scores
