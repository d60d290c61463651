"""Apply a change to the image and target of a sample."""

import torch
from torch import Tensor

from densemble.data.transforms.appearance import change_look
from densemble.data.transforms.change import Augmentation, Change, draw_change
from densemble.data.transforms.geometry import move_image, move_target
from densemble.errors import UsageError
from densemble.shapes import format_size
from densemble.tasks.task import TargetKind


def augment(
    image: Tensor, target: Tensor, augmentation: Augmentation, key: tuple[int, int, int], kind: TargetKind, fill: float
) -> tuple[Tensor, Tensor]:
    """Apply a random change to one sample; the same key gives the same change.

    Args:
        image: float ``(C, H, W)`` in [0, 1].
        target: ``(H, W)`` or ``(K, H, W)``.
        augmentation: strengths, for example a row of ``AUGMENT``.
        key: (seed, epoch, index).
        kind: target kind; see :func:`apply_change`.
        fill: label outside the image.

    Returns:
        Image and target with the same shapes and dtypes.

    Raises:
        UsageError: see :func:`apply_change`.
    """
    height, width = image.shape[-2:]
    return apply_change(draw_change(augmentation, key, (height, width)), image, target, kind, fill)


def apply_change(change: Change, image: Tensor, target: Tensor, kind: TargetKind, fill: float) -> tuple[Tensor, Tensor]:
    """Apply the same geometry to image and target, each resampled once, and the look to the image.

    The look is not applied to targets of kind ``pixels``.

    ========  =========  ================  ======================================================================
    kind      resampled  outside           remarks
    ========  =========  ================  ======================================================================
    labels    nearest    ``fill``          no new labels appear
    masks     nearest    ``fill``          one layer per class
    heat      bilinear   0                 stays in [0, 1]
    density   bilinear   0                 divided by the change of area, so that counts inside the image are kept
                                           (each blob within 1 % from a sigma of 2 px, narrower ones on average)
    values    nearest    NaN               NaN stays NaN; zoom does not change depth values
    pixels    bilinear   NaN               mean of the known pixels; NaN does not spread
    ========  =========  ================  ======================================================================

    A flip mirrors the layers of a target but does not exchange them: layers named left and right keep their names.

    Args:
        change: change from :func:`draw_change`.
        image: float ``(C, H, W)`` in [0, 1]; saturation and hue change only if C is 3.
        target: ``(H, W)`` or ``(K, H, W)``; float, except labels and masks.
        kind: target kind.
        fill: label outside the image; used by labels and masks.

    Returns:
        Image and target with the same shapes and dtypes; the input tensors if nothing changes.

    Raises:
        UsageError: image and target differ in size, or the target's dtype does not fit its kind or ``fill``.
    """
    _require_equal_sizes(image, target)
    _require_dtype(target, kind, fill)
    target = move_target(change, target, kind, fill)
    image = move_image(change, image)
    # A target of pixels has the colours of the input image. A change of one of the two would make it unlearnable.
    if change.look is not None and kind != "pixels":
        image = change_look(image, change.look)
    return image, target


def _require_equal_sizes(image: Tensor, target: Tensor) -> None:
    if image.shape[-2:] != target.shape[-2:]:
        sizes = [format_size((x.shape[-2], x.shape[-1])) for x in (image, target)]
        raise UsageError(f"image is {sizes[0]}, its target {sizes[1]}; resize both to one size before the augmentation")


def _require_dtype(target: Tensor, kind: TargetKind, fill: float) -> None:
    if kind not in ("labels", "masks"):
        if not target.is_floating_point():
            raise UsageError(f"a target of kind '{kind}' is {target.dtype}; convert it to float")
    elif float(torch.tensor(fill).to(target.dtype)) != fill:
        raise UsageError(
            f"fill {fill:g} does not fit into a target of type {target.dtype}; choose another ignore label"
        )
