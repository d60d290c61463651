"""Heads ``smp-...``: decoders of segmentation-models-pytorch on the feature maps of any backbone.

The decoders of smp expect five maps, each exactly half the size of the one before. The deepest map of the backbone
keeps its size, and the other maps are resized to exact multiples of it. If a backbone gives fewer than five maps, the
deepest map is halved further. So a decoder accepts every image size, and its output size is right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from densemble.errors import needs_package
from densemble.nets.heads.head import DenseHead, Head
from densemble.nets.heads.layers import resize
from densemble.nets.symbolic import int_max
from densemble.shapes import Size, size_of

DEPTH = 5
WIDTHS = (256, 128, 64, 32, 16)
SMALLEST_SIDE = 8  # PAN halves its deepest map three times


@dataclass(frozen=True)
class Decoder:
    """A row of ``DECODERS``.

    Attributes:
        make: called with six numbers of channels, the image's first; returns the decoder and its output channels.
        dilated: the decoder expects its deepest map at the size of the next larger one.
    """

    make: Callable[[list[int]], tuple[nn.Module, int]]
    dilated: bool = False


def _decoder(module: str, name: str, width: int, dilated: bool = False, **options: Any) -> Decoder:
    def make(channels: list[int]) -> tuple[nn.Module, int]:
        return _load(module, name)(encoder_channels=channels, **options), width

    return Decoder(make, dilated)


def _load(module: str, name: str) -> Any:
    with needs_package("segmentation-models-pytorch", "a head named smp-...", "decoders"):
        return getattr(import_module(f"segmentation_models_pytorch.decoders.{module}.decoder"), name)


def _deeplabv3(channels: list[int]) -> tuple[nn.Module, int]:
    build = _load("deeplabv3", "DeepLabV3Decoder")
    return build(channels[-1], 256, atrous_rates=(12, 24, 36), aspp_separable=False, aspp_dropout=0.5), 256


class _Dpt(nn.Module):
    """DPT's decoder of four maps, without the class tokens that it also accepts."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.decoder = _load("dpt", "DPTDecoder")(
            encoder_out_channels=channels[2:],
            encoder_output_strides=(4, 8, 16, 32),
            encoder_has_prefix_tokens=False,
            readout="ignore",
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        decoded: Tensor = self.decoder(maps[2:], [None] * 4)
        return decoded


DECODERS: dict[str, Decoder] = {
    "unet": _decoder("unet", "UnetDecoder", 16, decoder_channels=WIDTHS),
    "unetplusplus": _decoder("unetplusplus", "UnetPlusPlusDecoder", 16, decoder_channels=WIDTHS),
    "manet": _decoder("manet", "MAnetDecoder", 16, decoder_channels=WIDTHS),
    "linknet": _decoder("linknet", "LinknetDecoder", 32),
    "fpn": _decoder("fpn", "FPNDecoder", 128),
    "pspnet": _decoder("pspnet", "PSPDecoder", 512),
    "pan": _decoder("pan", "PANDecoder", 32, encoder_depth=DEPTH, decoder_channels=32),
    "deeplabv3": Decoder(_deeplabv3),
    "deeplabv3plus": _decoder(
        "deeplabv3", "DeepLabV3PlusDecoder", 256, dilated=True, encoder_depth=DEPTH, out_channels=256,
        atrous_rates=(12, 24, 36), output_stride=16, aspp_separable=True, aspp_dropout=0.5,
    ),
    "upernet": _decoder("upernet", "UPerNetDecoder", 256),
    "segformer": _decoder("segformer", "SegformerDecoder", 256),
    "dpt": Decoder(lambda channels: (_Dpt(channels), 256)),
}  # fmt: skip
"""Decoder by name."""


class SmpHead(DenseHead):
    """A decoder of segmentation-models-pytorch, then a 1x1 convolution to logits; ``doublings`` has no effect."""

    def __init__(self, name: str, channels: Sequence[int], out_channels: int, doublings: int) -> None:
        super().__init__()
        self.count = min(len(channels), DEPTH)
        self.dilated = DECODERS[name].dilated
        # Level 1 is the largest; levels from `count` on use the deepest map.
        self.sources = [max(self.count - level, 0) for level in range(1, DEPTH + 1)]
        self.decoder, width = DECODERS[name].make([3, *(channels[source] for source in self.sources)])
        self.logits = nn.Conv2d(width, out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` at the resolution of the decoder."""
        sizes = self._sizes(maps[0])
        pyramid = [_resize(maps[source], size) for source, size in zip(self.sources, sizes, strict=True)]
        if self.dilated:
            pyramid[-1] = resize(pyramid[-1], size_of(pyramid[-2]))
        # The first entry stands for the image; no decoder uses it.
        logits: Tensor = self.logits(self.decoder([pyramid[0], *pyramid]))
        return logits

    def _sizes(self, deepest: Tensor) -> list[Size]:
        halved = 2 ** (DEPTH - self.count)
        base = [int_max(-(-side // halved), SMALLEST_SIDE) for side in deepest.shape[-2:]]
        return [(base[0] * 2 ** (DEPTH - level), base[1] * 2 ** (DEPTH - level)) for level in range(1, DEPTH + 1)]


def _resize(x: Tensor, size: Size) -> Tensor:
    """Resize a map; average if both sides shrink by more than a third."""
    if x.shape[-2] > 1.5 * size[0] and x.shape[-1] > 1.5 * size[1]:
        return F.adaptive_avg_pool2d(x, size)
    return resize(x, size)


SMP_HEADS = {f"smp-{name}": Head(partial(SmpHead, name), multi_level=True, tuned=False) for name in DECODERS}
"""Rows of ``HEADS``, one per decoder."""
