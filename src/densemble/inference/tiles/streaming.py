"""Streaming: an image of any size through an ensemble, and its map out in rows from the top; memory stays a band's.

Members at the image's own size see it window by window, all members the same window before the next one comes. Where
all of them are exact (see :mod:`densemble.nets.halo`) the map is that of the whole image; else windows overlap and
are blended. Members that see the whole image resized run once, and their small maps are grown where they are needed.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.combine import COMBINE
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.uncertainty import UNCERTAINTY
from densemble.errors import DataError, UsageError
from densemble.inference.sources import value_range
from densemble.inference.tiles.planes import (
    Rows,
    as_rows,
    blendable,
    blended_finisher,
    require_planes,
    wanted_planes,
)
from densemble.inference.tiles.resize import BLOCK, grown, reduce_image
from densemble.inference.tiles.stitch import Planes, stitch
from densemble.inference.tiles.tile_members import (
    SmallMap,
    equal_sized,
    measure_reaches,
    require_own_size,
    seen_size,
    sees_whole,
    whole_map,
)
from densemble.inference.tiles.windows import Box, Windows, plan
from densemble.nets.halo import Reach
from densemble.shapes import Array, Size
from densemble.storage.pixels import as_unit

_STRIP = 64


class WindowedImage(Protocol):
    """An image that is read in parts."""

    @property
    def size(self) -> Size:
        """(H, W)."""

    @property
    def channels(self) -> int:
        """Of each pixel."""

    def read(self, top: int, left: int, height: int, width: int) -> Array:
        """A part that lies in the image, ``(height, width, C)`` in the file's own depth."""


def stream(
    ensemble: Ensemble,
    image: WindowedImage,
    tile: int = BLOCK,
    overlap: float = 0.25,
    planes: Collection[str] = ("mean",),
    batch: int = 1,
    reaches: Mapping[str, Reach] | None = None,
) -> Iterator[Rows]:
    """An ensemble's map of an image at the image's own size, in rows from the top.

    Args:
        ensemble: in eval mode. Its members see images at their own size and give maps of it, or see the whole image
            resized (``input_size``).
        image: of any size from 1x1 up; the next windows are read in a thread while the present ones are computed.
        tile: pixels along each axis, see :func:`densemble.inference.tiles.windows.plan`.
        overlap: share of a window that the next one shows again, where tiles of some member are not exact.
        planes: names of maps of a prediction; what is not asked for is not kept.
        batch: windows at a time.
        reaches: what :func:`measure_reaches` gave for this ensemble; default: it is measured.

    Raises:
        UsageError: a plane that the ensemble does not have; a rule that compares all pixels of an image, where it has
            to be cut; a member whose map has a fixed size though it sees images at their own; densities of members
            that give no fixed size; a tile that is too small.
        DataError: pixels that cannot be used.
        UnusableMaps: a member gives no usable map of a part of the image: the maps of all parts are then without it,
            or there are none.
    """
    require_planes(ensemble, planes)
    wanted = tuple(planes)
    read = _reader(ensemble, image)
    members = dict(ensemble.named_members())
    if all(sees_whole(member) and member.spec.out_size is not None for member in members.values()):
        return _grown_rows(ensemble, image.size, read, wanted)
    if ensemble.task.target_kind == "density":
        raise UsageError("densities of large images need members with a fixed input_size and a fixed out_size")
    own = [name for name, member in members.items() if not sees_whole(member)]
    for name in own:
        require_own_size(name, members[name])
    found = measure_reaches(ensemble) if reaches is None and own else dict(reaches or {})
    windows = plan_windows(ensemble, image.size, tile, overlap, found)
    if len(windows) > 1 and COMBINE[ensemble.combine].whole_image:
        raise UsageError(
            f"the rule '{ensemble.combine}' compares all pixels of an image and cannot be computed in parts; combine "
            "by 'mean', or use members with a fixed input_size and out_size"
        )
    if batch < 1:
        raise UsageError(f"batch = {batch} must be at least one window")
    return _windowed_rows(ensemble, windows, read, wanted, own, batch)


