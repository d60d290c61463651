"""Head ``fpn``: a feature pyramid."""

from collections.abc import Sequence

from torch import Tensor, nn

from densemble.nets.heads.head import DenseHead
from densemble.nets.heads.layers import WIDTH, halving_widths, normalized, resize, resize_steps, run_steps
from densemble.shapes import Size, size_of


def separable(channels: int) -> nn.Sequential:
    """3x3 depthwise convolution, 1x1 convolution, batch normalization, ReLU."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, *normalized(nn.Conv2d(channels, channels, 1, bias=False), channels))


class PyramidHead(DenseHead):
    """Feature pyramid (Lin et al. 2017) whose levels are summed at the largest size (Kirillov et al. 2019).

    Every level has 128 channels, the last one too: logits that are a sum over many features become confident within
    few training steps, logits over 32 features did not. Convolutions are depthwise separable (Chollet 2017): nearly
    the same score for an eighth of the work. If the largest map is smaller than the output, one step per doubling
    follows.
    """

    def __init__(self, channels: Sequence[int], out_channels: int, doublings: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in channels)
        self.levels = nn.ModuleList(separable(WIDTH) for _ in channels)
        widths = halving_widths(WIDTH, doublings)
        self.grow = resize_steps(widths)
        self.logits = nn.Conv2d(widths[-1], out_channels, 1)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        """``[(B, C, H, W), ...]`` deepest first -> logits ``(B, K, h, w)`` before the last resize."""
        deeper, total = None, None
        for features, lateral, level in zip(maps, self.laterals, self.levels, strict=True):
            x = lateral(features)
            x = x if deeper is None else x + resize(deeper, size_of(x))
            summand = resize(level(x), size_of(maps[-1]))
            deeper, total = x, summand if total is None else total + summand
        assert total is not None
        return run_steps(total, self.grow, self.logits, size)
