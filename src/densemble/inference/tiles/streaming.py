"""Streaming: prediction of an image of any size, whose maps come in rows from the top; memory holds one band.

Members that take the image size see the image window by window; all members see a window before the next one comes. If
all of them are exact (see :mod:`densemble.nets.halo`), the map is that of the whole image; else windows overlap and
are blended. Members that see the whole image resized run once, and their small maps are upsampled where they are
needed.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.combine import rule_row
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.uncertainty import UNCERTAINTY
from densemble.errors import UsageError
from densemble.inference.sources import image_range, input_bands
from densemble.inference.tiles.planes import (
    Rows,
    as_rows,
    blendable,
    blended_finisher,
    require_planes,
    select_planes,
)
from densemble.inference.tiles.resize_blocks import BLOCK, reduce_image, upsample_box
from densemble.inference.tiles.stitch import Planes, stitch
from densemble.inference.tiles.tile_members import (
    SmallMap,
    equal_sized,
    measure_reaches,
    network_size,
    require_window_size,
    sees_whole,
    whole_map,
)
from densemble.inference.tiles.windows import Box, Windows, plan
from densemble.nets.halo import Reach
from densemble.shapes import Array, Size
from densemble.storage.pixels import as_unit

_STRIP = 64


class WindowedImage(Protocol):
    """An image that can be read in parts."""

    @property
    def size(self) -> Size:
        """(H, W)."""

    @property
    def channels(self) -> int:
        """Number of channels."""

    def read(self, top: int, left: int, height: int, width: int) -> Array:
        """A part within the image, ``(height, width, C)`` in the data type of the file."""


def stream(
    ensemble: Ensemble,
    image: WindowedImage,
    tile: int = BLOCK,
    overlap: float = 0.25,
    planes: Collection[str] = ("mean",),
    batch: int = 1,
    reaches: Mapping[str, Reach] | None = None,
) -> Iterator[Rows]:
    """Predict an image at the image size, and yield its maps in rows from the top.

    Args:
        ensemble: in eval mode. Its members take the image size and give maps of that size, or see the whole image
            resized (``input_size``).
        image: any size from 1x1 up; the next windows are read in a thread while the current ones are computed.
        tile: side of a window in pixels, see :func:`densemble.inference.tiles.windows.plan`.
        overlap: share of a window that the next one sees again, if tiles of some member are not exact.
        planes: names of the prediction maps to compute.
        batch: number of windows that are computed together.
        reaches: result of :func:`measure_reaches` for this ensemble; default: measured.

    Raises:
        UsageError: a plane that the ensemble does not have; a rule that compares all pixels of an image that has to be
            divided; a member that takes the image size but gives a map of fixed size; densities of members without a
            fixed size; a tile that is too small.
        DataError: pixels that cannot be used.
        UnusableMaps: a member gives no usable map of a part of the image; predict all parts without it.
    """
    require_planes(ensemble, planes)
    requested = tuple(planes)
    read = _reader(ensemble, image)
    members = dict(ensemble.named_members())
    if all(sees_whole(member) and member.spec.out_size is not None for member in members.values()):
        return _upsampled_rows(ensemble, image.size, read, requested)
    if ensemble.task.target_kind == "density":
        raise UsageError("densities of large images need members with a fixed input_size and a fixed out_size")
    see_windows = [name for name, member in members.items() if not sees_whole(member)]
    for name in see_windows:
        require_window_size(name, members[name])
    known_reaches = measure_reaches(ensemble) if reaches is None and see_windows else dict(reaches or {})
    windows = plan_windows(ensemble, image.size, tile, overlap, known_reaches)
    if len(windows) > 1 and rule_row(ensemble.combine).whole_image:
        raise UsageError(
            f"the rule '{ensemble.combine}' compares all pixels of an image and cannot be computed in windows; combine "
            "by 'mean', or use members with a fixed input_size and out_size"
        )
    if batch < 1:
        raise UsageError(f"batch = {batch} must be at least one window")
    return _windowed_rows(ensemble, windows, read, requested, see_windows, batch)


def plan_windows(ensemble: Ensemble, size: Size, tile: int, overlap: float, reaches: Mapping[str, Reach]) -> Windows:
    """Divide an image into windows for an ensemble, without overlap if all members are exact.

    Raises:
        UsageError: an overlap out of range; a tile that is smaller than a member accepts, or consists only of halo.
    """
    see_windows = {name: member for name, member in ensemble.named_members() if not sees_whole(member)}
    halos = {name: reaches[name].halo for name in see_windows}
    exact = [halo for halo in halos.values() if halo is not None]
    stride = math.lcm(*(halo.stride for halo in exact), *(member.spec.multiple for member in see_windows.values()))
    top, bottom, left, right = (max((halo.pixels[side] for halo in exact), default=0) for side in range(4))
    share = 0.0 if len(exact) == len(see_windows) else overlap
    windows = plan(size, tile, (top, bottom, left, right), stride, share)
    least = max((member.spec.smallest for member in see_windows.values()), default=1)
    for axis in (windows.rows, windows.columns):
        if len(axis.starts) > 1 and axis.window < least:
            raise UsageError(f"tile = {tile} is smaller than a member accepts; use at least {least}")
    return windows


def _reader(ensemble: Ensemble, image: WindowedImage) -> Callable[[Box], Tensor]:
    """Make a function that reads a box as float32 ``(C, h, w)`` in [0, 1]; edge values are repeated beyond the image.

    Raises:
        DataError: the image has a wrong number of channels.
    """
    bands = input_bands(ensemble, "the image", image.channels)
    limits = image_range(ensemble)
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
    """Run the members that see the whole image; it is read once, or not at all if there are none."""
    wholes = {name: member for name, member in ensemble.named_members() if sees_whole(member)}
    seen = {name: network_size(member, size) for name, member in wholes.items()}
    images = reduce_image(read, size, ensemble.in_channels, set(seen.values()))
    return [whole_map(ensemble, name, member, images[seen[name]], size) for name, member in wholes.items()]


def _upsampled_rows(
    ensemble: Ensemble, size: Size, read: Callable[[Box], Tensor], requested: tuple[str, ...]
) -> Iterator[Rows]:
    """Rows for members that all see the whole image: their small maps and the combined one are upsampled by blocks."""
    wholes = _whole_maps(ensemble, size, read)
    density = ensemble.task.target_kind == "density"
    uncertainty = frozenset(requested) & UNCERTAINTY
    with torch.no_grad():
        maps = dict(equal_sized(wholes, ensemble.task))
        mean = ensemble.combination.combine(maps.items())
    factor = mean[0, 0].numel() / (size[0] * size[1]) if density else 1.0
    windows = plan(size, BLOCK)

    def at(small: Tensor, box: Box) -> Tensor:
        return upsample_box(small, size, box) * factor if density else upsample_box(small, size, box)

    def planes(box: Box) -> Planes:
        running = ensemble.combination.running(uncertainty)
        if running is not None:
            for name, small in maps.items():
                running.add(at(small, box), ensemble.weights[name])
        return select_planes(ensemble, ensemble.combination.conclude(at(mean, box), running, uncertainty), requested)

    parts = (_by_strips(box, mean.device, planes) for box in windows.output_boxes())
    for top, finished in stitch(windows, parts, lambda finished: finished):
        yield as_rows(top, finished)


def _windowed_rows(
    ensemble: Ensemble,
    windows: Windows,
    read: Callable[[Box], Tensor],
    requested: tuple[str, ...],
    see_windows: list[str],
    batch: int,
) -> Iterator[Rows]:
    wholes = _whole_maps(ensemble, windows.size, read)
    device = next(ensemble.parameters()).device
    outputs = windows.output_boxes()

    def parts() -> Iterator[Planes]:
        for boxes, images in _read_ahead(windows.input_boxes(), read if see_windows else None, batch, device):
            by_window = [[] for _ in boxes] if images is None else _small_maps(ensemble, see_windows, images, boxes)
            for small_maps in by_window:
                yield _combined(ensemble, [*small_maps, *wholes], next(outputs), requested, windows.blended)

    finish = blended_finisher(ensemble, requested) if windows.blended else lambda finished: finished
    for top, planes in stitch(windows, parts(), finish):
        yield as_rows(top, planes)


@torch.no_grad()
def _small_maps(ensemble: Ensemble, names: list[str], images: Tensor, boxes: list[Box]) -> list[list[SmallMap]]:
    """The maps of the members that see windows, for each window."""
    by_window: list[list[SmallMap]] = [[] for _ in boxes]
    images = images.view_as(images)  # the caches of fast members are released with this tensor
    for name in names:
        logits = ensemble.coarse_logits(name, images)
        for index, box in enumerate(boxes):
            by_window[index].append(SmallMap(name, logits[index : index + 1], False, box))
    return by_window


def _combined(
    ensemble: Ensemble, members: list[SmallMap], output: Box, requested: tuple[str, ...], blended: bool
) -> Planes:
    """Planes ``(c, h, w)`` of the output box of a window: the requested ones, or those that can be blended."""
    uncertainty = frozenset(requested) & UNCERTAINTY

    def planes(box: Box) -> Planes:
        maps = ((member.name, member.at(box, ensemble.task)) for member in members)
        if blended:
            running = ensemble.combination.running(uncertainty)
            return blendable(ensemble.combination.combine(maps, running), running)
        return select_planes(ensemble, ensemble.combination.predict(maps, uncertainty), requested)

    return _by_strips(output, members[0].maps.device, planes)


@torch.no_grad()
def _by_strips(box: Box, device: torch.device, planes_at: Callable[[Box], Planes]) -> Planes:
    """Planes ``(c, h, w)`` of a box; computed strip by strip on a CPU.

    The maps of a strip are small enough for the allocator to reuse their memory; allocating new memory takes longer
    than the arithmetic.
    """
    result: Planes = {}
    rows = _STRIP if device.type == "cpu" else box.height
    for first in range(0, box.height, rows):
        strip = Box(box.top + first, box.left, min(rows, box.height - first), box.width)
        for name, plane in planes_at(strip).items():
            if name not in result:
                result[name] = plane.new_empty((plane.shape[0], box.height, box.width))
            result[name][:, first : first + strip.height] = plane
    return result


def _read_ahead(
    boxes: Iterable[Box], read: Callable[[Box], Tensor] | None, batch: int, device: torch.device
) -> Iterator[tuple[list[Box], Tensor | None]]:
    """Boxes in batches with their pixels ``(B, C, h, w)``; the next batch is read while the current one is used."""
    waiting = iter(boxes)

    def load(group: list[Box]) -> Tensor | None:
        if read is None:
            return None
        images = torch.stack([read(box) for box in group])
        return images.pin_memory() if device.type == "cuda" else images

    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as reader:
        group = list(islice(waiting, batch))
        pending: Future[Tensor | None] = reader.submit(load, group)
        while group:
            current, images = group, pending.result()
            group = list(islice(waiting, batch))
            if group:
                pending = reader.submit(load, group)
            yield current, None if images is None else images.to(device, non_blocking=True)
