"""Views: a member on mirrored, turned or resized images, with its maps transformed back.

A view adds a candidate without training and costs one forward pass (test-time augmentation). Mirroring is wrong if
left and right have a meaning, as in keypoints of the left and the right hand.
"""

import copy
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from densemble.errors import UsageError, unknown_name
from densemble.nets.dense import DenseModel
from densemble.shapes import Size, size_of

SMALLEST_SCALE, LARGEST_SCALE = 25, 400
_SCALE = re.compile(r"scale(\d+)")


@dataclass(frozen=True)
class View:
    """Transformation of images, and its inverse for maps. Mirrors first, then turns; no pixel is cropped or padded.

    Attributes:
        name: row of ``VIEWS``, or ``scaleN`` with N in percent.
        mirrored: axes to reverse.
        turns: number of quarter turns, counter-clockwise.
        scale: size of the network's input, as a share of the usual size.
    """

    name: str
    mirrored: tuple[int, ...] = ()
    turns: int = 0
    scale: float = 1.0

    def change(self, images: Tensor) -> Tensor:
        """Mirror and turn images ``(B, C, H, W)``; odd turns give ``(B, C, W, H)``. The scale is not applied."""
        return torch.rot90(images.flip(self.mirrored), self.turns, (-2, -1))

    def undo(self, maps: Tensor) -> Tensor:
        """Apply the inverse of :meth:`change` to maps ``(B, K, h, w)``."""
        return torch.rot90(maps, -self.turns, (-2, -1)).flip(self.mirrored)

    def turned(self, size: Size) -> Size:
        """Return (H, W) of an image of this size after the turns."""
        return (size[1], size[0]) if self.turns % 2 else size

    def scaled(self, size: Size) -> Size:
        """Return (H, W) at the view's scale, at least one pixel."""
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
"""Views by name. Other scales are made by :func:`make_view`."""


def make_view(name: str) -> View:
    """Return a row of ``VIEWS``, or the view ``scaleN``: images at N percent of their usual size, N from 25 to 400.

    Names contain no dot, because modules are named by them.

    Raises:
        UsageError: there is no such view, or a scale is out of range.
    """
    if name in VIEWS:
        return VIEWS[name]
    scale = _SCALE.fullmatch(name)
    if scale is None:
        raise UsageError(f"{unknown_name('view', name, VIEWS)}, and scaleN for N percent")
    percent = int(scale[1])
    if not SMALLEST_SCALE <= percent <= LARGEST_SCALE or percent == 100:
        raise UsageError(
            f"view '{name}' is {percent} percent of the usual size; give a number from {SMALLEST_SCALE} to "
            f"{LARGEST_SCALE} other than 100"
        )
    return View(name, scale=percent / 100)


class ViewedMember(nn.Module):
    """Runs a member on transformed images ``(B, C, H, W)`` in [0, 1]; logits have the size of the member's.

    The weights are shared with the member, not copied: in an ensemble that holds both, ``parameters()`` returns them
    once. The input size of the network is turned and scaled like the images, so that they keep their aspect ratio.

    Args:
        member: the network.
        view: name of the view.

    Raises:
        UsageError: there is no such view, or it scales images but the backbone takes one size only.
    """

    def __init__(self, member: DenseModel, view: str) -> None:
        super().__init__()
        self.view = make_view(view)
        fixed = member.spec.rule.fixed
        if fixed is not None and self.view.scale != 1:
            raise UsageError(
                f"{member.spec.backbone} takes images of {fixed[0]}x{fixed[1]} only: the view '{view}' would have no "
                "effect; leave it out"
            )
        self.member = member
        self.spec = member.spec

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``(B, K, h, w)`` of images ``(B, C, H, W)`` in [0, 1]."""
        changed = self.view.change(images)
        return self.view.undo(self.network_for(size_of(changed))(changed))

    def coarse(self, images: Tensor) -> Tensor:
        """Compute logits ``(B, K, h, w)`` at the size of the head's output, of images ``(B, C, H, W)`` in [0, 1]."""
        changed = self.view.change(images)
        return self.view.undo(self.network_for(size_of(changed)).coarse(changed))

    def network_for(self, changed: Size) -> DenseModel:
        """Return the member, weights shared, as if it was built for the size (H, W) of the changed images."""
        spec = self.member.spec
        size = self.view.turned(spec.input_size) if spec.input_size else (changed if self.view.scale != 1 else None)
        other = copy.copy(self.member)
        other.spec = replace(
            spec,
            input_size=size and self.view.scaled(size),
            out_size=spec.out_size and self.view.turned(spec.out_size),
        )
        return other
