"""Sources of images: files, folders, globs, lists, arrays and data sets are expanded to single images and read."""

import glob
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.input_images import as_images, is_pil
from densemble.errors import DataError, DensembleError, UsageError
from densemble.inference.files.output_names import output_names
from densemble.input_files import expanded, is_folder, is_regular
from densemble.shapes import Array
from densemble.storage.decoding_memory import image_memory
from densemble.storage.images import IMAGE_SUFFIXES, as_unit, filled, read_image, read_validity

Source = str | Path | Array | Tensor | Dataset[Any] | Any
Image = Path | Array | Tensor | Callable[[], Array | Tensor] | Any
SUFFIXES = (*IMAGE_SUFFIXES, ".zarr")


@dataclass(frozen=True, eq=False)
class Item:
    """One image of a source.

    Attributes:
        image: a file, an array ``(H, W, C)``, a tensor ``(C, H, W)``, a PIL image, or a function that returns one.
        name: start of the names of its output files.
    """

    image: Image
    name: str

    @property
    def path(self) -> Path | None:
        """File of the image; ``None`` if it has none."""
        return self.image if isinstance(self.image, Path) else None

    @property
    def where(self) -> str:
        """Name of the image in messages."""
        return f"'{self.path or self.name}'"

    def read(self, ensemble: Ensemble) -> tuple[Tensor, Path | None]:
        """Read the pixels ``(1, C, H, W)`` in [0, 1] as input of the ensemble, and return them with their file.

        For an ensemble on a GPU, pixels of eight bits stay uint8: they are a quarter as large, and it converts them.

        Raises:
            DataError: the file cannot be read, or the data set raises an error for the item.
            UsageError: an array of an unsupported shape or type.
        """
        image = _read_item(self.image) if callable(self.image) else self.image
        path = image if isinstance(image, Path) else None
        keep_bytes = next(ensemble.parameters()).is_cuda
        pixels = image if path is None else read_for_ensemble(path, ensemble, keep_bytes)
        return as_images(pixels, ensemble.in_channels, keep_bytes), path


def make_items(source: Source | Iterable[Source]) -> list[Item]:
    """The images of a source, each with a unique name; see :func:`expand`."""
    image_memory()  # reports a wrong setting once, not for each image
    images = expand(source)
    return [Item(image, name) for image, name in zip(images, output_names(images), strict=True)]


def find_images(source: str | Path) -> list[Path]:
    """Image files of a path: the file itself, all of a folder, or all that a glob matches, sorted by name.

    What is neither a file nor a folder (a pipe, a device, a broken link) is listed too: reading it fails, and its error
    is reported with those of the other images.

    Raises:
        DataError: there is no image.
    """
    text = str(source)
    path = expanded(text)
    if path.suffix == ".zarr" or is_regular(path):
        return [path]
    if is_folder(path):
        images = [file for file in sorted(path.iterdir()) if _is_image(file)]
        if not images:
            raise DataError(f"folder '{path}' holds no images ({', '.join(SUFFIXES)})")
        return images
    try:
        path.lstat()
        return [path]
    except (OSError, ValueError) as error:
        absent = isinstance(error, FileNotFoundError)
        reason = "" if absent else f" ({getattr(error, 'strerror', None) or error})"
    if glob.has_magic(text):
        matched = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute globs)
        images = [file for file in matched if _is_image(file)]
        if not images:
            raise DataError(f"no image matches '{text}'")
        return images
    raise DataError(f"no image, folder or glob at '{text}'{reason}; check the path")


def _is_image(path: Path) -> bool:
    return path.suffix == ".zarr" or (path.suffix.lower() in SUFFIXES and not is_folder(path))


def expand(source: Source | Iterable[Source]) -> list[Image]:
    """Expand one source or several to single images, in order; batches are split, items of data sets are read later.

    Raises:
        DataError: there is no image at a path.
        UsageError: a value that is not an image.
    """
    if isinstance(source, str | Path):
        return list(find_images(source))
    if isinstance(source, np.ndarray | Tensor):
        return list(source) if source.ndim == 4 else [source]
    if is_pil(source):
        return [source]
    if isinstance(source, Dataset) and hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return [partial(_image_of, source, index) for index in range(len(source))]
    if isinstance(source, DataLoader | IterableDataset):
        return [image for item in source for image in expand(_first(item))]
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping) and not hasattr(source, "read"):
        return [image for item in source for image in expand(item)]
    raise UsageError(
        f"a {type(source).__name__} is no image; pass a path, a folder, a glob, an array, a tensor, a PIL image, a "
        "Dataset of them, or a list; open a file object with PIL.Image.open"
    )


def _image_of(items: Any, index: int) -> Array | Tensor:
    image: Array | Tensor = _first(items[index])
    return image


def _first(item: Any) -> Any:
    """The image of an item of a data set; the item may be a tuple of the image, its target and more."""
    return item[0] if isinstance(item, tuple | list) else item


def _read_item(read: Callable[[], Array | Tensor]) -> Array | Tensor:
    try:
        return read()
    except DensembleError:
        raise
    except Exception as error:  # code of the user may raise anything
        raise DataError(f"the data set raised an error for this item: {type(error).__name__}: {error}") from error


def read_for_ensemble(path: Path, ensemble: Ensemble, keep_bytes: bool = False) -> Array:
    """Read a file as in training: float32 ``(H, W, C)`` in [0, 1], and 0 where it holds no data.

    With ``keep_bytes``, an image of eight bits stays uint8.

    Raises:
        DataError: the file cannot be read, or has a wrong number of channels.
    """
    image, valid = read_image(path), read_validity(path)
    bands = input_bands(ensemble, f"'{path}'", image.shape[2])
    limits = image_range(ensemble)
    try:
        image = filled(image if bands is None else image[..., bands], valid, limits)
        return image if keep_bytes and image.dtype == np.uint8 else as_unit(image, limits)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error


def input_bands(ensemble: Ensemble, name: str, channels: int) -> list[int] | None:
    """Indices of the image channels that the ensemble takes; ``None``: all.

    Args:
        ensemble: has the bands of its training images.
        name: name of the image used in the message.
        channels: number of channels of the image.

    Raises:
        DataError: the image has a wrong number of channels.
    """
    bands = ensemble.reading.get("bands")
    bands = list(bands) if bands is not None and max(bands) < channels else None
    selected = channels if bands is None else len(bands)
    if selected != ensemble.in_channels:
        raise DataError(f"{name} has {selected} channels, the ensemble takes {ensemble.in_channels}")
    return bands


def image_range(ensemble: Ensemble) -> tuple[float, float] | None:
    """Numbers of an image file that become 0 and 1; ``None``: the limits of its data type."""
    limits = ensemble.reading.get("image_range")
    return None if limits is None else (float(limits[0]), float(limits[1]))
