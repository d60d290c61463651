"""Members before a large image: those that see it window by window, and those that see the whole of it, resized."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.member_views import View, Viewed
from densemble.ensemble.membership import require_usable
from densemble.ensemble.resize import resize_maps
from densemble.errors import UsageError
from densemble.inference.tiles.resize import grown
from densemble.inference.tiles.windows import Box
from densemble.nets.dense import DenseModel
from densemble.nets.halo import Reach, measure_reach
from densemble.nets.heads.layers import resize
from densemble.shapes import Size, format_size
from densemble.tasks import Task

Member = DenseModel | Viewed
_UPRIGHT = View("upright")


def network_of(member: Member) -> DenseModel:
    """The network behind a view."""
    return member.member if isinstance(member, Viewed) else member


def view_of(member: Member) -> View:
    """How a member looks at images."""
    return member.view if isinstance(member, Viewed) else _UPRIGHT


def sees_whole(member: Member) -> bool:
    """Whether a member resizes every image to one size, so that it has to see all of it."""
    return member.spec.input_size is not None or member.spec.rule.fixed is not None


def measure_reaches(ensemble: Ensemble) -> dict[str, Reach]:
    """Whether tiles are exact for each member that sees images at their own size, and with which halo, by its name.

    It takes a second or two for each network; measure once for many images.
    """
    measured: dict[int, Reach] = {}
    found = {}
    for name, member in ensemble.named_members():
        if sees_whole(member):
            continue
        network = network_of(member)
        if id(network) not in measured:
            measured[id(network)] = measure_reach(network)
        found[name] = _through(view_of(member), measured[id(network)])
    return found


def _through(view: View, reach: Reach) -> Reach:
    if view.scale != 1:
        return Reach(None, "it sees the image at another scale")
    return reach if reach.halo is None or view == _UPRIGHT else Reach(reach.halo.symmetric())


def require_own_size(name: str, member: Member) -> None:
    """Checks that a member that sees windows gives maps of their size.

    Raises:
        UsageError: its map has one size for images of every size.
    """
    if member.spec.out_size is not None:
        size = format_size(member.spec.out_size)
        raise UsageError(
            f"member '{name}' sees images at their own size and paints a map of {size} of them, which cannot be done "
            "in parts; give it an input_size (it then sees the whole image resized), or out_size=None"
        )


def seen_size(member: Member, size: Size) -> Size:
    """(H, W) at which a member that sees the whole of an image wants it, before the view turns it."""
    view, spec = view_of(member), member.spec
    turned = view.scaled(view.turned(spec.input_size or size))
    return view.turned(spec.rule.nearest(turned))


@dataclass(frozen=True)
class SmallMap:
    """What a member says about an image or a window of it: kept small, grown where it is looked at.

    Attributes:
        name: of the member.
        maps: ``(1, K, h, w)``; activated where the member's map has a size of its own, else logits.
        activated: which of the two.
        seen: what the member saw.
    """

    name: str
    maps: Tensor
    activated: bool
    seen: Box

    def at(self, box: Box, task: Task) -> Tensor:
        """Activated maps ``(1, K, box.height, box.width)`` of a box of the image."""
        inside = Box(box.top - self.seen.top, box.left - self.seen.left, box.height, box.width)
        maps = grown(self.maps, (self.seen.height, self.seen.width), inside)
        return maps if self.activated else task.activation(maps)


@torch.no_grad()
def whole_map(ensemble: Ensemble, name: str, member: Member, image: Tensor, size: Size) -> SmallMap:
    """Runs a member on the whole image.

    Args:
        ensemble: of the member.
        name: of the member.
        member: sees images at one size.
        image: ``(1, C, h, w)`` at :func:`seen_size`.
        size: (H, W) of the image itself.

    Raises:
        UnusableMaps: its map is not finite or of a wrong shape.
    """
    view, network, spec = view_of(member), network_of(member), member.spec
    seen = view.change(image.to(network.mean.device))
    wanted = view.turned(spec.out_size or size)
    logits = network.grid((seen - network.mean) / network.std, wanted)
    logits = view.undo(logits if spec.out_size is None else resize(logits, wanted)).float()
    require_usable(name, logits, 1, ensemble.task.out_channels)
    logits = logits / ensemble.temperatures[name]
    activated = spec.out_size is not None
    return SmallMap(name, ensemble.task.activation(logits) if activated else logits, activated, Box(0, 0, *size))


def equal_sized(wholes: list[SmallMap], task: Task) -> Iterator[tuple[str, Tensor]]:
    """Names and activated maps of members whose maps have sizes of their own, all resized to the first one's."""
    first = wholes[0].maps
    size = (int(first.shape[-2]), int(first.shape[-1]))
    for whole in wholes:
        yield whole.name, resize_maps(whole.maps, size, task.target_kind == "density")
