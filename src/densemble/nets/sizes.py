"""Measure which input sizes a network accepts; images of other sizes are resized to the nearest accepted size."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from densemble.nets.symbolic import int_max
from densemble.shapes import Size, format_size

MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32, 48, 64, 128)
SMALL = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 75, 96, 128, 160, 192, 224, 256, 384, 512)
COMMON_SIZES = tuple((side, side) for side in (224, 256, 384, 512, 299, 518, 32, 28, 64, 128))
"""Common sizes of networks that accept one size only."""
# Odd after every halving, after some, and odd then even: sizes at which networks with two branches may fail.
_PROBES: tuple[Size, ...] = ((193, 257), (97, 131), (222, 301))

Runs = Callable[[Size], bool]


@dataclass(frozen=True)
class InputRule:
    """Sizes that a network accepts.

    Attributes:
        multiple: height and width must be multiples of it.
        smallest: smallest height and width.
        fixed: the only accepted (H, W), for networks with position embeddings or mixing over a fixed grid.
    """

    multiple: int = 1
    smallest: int = 1
    fixed: Size | None = None

    def nearest(self, size: Size) -> Size:
        """The accepted (H, W) nearest to ``size``."""
        if self.fixed is not None:
            return self.fixed
        if self.multiple == self.smallest == 1:
            return size
        smallest = max(-(-self.smallest // self.multiple), 1)
        # Integers only: the size is symbolic while a graph is exported for images of any size.
        multiples = ((2 * side + self.multiple) // (2 * self.multiple) for side in size)
        height, width = (int_max(number, smallest) * self.multiple for number in multiples)
        return height, width

    def __str__(self) -> str:
        if self.fixed is not None:
            return f"only {format_size(self.fixed)}"
        step = "any size" if self.multiple == 1 else f"multiples of {self.multiple}"
        return step if self.smallest <= max(self.multiple, 1) else f"{step} from {self.smallest}"


def declared_sizes(model: nn.Module) -> list[Size]:
    """Sizes that a network of the user may be designed for: sizes that it declares, then common sizes."""
    config = getattr(model, "pretrained_cfg", None)
    sizes: list[Any] = [tuple(config.get("input_size", ()))[1:]] if isinstance(config, dict) else []
    for holder in (getattr(model, "config", None), model, getattr(model, "patch_embed", None)):
        sizes += [getattr(holder, name, None) for name in ("image_size", "img_size", "input_size")]
    pairs = [(size, size) if isinstance(size, int) else size for size in (*sizes, *COMMON_SIZES)]
    return list(dict.fromkeys(pair for size in pairs if (pair := _pair(size)) is not None))


def _pair(size: Any) -> Size | None:
    sides = tuple(size) if isinstance(size, list | tuple) else ()
    return sides if len(sides) == 2 and all(isinstance(side, int) and side > 0 for side in sides) else None


def find_rule(runs: Runs, own_sizes: Sequence[Size]) -> InputRule | None:
    """The most general rule under which a network runs; ``None``: the network runs at none of the tested sizes.

    Args:
        runs: whether the network runs at a size.
        own_sizes: sizes that the network may be designed for, tested in order if no small multiple works.
    """
    for multiple in MULTIPLES:
        if all(runs((multiple * -(-h // multiple), multiple * -(-w // multiple))) for h, w in _PROBES):
            return InputRule(multiple)
    for size in own_sizes:
        if size[0] == size[1] and runs((size[0], 2 * size[0])):
            return InputRule(size[0], size[0])
        if runs(size):
            return InputRule(fixed=size)
    return None


def find_rule_above(runs: Runs, smallest_sizes: Sequence[Size]) -> InputRule | None:
    """The most general rule for sizes from one of ``smallest_sizes`` up; ``None``: there is none."""
    for size in smallest_sizes:
        side = max(size)
        for multiple in MULTIPLES:
            if side % multiple:
                continue
            tests = ((side, side), (side + multiple, side + 3 * multiple), (side + 37 // multiple * multiple, 2 * side))
            if all(map(runs, tests)):
                return InputRule(multiple, side)
    return None


def with_smallest(rule: InputRule, runs: Runs) -> InputRule:
    """The rule with the smallest size at which the network still gives a map."""
    if rule.fixed is not None:
        return rule
    sides = sorted({-(-side // rule.multiple) * rule.multiple for side in (*SMALL, 2 * rule.multiple)})
    smallest = next((side for side in sides if runs((side, side))), None)
    return rule if smallest is None else InputRule(rule.multiple, max(smallest, rule.smallest))
