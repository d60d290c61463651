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


def separable(channels: int) -> nn.Sequential:
    """3x3 depthwise and 1x1 convolution, batch normalization, ReLU."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, *normalized(nn.Conv2d(channels, channels, 1, bias=False), channels))


class ResizeConvolution(nn.Conv2d):
    """Bilinear resize, then a 3x3 convolution: ``(B, C, H, W)`` -> ``(B, K, h, w)``.

    Args:
        in_channels: C, and those of the map beside it.
        out_channels: K.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, size: Size, beside: Tensor | None = None) -> Tensor:  # type: ignore[override]
        """The convolution of ``x`` resized to ``size``, and of ``beside``, which has that size, where there is one."""
        resized = resize(x, size)
        return super().forward(resized if beside is None else torch.cat([resized, beside], 1))


class ResizeStep(nn.Sequential):
    """Resize, 3x3 convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(*normalized(ResizeConvolution(in_channels, out_channels), out_channels))

    def forward(self, x: Tensor, size: Size | None) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` -> ``(B, K, h, w)`` at twice H x W, but no more than ``size`` where it is given."""
        convolution, normalization, activation = self
        doubled = (x.shape[-2] * 2, x.shape[-1] * 2)
        x = convolution(x, doubled if size is None else (min(doubled[0], size[0]), min(doubled[1], size[1])))
        return activation(normalization(x))  # type: ignore[no-any-return]


class JoinStep(nn.Sequential):
    """Resize, a larger map beside it, 3x3 convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, beside_channels: int, out_channels: int) -> None:
        super().__init__(*normalized(ResizeConvolution(in_channels + beside_channels, out_channels), out_channels))

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` and ``(B, C', h, w)`` -> ``(B, K, h, w)``."""
        convolution, normalization, activation = self
        joined = convolution(x, (beside.shape[-2], beside.shape[-1]), beside)
        return activation(normalization(joined))  # type: ignore[no-any-return]


class DeconvStep(nn.Sequential):
    """4x4 transposed convolution of stride 2, batch normalization, ReLU: ``(B, C, H, W)`` -> ``(B, K, 2H, 2W)``."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False)
        super().__init__(*normalized(convolution, out_channels))

    def forward(self, x: Tensor, size: Size | None) -> Tensor:  # type: ignore[override]
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

    def forward(self, x: Tensor, size: Size | None) -> Tensor:  # type: ignore[override]
        """``(B, C, H, W)`` -> ``(B, K, 2H, 2W)`` whatever ``size`` is."""
        for layer in self:
            x = layer(x)
        return x