def plan_windows(ensemble: Ensemble, size: Size, tile: int, overlap: float, reaches: Mapping[str, Reach]) -> Windows:
    """How an image is cut for an ensemble: without overlap where all members are exact.

    Raises:
        UsageError: an overlap out of range; a tile that is smaller than what a member takes, or all halo.
    """
    own = {name: member for name, member in ensemble.named_members() if not sees_whole(member)}
    halos = {name: reaches[name].halo for name in own}
    exact = [halo for halo in halos.values() if halo is not None]
    stride = math.lcm(*(halo.stride for halo in exact), *(member.spec.multiple for member in own.values()))
    top, bottom, left, right = (max((halo.pixels[side] for halo in exact), default=0) for side in range(4))
    share = 0.0 if len(exact) == len(own) else overlap
    windows = plan(size, tile, (top, bottom, left, right), stride, share)
    least = max((member.spec.smallest for member in own.values()), default=1)
    for axis in (windows.rows, windows.columns):
        if len(axis.starts) > 1 and axis.window < least:
            raise UsageError(f"tile = {tile} is smaller than a member takes; choose at least {least}")
    return windows


def _reader(ensemble: Ensemble, image: WindowedImage) -> Callable[[Box], Tensor]:
    """What reads a box as float32 ``(C, h, w)`` in [0, 1]; beyond the image, its edge values go on.

    Raises:
        DataError: the image has other channels than the ensemble takes.
    """
    bands = ensemble.reading.get("bands")
    bands = list(bands) if bands is not None and max(bands) < image.channels else None
    channels = image.channels if bands is None else len(bands)
    if channels != ensemble.in_channels:
        raise DataError(f"the image has {channels} channels, the ensemble takes {ensemble.in_channels}")
    limits = value_range(ensemble)
    height, width = image.size

    def read(box: Box) -> Tensor:
        rows, columns = min(box.height, height - box.top), min(box.width, width - box.left)
        pixels = image.read(box.top, box.left, rows, columns)
        unit = as_unit(pixels if bands is None else pixels[..., bands], limits)
        if (rows, columns) != (box.height, box.width):
            unit = np.pad(unit, ((0, box.height - rows), (0, box.width - columns), (0, 0)), mode="edge")
        return torch.from_numpy(np.ascontiguousarray(unit.transpose(2, 0, 1)))

    return read


def _whole_maps(ensemble: Ensemble, size: Size, read: Callable[[Box], Tensor]) -> list[SmallMap]:
    """Runs the members that see the whole image; it is read once, and not at all where there are none."""
    wholes = {name: member for name, member in ensemble.named_members() if sees_whole(member)}
    seen = {name: seen_size(member, size) for name, member in wholes.items()}
    images = reduce_image(read, size, ensemble.in_channels, set(seen.values()))
    return [whole_map(ensemble, name, member, images[seen[name]], size) for name, member in wholes.items()]


def _grown_rows(
    ensemble: Ensemble, size: Size, read: Callable[[Box], Tensor], wanted: tuple[str, ...]
) -> Iterator[Rows]:
    """All members see the whole image and give small maps: the combined map and the members' are grown by blocks."""
    wholes = _whole_maps(ensemble, size, read)
    density = ensemble.task.target_kind == "density"
    asked = frozenset(wanted) & UNCERTAINTY
    with torch.no_grad():
        maps = dict(equal_sized(wholes, ensemble.task))
        mean = ensemble.combination.combine(maps.items())
    factor = mean[0, 0].numel() / (size[0] * size[1]) if density else 1.0
    windows = plan(size, BLOCK)

    def at(small: Tensor, box: Box) -> Tensor:
        return grown(small, size, box) * factor if density else grown(small, size, box)

    def planes(box: Box) -> Planes:
        running = ensemble.combination.running(asked)
        if running is not None:
            for name, small in maps.items():
                running.add(at(small, box), ensemble.weights[name])
        return wanted_planes(ensemble, ensemble.combination.conclude(at(mean, box), running, asked), wanted)

    parts = (_by_strips(box, mean.device, planes) for box in windows.answers())
    for top, finished in stitch(windows, parts, lambda finished: finished):
        yield as_rows(top, finished)


