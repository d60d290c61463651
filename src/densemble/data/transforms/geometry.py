"""The geometry of a change: an affine transform and a flip of images, targets and points, by torchvision."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from densemble.data.transforms.change import Change, Warp
from densemble.shapes import Size
from densemble.tasks.task import TargetKind


def move_image(change: Change, image: Tensor) -> Tensor:
    """Resample an image ``(C, H, W)`` in [0, 1] bilinearly; pixels outside the image get its mean colour.

    Reflection would repeat objects where the target does not contain them (heat and density are 0 there).
    """
    if change.warp is not None:
        mean = mean_colour(image)
        # After the subtraction, torchvision's zero padding is the mean colour. Its `fill` argument leaves a dark seam
        # because it multiplies the edge pixels by the coverage a second time, after grid_sample.
        image = _bilinear(change.warp, image - mean).add_(mean).clamp_(0, 1)
    return transforms.horizontal_flip(image) if change.flip else image


def mean_colour(image: Tensor) -> Tensor:
    """Mean of each channel of ``(C, H, W)``: ``(C, 1, 1)``.

    On a CPU, NumPy computes it because torch's sums over a large channel depend on the number of threads: loader
    workers have one, the main process has several.
    """
    if image.device.type != "cpu":
        return image.mean((1, 2), keepdim=True)
    mean: Tensor = torch.from_numpy(image.numpy().mean(axis=(1, 2), keepdims=True))
    return mean


def move_target(change: Change, target: Tensor, kind: TargetKind, fill: float) -> Tensor:
    """Resample a target ``(H, W)`` or ``(K, H, W)`` according to its kind; see :func:`apply_change`."""
    if change.warp is not None:
        layers = target if target.ndim == 3 else target[None]
        target = _RESAMPLE[kind](change.warp, layers, fill).reshape(target.shape)
    return transforms.horizontal_flip(target) if change.flip else target


def move_points(change: Change, points: Tensor, size: Size) -> Tensor:
    """Move points of an image; they may leave the frame.

    Args:
        change: the change of the image.
        points: float ``(N, 2)``, x and y in pixels; (0, 0) is the centre of the top left pixel.
        size: (H, W) of the image.

    Returns:
        Float ``(N, 2)``.
    """
    moved = tv_tensors.KeyPoints(points, canvas_size=size)
    if change.warp is not None:
        moved = _affine(change.warp, moved)
    if change.flip:
        moved = transforms.horizontal_flip(moved)
    return _plain(moved)


def _affine(warp: Warp, inputs: Any, fill: float | None = None) -> Any:
    centre = None
    if isinstance(inputs, tv_tensors.KeyPoints):
        # torchvision rotates points about (W/2, H/2) and images about the centre of their middle pixel, but flips
        # both as if (0, 0) were a pixel centre. In this convention, which is ours, the centre is half a pixel less.
        height, width = inputs.canvas_size
        centre = [(width - 1) / 2, (height - 1) / 2]
    return transforms.affine(
        inputs,
        angle=warp.angle,
        translate=list(warp.shift),
        scale=warp.scale,
        shear=list(warp.shear),
        interpolation=InterpolationMode.BILINEAR,  # for images; masks always use nearest neighbour
        fill=fill,
        center=centre,
    )


def _plain(moved: Any) -> Tensor:
    tensor: Tensor = moved.as_subclass(Tensor)
    return tensor


def _bilinear(warp: Warp, layers: Tensor) -> Tensor:
    """Resample bilinearly with zero padding; edge pixels are blended with 0."""
    return _plain(_affine(warp, tv_tensors.Image(layers)))


def _nearest(warp: Warp, layers: Tensor, fill: float) -> Tensor:
    return _plain(_affine(warp, tv_tensors.Mask(layers), fill))


def _nearest_or_nan(warp: Warp, layers: Tensor, fill: float) -> Tensor:
    return _nearest(warp, layers, float("nan"))


def _heat(warp: Warp, layers: Tensor, fill: float) -> Tensor:
    return _bilinear(warp, layers).clamp_(0, 1)


def _density(warp: Warp, layers: Tensor, fill: float) -> Tensor:
    return _bilinear(warp, layers).div_(warp.scale**2)


def _pixels(warp: Warp, layers: Tensor, fill: float) -> Tensor:
    """Average the known pixels around each point if the nearest pixel is known, else NaN."""
    known = ~layers.isnan()
    values = torch.where(known, layers, 0.0)
    total, weight = _bilinear(warp, torch.cat([values, known.to(layers.dtype)])).chunk(2)
    return torch.where(_nearest(warp, known, 0.0), total / weight, torch.nan)


_RESAMPLE: dict[TargetKind, Callable[[Warp, Tensor, float], Tensor]] = {
    "labels": _nearest,
    "masks": _nearest,
    "heat": _heat,
    "density": _density,
    "values": _nearest_or_nan,
    "pixels": _pixels,
}
