"""Members on a large image: some see it window by window, others see the whole image resized."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.ensemble_arguments import Member
from densemble.ensemble.member_views import View, ViewedMember
from densemble.ensemble.membership import require_usable
from densemble.ensemble.resize import resize_maps
from densemble.errors import UsageError
from densemble.inference.runtime.fast_ensemble import network_of
from densemble.inference.tiles.resize_blocks import upsample_box
from densemble.inference.tiles.windows import Box
from densemble.nets.halo import Reach, measure_reach
from densemble.nets.heads.layers import resize
from densemble.shapes import Size, format_size, size_of
from densemble.tasks import Task

_UPRIGHT = View("upright")


def view_of(member: Member) -> View:
    """The view of a member; upright if it has none."""
    return member.view if isinstance(member, ViewedMember) else _UPRIGHT


def sees_whole(member: Member) -> bool:
    """Whether a member resizes every image to one size, so that it has to see the whole image."""
    return member.spec.input_size is not None or member.spec.rule.fixed is not None


def measure_reaches(ensemble: Ensemble) -> dict[str, Reach]:
    """Measure, for each member that sees images at the image size, whether tiles are exact and with which halo.

    This takes one or two seconds for each network; measure once for many images.

    Returns:
        Reaches by member name.
    """
    measured: dict[int, Reach] = {}
    reaches = {}
    for name, member in ensemble.named_members():
        if sees_whole(member):
            continue
        network = network_of(member)
        if id(network) not in measured:
            measured[id(network)] = measure_reach(network)
        reaches[name] = _reach_of_view(view_of(member), measured[id(network)])
    return reaches


def _reach_of_view(view: View, reach: Reach) -> Reach:
    if view.scale != 1:
        return Reach(None, "it sees the image at another scale")
    return reach if reach.halo is None or view == _UPRIGHT else Reach(reach.halo.symmetric())


def require_window_size(name: str, member: Member) -> None:
    """Check that a member that sees windows gives maps of their size.

    Raises:
        UsageError: its map has a fixed size.
    """
    if member.spec.out_size is not None:
        size = format_size(member.spec.out_size)
        raise UsageError(
            f"member '{name}' sees images at the image size and gives a map of fixed size {size}, which cannot be "
            "computed in windows; set an input_size (it then sees the whole image resized), or out_size=None"
        )


def network_size(member: Member, size: Size) -> Size:
    """(H, W) of the resized image for a member that sees the whole image, before the view rotates it."""
    view, spec = view_of(member), member.spec
    turned = view.scaled(view.turned(spec.input_size or size))
    return view.turned(spec.rule.nearest(turned))


@dataclass(frozen=True)
class SmallMap:
    """The low-resolution map of a member for an image or a window of it; it is upsampled where it is needed.

    Attributes:
        name: name of the member.
        maps: ``(1, K, h, w)``; activated if the member's map has a fixed size, else logits.
        activated: whether ``maps`` are activated.
        seen: the part of the image that the member saw.
    """

    name: str
    maps: Tensor
    activated: bool
    seen: Box

    def at(self, box: Box, task: Task) -> Tensor:
        """Activated maps ``(1, K, box.height, box.width)`` of a box of the image."""
        inside = Box(box.top - self.seen.top, box.left - self.seen.left, box.height, box.width)
        maps = upsample_box(self.maps, (self.seen.height, self.seen.width), inside)
        return maps if self.activated else task.activation(maps)


@torch.no_grad()
def whole_map(ensemble: Ensemble, name: str, member: Member, image: Tensor, size: Size) -> SmallMap:
    """Run a member on the whole image.

    Args:
        ensemble: ensemble of the member.
        name: name of the member.
        member: a member that sees images at one size.
        image: ``(1, C, h, w)`` at :func:`network_size`.
        size: (H, W) of the image before resizing.

    Raises:
        UnusableMaps: the map is not finite or has a wrong shape.
    """
    view, network, spec = view_of(member), network_of(member), member.spec
    seen = view.change(image.to(network.mean.device))
    map_size = view.turned(spec.out_size or size)
    logits = network.grid((seen - network.mean) / network.std, map_size)
    logits = view.undo(logits if spec.out_size is None else resize(logits, map_size)).float()
    require_usable(name, logits, 1, ensemble.task.out_channels)
    logits = logits / ensemble.temperatures[name]
    activated = spec.out_size is not None
    return SmallMap(name, ensemble.task.activation(logits) if activated else logits, activated, Box(0, 0, *size))


def equal_sized(wholes: list[SmallMap], task: Task) -> Iterator[tuple[str, Tensor]]:
    """Names and activated maps of members whose maps have fixed sizes, resized to the size of the first one."""
    size = size_of(wholes[0].maps)
    for whole in wholes:
        yield whole.name, resize_maps(whole.maps, size, task.target_kind == "density")