def _windowed_rows(
    ensemble: Ensemble,
    windows: Windows,
    read: Callable[[Box], Tensor],
    wanted: tuple[str, ...],
    own: list[str],
    batch: int,
) -> Iterator[Rows]:
    wholes = _whole_maps(ensemble, windows.size, read)
    device = next(ensemble.parameters()).device
    answers = list(windows.answers())

    def parts() -> Iterator[Planes]:
        done = 0
        for boxes, images in _read_ahead(windows.boxes(), read if own else None, batch, device):
            seen = [[] for _ in boxes] if images is None else _small_maps(ensemble, own, images, boxes)
            for here, answer in zip(seen, answers[done : done + len(boxes)], strict=True):
                yield _combined(ensemble, [*here, *wholes], answer, wanted, windows.blended)
            done += len(boxes)

    finish = blended_finisher(ensemble, wanted) if windows.blended else lambda finished: finished
    for top, planes in stitch(windows, parts(), finish):
        yield as_rows(top, planes)


@torch.no_grad()
def _small_maps(ensemble: Ensemble, own: list[str], images: Tensor, boxes: list[Box]) -> list[list[SmallMap]]:
    """What the members that see windows say about each of them."""
    found: list[list[SmallMap]] = [[] for _ in boxes]
    images = images.view_as(images)  # what fast members keep of a batch ends with it
    for name in own:
        logits = ensemble.coarse_logits(name, images)
        for number, box in enumerate(boxes):
            found[number].append(SmallMap(name, logits[number : number + 1], False, box))
    return found


def _combined(
    ensemble: Ensemble, members: list[SmallMap], answer: Box, wanted: tuple[str, ...], blended: bool
) -> Planes:
    """Planes ``(c, h, w)`` of what a window answers for: those that are wanted, or those that can be blended."""
    asked = frozenset(wanted) & UNCERTAINTY

    def planes(box: Box) -> Planes:
        maps = ((member.name, member.at(box, ensemble.task)) for member in members)
        if blended:
            running = ensemble.combination.running(asked)
            return blendable(ensemble.combination.combine(maps, running), running)
        return wanted_planes(ensemble, ensemble.combination.predict(maps, asked), wanted)

    return _by_strips(answer, members[0].maps.device, planes)


@torch.no_grad()
def _by_strips(answer: Box, device: torch.device, planes_at: Callable[[Box], Planes]) -> Planes:
    """Planes ``(c, h, w)`` of a box; on a CPU strip by strip.

    The maps of all channels of a strip are so small that their memory is used again: to be given new memory takes
    longer than the arithmetic in it.
    """
    result: Planes = {}
    rows = _STRIP if device.type == "cpu" else answer.height
    for first in range(0, answer.height, rows):
        strip = Box(answer.top + first, answer.left, min(rows, answer.height - first), answer.width)
        for name, plane in planes_at(strip).items():
            if name not in result:
                result[name] = plane.new_empty((plane.shape[0], answer.height, answer.width))
            result[name][:, first : first + strip.height] = plane
    return result


def _read_ahead(
    boxes: Iterable[Box], read: Callable[[Box], Tensor] | None, batch: int, device: torch.device
) -> Iterator[tuple[list[Box], Tensor | None]]:
    """Boxes in batches with their pixels ``(B, C, h, w)``; one batch is read while the one before it is used."""
    waiting = iter(boxes)

    def load(group: list[Box]) -> Tensor | None:
        if read is None:
            return None
        images = torch.stack([read(box) for box in group])
        return images.pin_memory() if device.type == "cuda" else images

    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        group = list(islice(waiting, batch))
        coming: Future[Tensor | None] = reader.submit(load, group)
        while group:
            present, images = group, coming.result()
            group = list(islice(waiting, batch))
            if group:
                coming = reader.submit(load, group)
            yield present, None if images is None else images.to(device, non_blocking=True)
