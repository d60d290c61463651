"""Which input sizes a network takes, found by trying; images of any other size are resized to the nearest of them."""

from collections.abc import Callable
from dataclasses import dataclass

from densemble.shapes import Size, format_size

MULTIPLES = (1, 2, 4, 8, 14, 16, 28, 32, 48, 64, 128)
SMALL = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 75, 96, 128, 160, 192, 224, 256, 384, 512)
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


def find_rule(runs: Runs, own: Size | None) -> InputRule | None:
    """The widest rule under which a network runs; ``None``: it runs at no size that was tried.

    Args:
        runs: whether it runs at a size.
        own: the size it was pretrained at, tried where no small multiple works.
    """
    for multiple in MULTIPLES:
        if all(runs((multiple * -(-h // multiple), multiple * -(-w // multiple))) for h, w in _PROBES):
            return InputRule(multiple)
    if own is None:
        return None
    if own[0] == own[1] and runs((own[0], 2 * own[0])):
        return InputRule(own[0], own[0])
    return InputRule(fixed=own) if runs(own) else None


def with_smallest(rule: InputRule, runs: Runs) -> InputRule:
    """The rule with the least size at which the network still gives a map."""
    if rule.fixed is not None:
        return rule
    sides = sorted({-(-side // rule.multiple) * rule.multiple for side in (*SMALL, 2 * rule.multiple)})
    least = next((side for side in sides if runs((side, side))), None)
    return rule if least is None else InputRule(rule.multiple, max(least, rule.smallest))
