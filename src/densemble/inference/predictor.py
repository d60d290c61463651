"""predict: files, folders, globs, lists and arrays in, one prediction per picture out, at the picture's own size."""

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.images import as_images, is_pil
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.uncertainty import Asked
from densemble.errors import DataError, DensembleError, UsageError
from densemble.inference.backends import BACKENDS, Precision
from densemble.inference.execution import Execution, say_nothing
from densemble.inference.failed import FailedPicture
from densemble.inference.fast import fast
from densemble.inference.names import output_names
from densemble.inference.picture import PicturePrediction, at_picture_size
from densemble.inference.tune import candidates
from densemble.nets.arguments import unwrapped
from densemble.nets.dense import DenseModel
from densemble.storage.images import IMAGE_SUFFIXES, as_unit, filled, read_image, read_validity

Array = np.ndarray[Any, Any]
Source = str | Path | Array | Tensor | Dataset[Any] | Any
Picture = Path | Array | Tensor | Callable[[], Array | Tensor] | Any
SUFFIXES = (*IMAGE_SUFFIXES, ".zarr")
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


def expand(source: Source | Iterable[Source]) -> list[Picture]:
    """One source or many -> single pictures, in order; batches are taken apart, items of data sets read when needed.

    Raises:
        DataError: a path where nothing is.
        UsageError: something that is no picture.
    """
    if isinstance(source, str | Path):
        return list(find_pictures(source))
    if isinstance(source, np.ndarray | Tensor):
        return list(source) if source.ndim == 4 else [source]
    if is_pil(source):
        return [source]
    if isinstance(source, Dataset) and hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return [partial(_image_of, source, number) for number in range(len(source))]
    if isinstance(source, DataLoader | IterableDataset):
        return [picture for item in source for picture in expand(_first(item))]
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping) and not hasattr(source, "read"):
        return [picture for item in source for picture in expand(item)]
    raise UsageError(
        f"a {type(source).__name__} is no picture; give a path, a folder, a glob, an array, a tensor, a PIL image, a "
        "Dataset of them, or a list; open a file object with PIL.Image.open"
    )


def _image_of(items: Any, number: int) -> Array | Tensor:
    image: Array | Tensor = _first(items[number])
    return image


def _first(item: Any) -> Any:
    """The image of an item of a data set, which may have a target and more behind it."""
    return item[0] if isinstance(item, tuple | list) else item


