"""predict: files, folders, globs, lists and arrays in, one prediction per picture out, at the picture's own size."""

import glob
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.images import as_images
from densemble.ensemble.uncertainty import Asked
from densemble.errors import DataError, UsageError
from densemble.inference.backends import BACKENDS, Precision
from densemble.inference.execution import Execution
from densemble.inference.fast import fast
from densemble.inference.picture import PicturePrediction, at_picture_size
from densemble.inference.tune import candidates
from densemble.nets.arguments import unwrapped
from densemble.nets.dense import DenseModel
from densemble.storage.images import IMAGE_SUFFIXES, as_unit, read_image

Array = np.ndarray[Any, Any]
Source = str | Path | Array | Tensor
SUFFIXES = (*IMAGE_SUFFIXES, ".zarr")
BACKEND_NAMES = ("auto", *BACKENDS)
PRECISIONS = ("auto", *get_args(Precision))


def find_pictures(source: str | Path) -> list[Path]:
    """Picture files behind a path: itself, all of a folder, or all that a glob matches, sorted by name.

    Raises:
        DataError: nothing there.
    """
    text = str(source)
    path = Path(text).expanduser()
    if path.is_file() or path.suffix == ".zarr":
        return [path]
    if path.is_dir():
        found = [file for file in sorted(path.iterdir()) if file.suffix.lower() in SUFFIXES]
        if not found:
            raise DataError(f"folder '{path}' holds no pictures ({', '.join(SUFFIXES)})")
        return found
    if glob.has_magic(text):
        matched = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute globs)
        found = [file for file in matched if file.suffix.lower() in SUFFIXES and _is_picture(file)]
        if not found:
            raise DataError(f"no picture matches '{text}'")
        return found
    raise DataError(f"no picture, folder or glob at '{text}'; check the path")


def _is_picture(path: Path) -> bool:
    return path.is_file() or path.suffix == ".zarr"


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
    if backend not in BACKEND_NAMES:
        raise UsageError(f"no backend is named '{backend}'; there are: {', '.join(BACKEND_NAMES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"no precision is named '{precision}'; there are: {', '.join(PRECISIONS)}")


def prepared(
    ensemble: Ensemble,
    backend: str = "eager",
    precision: str = "fp32",
    expected: int | None = None,
    say: Callable[[str], None] = lambda text: None,
    together: bool = True,
) -> Ensemble:
    """A copy in eval mode that gives the same maps with less work; only for use.

    Networks are rewritten (:mod:`densemble.nets.rewrite`) and run on backends (:mod:`densemble.inference.fast`).

    Args:
        ensemble: left as it is.
        backend: see :func:`predict`.
        precision: see :func:`predict`.
        expected: pictures that will come, for ``auto``: few are not worth tuning for; ``None``: many.
        say: told what was chosen.
        together: members share what they can; not for cascades, see :func:`densemble.inference.fast.fast`.

    Raises:
        UsageError: unknown backend or precision, or one that cannot be used here.
    """
    check_execution(backend, precision)
    candidates(backend, precision, next(ensemble.parameters()).device)
    few = expected if backend == "auto" and precision in ("auto", "fp32") else None
    return fast(ensemble, Execution(backend, precision, ensemble.task.activation, few, say), together)


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
    ensemble: Ensemble, picture: Path | Array | Tensor, name: str = "0", uncertainty: Asked = True
) -> PicturePrediction:
    """Predicts one picture.

    Args:
        ensemble: in eval mode, best :func:`prepared`.
        picture: a file, an array ``(H, W, C)`` or a tensor ``(C, H, W)``.
        name: of a picture that is no file.
        uncertainty: which maps of uncertainty.

    Raises:
        DataError: a file that cannot be read.
        UsageError: an array of another shape or type.
    """
    path = picture if isinstance(picture, Path) else None
    pixels = read_picture(picture, ensemble) if isinstance(picture, Path) else picture
    batch = as_images(pixels, ensemble.in_channels)
    image = shown(batch[0])
    device = next(ensemble.parameters()).device
    prediction = ensemble.predict_members(batch.to(device), uncertainty)
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
        backend: ``eager``, ``inductor``, ``onnxruntime``, ``openvino``; or ``auto``: for each member whichever is
            fastest here and right, where there are pictures enough to be worth finding out.
        precision: the lowest that may be chosen: ``fp32``, ``bf16``, ``int8``; or ``auto``: bf16 where the hardware
            computes in it. A member is run in a lower precision only if its maps stay within
            :data:`densemble.inference.tune.DRIFT` of those in fp32.

    Raises:
        DataError: nothing at a path, or a file that cannot be read.
        UsageError: arrays of another shape or type, unknown backend or precision.
    """
    check_execution(backend, precision)
    pictures = expand(source)
    ensemble.eval()
    ensemble = unwrapped(ensemble)
    several = Ensemble([ensemble]) if isinstance(ensemble, DenseModel) else ensemble
    lean = prepared(several, backend, precision, len(pictures))
    return (predict_one(lean, picture, str(i)) for i, picture in enumerate(pictures))
