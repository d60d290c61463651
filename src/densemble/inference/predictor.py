"""predict: files, folders, globs, lists and arrays in, one prediction per picture out, at the picture's own size."""

import glob
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.images import as_images
from densemble.ensemble.views import Viewed
from densemble.errors import DataError, UsageError
from densemble.inference.picture import PicturePrediction, at_picture_size
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference
from densemble.storage.images import IMAGE_SUFFIXES, as_unit, read_image

Array = np.ndarray[Any, Any]
Source = str | Path | Array | Tensor
BACKENDS = ("auto", "eager")
PRECISIONS = ("auto", "fp32", "bf16")


def find_pictures(source: str | Path) -> list[Path]:
    """Picture files behind a path: itself, all of a folder, or all that a glob matches, sorted by name.

    Raises:
        DataError: nothing there.
    """
    text = str(source)
    path = Path(text).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise DataError(f"folder '{path}' holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
        return found
    if glob.has_magic(text):
        matched = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute globs)
        found = [file for file in matched if file.is_file() and file.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            raise DataError(f"no picture matches '{text}'")
        return found
    raise DataError(f"no picture, folder or glob at '{text}'; check the path")


def expand(source: Source | Iterable[Source]) -> list[Path | Array | Tensor]:
    """One source or many -> single pictures, in order; batches are taken apart.

    Raises:
        DataError: a path where nothing is.
    """
    if isinstance(source, str | Path):
        return list(find_pictures(source))
    if isinstance(source, np.ndarray | Tensor):
        return list(source) if source.ndim == 4 else [source]
    return [picture for item in source for picture in expand(item)]


def check_execution(backend: str, precision: str) -> None:
    """Checks a backend's and a precision's name.

    Raises:
        UsageError: unknown; those that are get listed.
    """
    if backend not in BACKENDS:
        raise UsageError(f"no backend is named '{backend}'; there are: {', '.join(BACKENDS)}")
    if precision not in PRECISIONS:
        raise UsageError(f"no precision is named '{precision}'; there are: {', '.join(PRECISIONS)}")


def prepared(ensemble: Ensemble) -> Ensemble:
    """A copy in eval mode that gives the same maps with less work (see :mod:`densemble.nets.rewrite`); only for use."""
    rewritten: dict[int, DenseModel] = {}

    def lean(member: nn.Module) -> DenseModel | Viewed:
        network = member.member if isinstance(member, Viewed) else member
        assert isinstance(network, DenseModel)
        if id(network) not in rewritten:
            rewritten[id(network)] = for_inference(network)
        found = rewritten[id(network)]
        return Viewed(found, member.view.name) if isinstance(member, Viewed) else found

    return ensemble.with_members({name: lean(member) for name, member in ensemble.members.items()}).eval()


def read_picture(path: Path, ensemble: Ensemble) -> Array:
    """A file as the ensemble's members were trained on it: float32 ``(H, W, C)`` in [0, 1].

    Raises:
        DataError: a file that cannot be read, or without the channels that are needed.
    """
    image = read_image(path)
    bands = ensemble.reading.get("bands")
    if bands is not None and max(bands) < image.shape[2]:
        image = image[..., list(bands)]
    if image.shape[2] != ensemble.in_channels:
        raise DataError(f"'{path}' has {image.shape[2]} channels, the ensemble takes {ensemble.in_channels}")
    value_range = ensemble.reading.get("image_range")
    return as_unit(image, tuple(value_range) if value_range is not None else None)


def shown(image: Tensor) -> Array:
    """An image ``(C, H, W)`` in [0, 1] as uint8 ``(H, W, 3)``: its first three channels, or its first one as grey."""
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    pixels: Array = (rgb.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels


def predict_one(
    ensemble: Ensemble, picture: Path | Array | Tensor, name: str = "0", precision: str = "auto"
) -> PicturePrediction:
    """Predicts one picture.

    Args:
        ensemble: in eval mode, best :func:`prepared`.
        picture: a file, an array ``(H, W, C)`` or a tensor ``(C, H, W)``.
        name: of a picture that is no file.
        precision: ``bf16`` computes in bfloat16; ``auto`` and ``fp32`` in float32.

    Raises:
        DataError: a file that cannot be read.
        UsageError: an array of another shape or type.
    """
    path = picture if isinstance(picture, Path) else None
    pixels = read_picture(picture, ensemble) if isinstance(picture, Path) else picture
    batch = as_images(pixels, ensemble.in_channels)
    image = shown(batch[0])
    device = next(ensemble.parameters()).device
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        prediction = ensemble.predict_members(batch.to(device))
    return at_picture_size(prediction, image, path.stem if path else name, path, ensemble)


def predict(
    ensemble: Ensemble | DenseModel, source: Source | Iterable[Source], backend: str = "auto", precision: str = "auto"
) -> Iterator[PicturePrediction]:
    """Predictions one by one, each at its picture's own size; a generator, so that a folder needs no more memory
    than a picture.

    Args:
        ensemble: see :class:`Ensemble`, or a single network; is put into eval mode.
        source: a file, a folder, a glob, an array ``(H, W, 3)`` or ``(B, H, W, 3)``, a tensor ``(3, H, W)`` or
            ``(B, 3, H, W)``, or any mixture of these in a list.
        backend: ``auto`` or ``eager``.
        precision: ``auto``, ``fp32`` or ``bf16``.

    Raises:
        DataError: nothing at a path, or a file that cannot be read.
        UsageError: arrays of another shape or type, unknown backend or precision.
    """
    check_execution(backend, precision)
    pictures = expand(source)
    ensemble.eval()
    lean = prepared(Ensemble([ensemble]) if isinstance(ensemble, DenseModel) else ensemble)
    return (predict_one(lean, picture, str(i), precision) for i, picture in enumerate(pictures))