def check_execution(backend: str, precision: str) -> None:
    """Checks a backend's and a precision's name.

    Raises:
        UsageError: unknown; those that are get listed.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"no backend is named '{backend}'; there are: {', '.join(('auto', *BACKENDS))}")
    if precision not in PRECISIONS:
        raise UsageError(f"no precision is named '{precision}'; there are: {', '.join(PRECISIONS)}")


def prepared(
    ensemble: Ensemble,
    backend: str = "eager",
    precision: str = "fp32",
    expected: int | None = None,
    say: Callable[[str], None] = say_nothing,
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
    """A file as the ensemble's members were trained on it: float32 ``(H, W, C)`` in [0, 1], 0 where it holds no data.

    Raises:
        DataError: a file that cannot be read, or without the channels that are needed.
    """
    image, valid = read_image(path), read_validity(path)
    bands = ensemble.reading.get("bands")
    if bands is not None and max(bands) < image.shape[2]:
        image = image[..., list(bands)]
    if image.shape[2] != ensemble.in_channels:
        raise DataError(f"'{path}' has {image.shape[2]} channels, the ensemble takes {ensemble.in_channels}")
    value_range = ensemble.reading.get("image_range")
    limits = None if value_range is None else (float(value_range[0]), float(value_range[1]))
    try:
        return as_unit(filled(image, valid, limits), limits)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error


def shown(image: Tensor) -> Array:
    """An image ``(C, H, W)`` in [0, 1] as uint8 ``(H, W, 3)``: its first three channels, or its first one as grey."""
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    pixels: Array = (rgb.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels


def predict_one(
    ensemble: Ensemble, picture: Picture, name: str | None = None, uncertainty: Asked = True
) -> PicturePrediction:
    """Predicts one picture.

    Args:
        ensemble: in eval mode, best :func:`prepared`.
        picture: a file, an array ``(H, W, C)``, a tensor ``(C, H, W)``, a PIL image, or what gives one when called.
        name: default the file's stem.
        uncertainty: which maps of uncertainty.

    Raises:
        DataError: a file that cannot be read.
        UsageError: an array of another shape or type.
        ArtifactError: a member that gives no usable map, and cannot be done without.
    """
    picture = _read_item(picture) if callable(picture) else picture
    path = picture if isinstance(picture, Path) else None
    pixels = read_picture(picture, ensemble) if isinstance(picture, Path) else picture
    batch = as_images(pixels, ensemble.in_channels)
    image = shown(batch[0])
    device = next(ensemble.parameters()).device
    prediction = ensemble.predict_members(batch.to(device), uncertainty)
    return at_picture_size(prediction, image, name or (path.stem if path else "0"), path, ensemble)


def _read_item(read: Callable[[], Array | Tensor]) -> Array | Tensor:
    try:
        return read()
    except DensembleError:
        raise
    except Exception as error:  # whatever the data set's own code raises
        raise DataError(f"the data set gives no item here: {type(error).__name__}: {error}") from error


def _predicted_or_failed(ensemble: Ensemble, picture: Picture, name: str) -> PicturePrediction | FailedPicture:
    path = picture if isinstance(picture, Path) else None
    where = f"'{path or name}': "
    try:
        return predict_one(ensemble, picture, name)
    except DataError as error:
        reason = str(error)
    except UsageError as error:
        reason = f"{where}{error}"
    except UnusableMaps as error:
        reason = f"{where}{error.told}"
    return FailedPicture(name, path, reason)


def predict(
    ensemble: Ensemble | DenseModel, source: Source | Iterable[Source], backend: str = "auto", precision: str = "auto"
) -> Iterator[PicturePrediction | FailedPicture]:
    """Predictions one by one, each at its picture's own size; a generator, so that a folder needs no more memory
    than a picture.

    A picture that cannot be read or predicted gives a :class:`FailedPicture`, whose ``failed`` says why; of the others
    ``failed`` is ``None``.

    Args:
        ensemble: see :class:`Ensemble`, or a single network; runs in eval mode and is left as it is.
        source: a file, a folder, a glob, an array ``(H, W, 3)`` or ``(B, H, W, 3)``, a tensor ``(3, H, W)`` or
            ``(B, 3, H, W)``, a PIL image, a Dataset or DataLoader of images (or of images and targets), or any mixture
            of these in a list.
        backend: ``eager``, ``inductor``, ``onnxruntime``, ``openvino``; or ``auto``: for each member whichever is
            fastest here and right, where there are pictures enough to be worth finding out.
        precision: the lowest that may be chosen: ``fp32``, ``bf16``, ``int8``; or ``auto``: bf16 where the hardware
            computes in it. A member is run in a lower precision only if its maps stay within
            :data:`densemble.inference.tune.DRIFT` of those in fp32.

    Raises:
        DataError: nothing at a path.
        UsageError: a source that is an array or image of another shape or type, or no image at all; unknown backend or
            precision.
        ArtifactError: a member whose weights are not finite.
    """
    check_execution(backend, precision)
    pictures = expand(source)
    ensemble = unwrapped(ensemble)
    several = Ensemble([ensemble]) if isinstance(ensemble, DenseModel) else ensemble
    if len(pictures) == 1 and not isinstance(pictures[0], Path) and not callable(pictures[0]):
        as_images(pictures[0], several.in_channels)  # the only picture is no failure among others
    lean = prepared(several, backend, precision, len(pictures))
    named = zip(pictures, output_names(pictures), strict=True)
    return (_predicted_or_failed(lean, picture, name) for picture, name in named)
