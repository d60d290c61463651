"""Layers that several heads are made of."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemble.shapes import Size


def resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear resize of ``(B, C, H, W)`` to (h, w) = ``size``; the same tensor where it has that size."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def normalized(convolution: nn.Module, channels: int) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU())


class ResizeConvolution(nn.Conv2d):
    """Bilinear resize, then a 3x3 convolution: ``(B, C, H, W)`` -> ``(B, K, h, w)``.

    ``at_low_resolution`` computes exactly the same the other way round. A 1x1 convolution commutes with bilinear
    resizing, and a 3x3 convolution is nine 1x1 convolutions whose results are shifted and added: so the nine run
    before the resize, on fewer pixels, and the shifts after it.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)
        self.at_low_resolution = False

    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        """The convolution of ``x`` resized to ``size``."""
        if not self.at_low_resolution or x.shape[-2:] == size:
            return super().forward(resize(x, size))
        taps = self.weight.permute(2, 3, 0, 1).reshape(9 * self.out_channels, self.in_channels, 1, 1)
        parts = F.pad(resize(F.conv2d(x, taps), size), (1, 1, 1, 1))
        parts = parts.view(parts.shape[0], 3, 3, self.out_channels, *parts.shape[-2:])
        height, width = size
        total: Tensor = parts[:, 0, 0, :, :height, :width]
        for row in range(3):
            for column in range(3):
                if row or column:
                    total = total + parts[:, row, column, :, row : row + height, column : column + width]
        return total if self.bias is None else total + self.bias.view(1, -1, 1, 1)


class ResizeStep(nn.Sequential):
    """Resize, 3x3 convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(*normalized(ResizeConvolution(in_channels, out_channels), out_channels))

    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` -> ``(B, K, h, w)`` at no more than twice H x W and no more than ``size``."""
        convolution, normalization, activation = self
        x = convolution(x, (min(x.shape[-2] * 2, size[0]), min(x.shape[-1] * 2, size[1])))
        return activation(normalization(x))  # type: ignore[no-any-return]


class DeconvStep(nn.Sequential):
    """4x4 transposed convolution of stride 2, batch normalization, ReLU: ``(B, C, H, W)`` -> ``(B, K, 2H, 2W)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        super().__init__(*normalized(convolution, out_channels))

    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        """Doubles whatever ``size`` is."""
        for layer in self:
            x = layer(x)
        return x


class SubpixelStep(nn.Sequential):
    """3x3 convolution to four times the channels, PixelShuffle, batch normalization, ReLU (Shi et al. 2016).

    The four filters of one output channel start equal (ICNR, Aitken et al. 2017): no checkerboard to begin with.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1, bias=False)
        with torch.no_grad():
            convolution.weight.copy_(convolution.weight[::4].repeat_interleave(4, 0))
        super().__init__(convolution, nn.PixelShuffle(2), nn.BatchNorm2d(out_channels), nn.ReLU())

    def forward(self, x: Tensor, size: Size) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` -> ``(B, K, 2H, 2W)`` whatever ``size`` is."""
        for layer in self:
            x = layer(x)
        return x
