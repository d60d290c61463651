"""Which input sizes a network takes, found by trying; images of any other size are resized to the nearest of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from densemble.shapes import Size, format_size

MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32, 48, 64, 128)
SMALL = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 75, 96, 128, 160, 192, 224, 256, 384, 512)
COMMON = tuple((side, side) for side in (224, 256, 384, 512, 299, 518, 32, 28, 64, 128))
"""Sizes of images that networks of one size are usually made for."""
# Odd in every halving; odd in some; odd and then even: what networks with two branches stumble over.
_PROBES: tuple[Size, ...] = ((193, 257), (97, 131), (222, 301))

Runs = Callable[[Size], bool]


@dataclass(frozen=True)
class InputRule:
    """Sizes that a network takes.

    Attributes:
        multiple: height and width have to be multiples of it.
        smallest: least height and width.
        fixed: the one size it takes, where it takes only one (position embeddings or mixing over a fixed grid).
    """

    multiple: int = 1
    smallest: int = 1
    fixed: Size | None = None

    def nearest(self, size: Size) -> Size:
        """The permitted (H, W) nearest to ``size``."""
        if self.fixed is not None:
            return self.fixed
        least = -(-self.smallest // self.multiple)
        height, width = (max(int(n / self.multiple + 0.5), least, 1) * self.multiple for n in size)
        return height, width

    def __str__(self) -> str:
        if self.fixed is not None:
            return f"only {format_size(self.fixed)}"
        step = "any size" if self.multiple == 1 else f"multiples of {self.multiple}"
        return step if self.smallest <= max(self.multiple, 1) else f"{step} from {self.smallest}"


def declared_sizes(model: nn.Module) -> list[Size]:
    """Sizes that a network of the user may have been made for: what it says of itself first, then common ones."""
    config = getattr(model, "pretrained_cfg", None)
    sizes: list[Any] = [tuple(config.get("input_size", ()))[1:]] if isinstance(config, dict) else []
    for holder in (getattr(model, "config", None), model, getattr(model, "patch_embed", None)):
        sizes += [getattr(holder, name, None) for name in ("image_size", "img_size", "input_size")]
    pairs = [(size, size) if isinstance(size, int) else size for size in (*sizes, *COMMON)]
    return list(dict.fromkeys(pair for size in pairs if (pair := _pair(size)) is not None))


def _pair(size: Any) -> Size | None:
    sides = tuple(size) if isinstance(size, list | tuple) else ()
    return sides if len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides) else None


def find_rule(runs: Runs, own: Sequence[Size]) -> InputRule | None:
    """The widest rule under which a network runs; ``None``: it runs at no size that was tried.

    Args:
        runs: whether it runs at a size.
        own: sizes that it may have been made for, tried in turn where no small multiple works.
    """
    for multiple in MULTIPLES:
        if all(runs((multiple * -(-h // multiple), multiple * -(-w // multiple))) for h, w in _PROBES):
            return InputRule(multiple)
    for size in own:
        if size[0] == size[1] and runs((size[0], 2 * size[0])):
            return InputRule(size[0], size[0])
        if runs(size):
            return InputRule(fixed=size)
    return None


def find_rule_above(runs: Runs, least: Sequence[Size]) -> InputRule | None:
    """The widest rule for sizes from one of ``least`` up; ``None``: there is none."""
    for size in least:
        side = max(size)
        for multiple in MULTIPLES:
            if side % multiple:
                continue
            tried = ((side, side), (side + multiple, side + 3 * multiple), (side + 37 // multiple * multiple, 2 * side))
            if all(runs(one) for one in tried):
                return InputRule(multiple, side)
    return None


def with_smallest(rule: InputRule, runs: Runs) -> InputRule:
    """The rule with the least size at which the network still gives a map."""
    if rule.fixed is not None:
        return rule
    sides = sorted({-(-side // rule.multiple) * rule.multiple for side in (*SMALL, 2 * rule.multiple)})
    least = next((side for side in sides if runs((side, side))), None)
    return rule if least is None else InputRule(rule.multiple, max(least, rule.smallest))
