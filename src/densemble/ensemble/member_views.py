"""Views: a member that looks at turned, mirrored or resized images, its maps turned back; a member for free.

A view costs a forward pass and no training (test-time augmentation). Mirroring is wrong where left and right mean
something, as in keypoints of the left and the right hand.
"""

import copy
import difflib
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.shapes import Size

SMALLEST_SCALE, LARGEST_SCALE = 25, 400
_SCALE = re.compile(r"scale(\d+)")


@dataclass(frozen=True)
class View:
    """What is done to images, and undone on maps: mirrored first, then turned; nothing is cut off or filled in.

    Attributes:
        name: row of ``VIEWS``, or ``scale`` and a number of percent.
        mirrored: axes that are reversed.
        turns: quarter turns, counter-clockwise.
        scale: size at which the network sees images, as a share of the usual one.
    """

    name: str
    mirrored: tuple[int, ...] = ()
    turns: int = 0
    scale: float = 1.0

    def change(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` as the member gets them, at their own scale; odd turns give ``(B, C, W, H)``."""
        return torch.rot90(images.flip(self.mirrored), self.turns, (-2, -1))

    def undo(self, maps: Tensor) -> Tensor:
        """The inverse of :meth:`change`, for maps ``(B, K, h, w)``."""
        return torch.rot90(maps, -self.turns, (-2, -1)).flip(self.mirrored)

    def turned(self, size: Size) -> Size:
        """(H, W) of what has this size, after the turns."""
        return (size[1], size[0]) if self.turns % 2 else size

    def scaled(self, size: Size) -> Size:
        """(H, W) at the view's scale, at least one pixel."""
        height, width = (max(round(side * self.scale), 1) for side in size)
        return height, width


VIEWS: dict[str, View] = {
    view.name: view
    for view in (
        View("hflip", mirrored=(-1,)),
        View("vflip", mirrored=(-2,)),
        View("rot90", turns=1),
        View("rot180", turns=2),
        View("rot270", turns=3),
        View("scale75", scale=0.75),
        View("scale125", scale=1.25),
    )
}
"""View by name. Other scales have no row: see :func:`make_view`."""


def make_view(name: str) -> View:
    """A row of ``VIEWS``, or ``scaleN``: images at N percent of their usual size, N from 25 to 400.

    Names hold no dot, for modules are named by them.

    Raises:
        UsageError: no such view, or a scale out of range.
    """
    if name in VIEWS:
        return VIEWS[name]
    scale = _SCALE.fullmatch(name)
    if scale is None:
        near = difflib.get_close_matches(name, VIEWS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'? " if near else ""
        known = ", ".join(VIEWS)
        raise UsageError(f"no view is named '{name}'; {hint}There are: {known}, and scaleN for another N percent")
    percent = int(scale[1])
    if not SMALLEST_SCALE <= percent <= LARGEST_SCALE or percent == 100:
        raise UsageError(
            f"view '{name}' is {percent} percent of the usual size; choose one from {SMALLEST_SCALE} to "
            f"{LARGEST_SCALE} other than 100"
        )
    return View(name, scale=percent / 100)


class Viewed(nn.Module):
    """A member seen through a view: images ``(B, C, H, W)`` in [0, 1] -> logits of the size the plain member gives.

    Weights are the member's own, not copies: in an ensemble that holds both, ``parameters()`` gives them once. Turned
    and scaled images are resized to the turned and scaled input size, and not squeezed into the usual one.

    Args:
        member: the network.
        view: name of the view.

    Raises:
        UsageError: no such view, or a scale where the backbone takes one size only.
    """

    def __init__(self, member: DenseModel, view: str) -> None:
        super().__init__()
        self.view = make_view(view)
        fixed = member.spec.rule.fixed
        if fixed is not None and self.view.scale != 1:
            raise UsageError(
                f"{member.spec.backbone} takes images of {fixed[0]}x{fixed[1]} only: the view '{view}' would change "
                "nothing; leave it out"
            )
        self.member = member
        self.spec = member.spec

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``."""
        seen = self.view.change(images)
        return self.view.undo(self._at((int(seen.shape[-2]), int(seen.shape[-1])))(seen))

    def coarse(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)`` at the head's own size."""
        seen = self.view.change(images)
        return self.view.undo(self._at((int(seen.shape[-2]), int(seen.shape[-1]))).coarse(seen))

    def _at(self, seen: Size) -> DenseModel:
        """The member, weights shared, as if it had been made for the sizes of changed images."""
        spec = self.member.spec
        size = self.view.turned(spec.input_size) if spec.input_size else (seen if self.view.scale != 1 else None)
        other = copy.copy(self.member)
        other.spec = replace(
            spec,
            input_size=size and self.view.scaled(size),
            out_size=spec.out_size and self.view.turned(spec.out_size),
        )
        return other
