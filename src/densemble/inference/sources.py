"""Sources: files, folders, globs, lists, arrays and data sets -> single images, and how one of them is read."""

import glob
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.input_images import as_images, is_pil
from densemble.errors import DataError, DensembleError, UsageError
from densemble.inference.files.output_names import output_names
from densemble.shapes import Array
from densemble.storage.images import IMAGE_SUFFIXES, as_unit, filled, read_image, read_validity

Source = str | Path | Array | Tensor | Dataset[Any] | Any
Image = Path | Array | Tensor | Callable[[], Array | Tensor] | Any
SUFFIXES = (*IMAGE_SUFFIXES, ".zarr")


@dataclass(frozen=True, eq=False)
class Item:
    """One image of a source.

    Attributes:
        image: a file, an array ``(H, W, C)``, a tensor ``(C, H, W)``, a PIL image, or a function that returns one.
        name: what the names of its files begin with.
    """

    image: Image
    name: str

    @property
    def path(self) -> Path | None:
        """Its file, if it has one."""
        return self.image if isinstance(self.image, Path) else None

    @property
    def where(self) -> str:
        """The image in messages."""
        return f"'{self.path or self.name}'"

    def read(self, ensemble: Ensemble) -> tuple[Tensor, Path | None]:
        """Pixels ``(1, C, H, W)`` in [0, 1] as the ensemble takes them, and the file that they come from.

        Raises:
            DataError: a file that cannot be read, or an item that its data set does not give.
            UsageError: an array of another shape or type.
        """
        image = _read_item(self.image) if callable(self.image) else self.image
        path = image if isinstance(image, Path) else None
        return as_images(image if path is None else read_for_ensemble(path, ensemble), ensemble.in_channels), path


def make_items(source: Source | Iterable[Source]) -> list[Item]:
    """The images of a source, each with a name of its own; see :func:`expand`."""
    images = expand(source)
    return [Item(image, name) for image, name in zip(images, output_names(images), strict=True)]


def find_images(source: str | Path) -> list[Path]:
    """Image files behind a path: itself, all of a folder, or all that a glob matches, sorted by name.

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
            raise DataError(f"folder '{path}' holds no images ({', '.join(SUFFIXES)})")
        return found
    if glob.has_magic(text):
        matched = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 (absolute globs)
        found = [file for file in matched if file.suffix.lower() in SUFFIXES and _is_image(file)]
        if not found:
            raise DataError(f"no image matches '{text}'")
        return found
    raise DataError(f"no image, folder or glob at '{text}'; check the path")


def _is_image(path: Path) -> bool:
    return path.is_file() or path.suffix == ".zarr"


def expand(source: Source | Iterable[Source]) -> list[Image]:
    """One source or many -> single images, in order; batches are taken apart, items of data sets read when needed.

    Raises:
        DataError: a path where nothing is.
        UsageError: something that is no image.
    """
    if isinstance(source, str | Path):
        return list(find_images(source))
    if isinstance(source, np.ndarray | Tensor):
        return list(source) if source.ndim == 4 else [source]
    if is_pil(source):
        return [source]
    if isinstance(source, Dataset) and hasattr(source, "__len__") and hasattr(source, "__getitem__"):
        return [partial(_image_of, source, number) for number in range(len(source))]
    if isinstance(source, DataLoader | IterableDataset):
        return [image for item in source for image in expand(_first(item))]
    if isinstance(source, Iterable) and not isinstance(source, bytes | Mapping) and not hasattr(source, "read"):
        return [image for item in source for image in expand(item)]
    raise UsageError(
        f"a {type(source).__name__} is no image; give a path, a folder, a glob, an array, a tensor, a PIL image, a "
        "Dataset of them, or a list; open a file object with PIL.Image.open"
    )


def _image_of(items: Any, number: int) -> Array | Tensor:
    image: Array | Tensor = _first(items[number])
    return image


def _first(item: Any) -> Any:
    """The image of an item of a data set, which may have a target and more behind it."""
    return item[0] if isinstance(item, tuple | list) else item


def _read_item(read: Callable[[], Array | Tensor]) -> Array | Tensor:
    try:
        return read()
    except DensembleError:
        raise
    except Exception as error:  # whatever the data set's own code raises
        raise DataError(f"the data set gives no item here: {type(error).__name__}: {error}") from error


def read_for_ensemble(path: Path, ensemble: Ensemble) -> Array:
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
    limits = value_range(ensemble)
    try:
        return as_unit(filled(image, valid, limits), limits)
    except DataError as error:
        raise DataError(f"'{path}': {error}") from error


def value_range(ensemble: Ensemble) -> tuple[float, float] | None:
    """Numbers of an image that become 0 and 1; ``None``: those of its type."""
    limits = ensemble.reading.get("image_range")
    return None if limits is None else (float(limits[0]), float(limits[1]))


def shown(image: Tensor) -> Array:
    """An image ``(C, H, W)`` in [0, 1] as uint8 ``(H, W, 3)``: its first three channels, or its first one as grey."""
    rgb = image[:3] if image.shape[0] >= 3 else image[:1].expand(3, -1, -1)
    pixels: Array = (rgb.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return pixels
