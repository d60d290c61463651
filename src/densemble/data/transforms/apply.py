"""A change done to a sample: image and target."""

import torch
from torch import Tensor

from densemble.data.transforms.appearance import change_look
from densemble.data.transforms.change import Augmentation, Change, draw_change
from densemble.data.transforms.geometry import move_image, move_target
from densemble.errors import UsageError
from densemble.shapes import format_size
from densemble.tasks.task import TargetKind


def augment(
    image: Tensor, target: Tensor, how: Augmentation, key: tuple[int, int, int], kind: TargetKind, fill: float
) -> tuple[Tensor, Tensor]:
    """A random change of one sample, always the same for the same key.

    Args:
        image: float ``(C, H, W)`` in [0, 1].
        target: ``(H, W)`` or ``(K, H, W)``.
        how: strengths, a row of ``AUGMENT`` or your own.
        key: (seed, epoch, index).
        kind: what the target holds; see :func:`apply_change`.
        fill: label outside the image.

    Returns:
        Image and target of the same shapes and types.

    Raises:
        UsageError: as :func:`apply_change`.
    """
    height, width = image.shape[-2:]
    return apply_change(draw_change(how, key, (height, width)), image, target, kind, fill)


def apply_change(change: Change, image: Tensor, target: Tensor, kind: TargetKind, fill: float) -> tuple[Tensor, Tensor]:
    """One geometry for image and target, each resampled once; colours of the image alone, and not for pixels.

    ========  =========  ================  ======================================================================
    kind      resampled  outside           remarks
    ========  =========  ================  ======================================================================
    labels    nearest    ``fill``          no label appears that was not there
    masks     nearest    ``fill``          one layer per class
    heat      bilinear   0                 stays in [0, 1]
    density   bilinear   0                 divided by the growth of areas: what stays inside counts as before (each
                                           blob within 1 % from a sigma of 2 px, narrower ones on average)
    values    nearest    NaN               NaN stays NaN; a depth is not changed by the zoom
    pixels    bilinear   NaN               mean of the known pixels; NaN does not spread
    ========  =========  ================  ======================================================================

    A flip mirrors the layers of a target but does not exchange them: layers named left and right keep their names.

    Args:
        change: what :func:`draw_change` drew.
        image: float ``(C, H, W)`` in [0, 1]; saturation and hue are left alone unless C is 3.
        target: ``(H, W)`` or ``(K, H, W)``; floats but for labels and masks.
        kind: what the target holds.
        fill: label outside the image; used by labels and masks.

    Returns:
        Image and target of the same shapes and types; the very same tensors where nothing changes.

    Raises:
        UsageError: image and target differ in size, or the target's type cannot hold its kind or ``fill``.
    """
    _require_equal_sizes(image, target)
    _require_fitting_type(target, kind, fill)
    target = move_target(change, target, kind, fill)
    image = move_image(change, image)
    # The other image is made of this one's colours: changed on one side only, nothing could be learned from them.
    if change.look is not None and kind != "pixels":
        image = change_look(image, change.look)
    return image, target


def _require_equal_sizes(image: Tensor, target: Tensor) -> None:
    sizes = [(int(x.shape[-2]), int(x.shape[-1])) for x in (image, target)]
    if sizes[0] != sizes[1]:
        raise UsageError(
            f"image is {format_size(sizes[0])}, its target {format_size(sizes[1])}; "
            "bring both to one size before they are augmented"
        )


def _require_fitting_type(target: Tensor, kind: TargetKind, fill: float) -> None:
    if kind not in ("labels", "masks"):
        if not target.is_floating_point():
            raise UsageError(f"a target of kind '{kind}' is {target.dtype}; make it float, which can hold its values")
    elif float(torch.tensor(fill).to(target.dtype)) != fill:
        raise UsageError(
            f"fill {fill:g} does not fit into a target of type {target.dtype}; choose another ignore label"
        )
