"""segmentation-models-pytorch's decoders over the maps of any backbone; the one door to that library.

Its decoders want five maps, each exactly half as large as the one before. Ours are what the backbone gives: the
deepest map keeps its size, the others are resized to its exact doubles, and where a backbone gives fewer than five
maps the deepest is halved on. So no size is refused and none comes out wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets.heads.head import DenseHead
from densemble.nets.heads.layers import resize
from densemble.shapes import Size

DEPTH = 5
WIDTHS = (256, 128, 64, 32, 16)
LEAST = 8  # PAN halves its deepest map three times


@dataclass(frozen=True)
class Decoder:
    """A row of ``DECODERS``.

    Attributes:
        make: called with six channel numbers, those of the image first; returns it and its output channels.
        dilated: it takes its deepest map at the size of the one before.
    """

    make: Callable[[list[int]], tuple[nn.Module, int]]
    dilated: bool = False


def _decoder(module: str, name: str, width: int, dilated: bool = False, **options: Any) -> Decoder:
    def make(channels: list[int]) -> tuple[nn.Module, int]:
        return _load(module, name)(encoder_channels=channels, **options), width

    return Decoder(make, dilated)


def _load(module: str, name: str) -> Any:
    try:
        return getattr(import_module(f"segmentation_models_pytorch.decoders.{module}.decoder"), name)
    except ImportError as error:
        raise UsageError(
            f"the heads named smp-... need segmentation-models-pytorch ({error}); "
            "install it with pip install 'densemble[decoders]'"
        ) from error


def _deeplabv3(channels: list[int]) -> tuple[nn.Module, int]:
    build = _load("deeplabv3", "DeepLabV3Decoder")
    return build(channels[-1], 256, atrous_rates=(12, 24, 36), aspp_separable=False, aspp_dropout=0.5), 256


class _Dpt(nn.Module):
    """DPT's decoder takes its four maps and their class tokens, of which there are none here."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.decoder = _load("dpt", "DPTDecoder")(
            encoder_out_channels=channels[2:],
            encoder_output_strides=(4, 8, 16, 32),
            encoder_has_prefix_tokens=False,
            readout="ignore",
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        found: Tensor = self.decoder(maps[2:], [None] * 4)
        return found


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
    """A decoder of segmentation-models-pytorch, then a 1x1 convolution to logits."""

    def __init__(self, name: str, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.count = min(len(channels), DEPTH)
        self.dilated = DECODERS[name].dilated
        # Level 1 is the largest; from level `count` on, the deepest map.
        self.sources = [max(self.count - level, 0) for level in range(1, DEPTH + 1)]
        own = [channels[source] for source in self.sources]
        self.decoder, width = DECODERS[name].make([3, *own])
        self.logits = nn.Conv2d(width, out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` at the decoder's own size."""
        pyramid = [_exact(maps[source], side) for source, side in zip(self.sources, self._sizes(maps[0]), strict=True)]
        if self.dilated:
            pyramid[-1] = resize(pyramid[-1], (pyramid[-2].shape[-2], pyramid[-2].shape[-1]))
        # The first entry stands for the image, which no decoder looks at.
        logits: Tensor = self.logits(self.decoder([pyramid[0], *pyramid]))
        return logits

    def _sizes(self, deepest: Tensor) -> list[Size]:
        halved = 2 ** (DEPTH - self.count)
        base = [max(-(-side // halved), LEAST) for side in deepest.shape[-2:]]
        return [(base[0] * 2 ** (DEPTH - level), base[1] * 2 ** (DEPTH - level)) for level in range(1, DEPTH + 1)]


def _exact(x: Tensor, size: Size) -> Tensor:
    """Resized, averaging where it becomes much smaller."""
    if x.shape[-2] > 1.5 * size[0] and x.shape[-1] > 1.5 * size[1]:
        return F.adaptive_avg_pool2d(x, size)
    return resize(x, size)
