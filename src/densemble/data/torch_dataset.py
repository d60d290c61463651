"""Torch data sets of (image, target): their pairs are written to a folder once, which is then read like any other.

So everything that works for a folder works for a data set: the check of the data, resume, worker processes, selection
and the report. The files keep all values.
"""

import filecmp
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from densemble.data.folder import FolderData
from densemble.data_options import DataOptions
from densemble.ensemble.input_images import is_pil
from densemble.errors import DataError, UsageError
from densemble.input_files import expanded
from densemble.shapes import Array, format_size, size_of
from densemble.storage.images import write_png, write_tiff
from densemble.storage.writing import atomic_path, require_writable
from densemble.tasks import TASKS, require_task
from densemble.tasks.task import TargetKind

log = logging.getLogger(__name__)
Pairs = Dataset[Any] | Sequence[tuple[Any, Any]]
"""``len(pairs)`` pairs ``(image, target)``."""
TorchData = Pairs | Mapping[str, Pairs]
"""One data set, or data sets by split: ``train``, ``val`` and ``test``."""
SPLITS = ("train", "val", "test")
_WRITTEN = re.compile(r"\.?\d{6,}\.(png|tif)(\.\d+\.tmp)?")
"""Names of the files of pairs, and of unfinished ones."""
_CHANGED = "choose another folder, or write all pairs again: replace=True, in de.train retrain=True"
_RANDOM = (
    "it is another pair at each access: remove random transforms; training images are augmented by training.augment"
)


def store_dataset(
    data: TorchData, folder: str | Path, task: str | None, replace: bool = False, **options: Unpack[DataOptions]
) -> FolderData:
    """Write the pairs of a torch data set to a folder, and open it.

    A file that exists must be equal to the one that would be written, so a second call changes nothing.

    Args:
        data: a data set of pairs ``(image, target)``, or a mapping of splits (``train``, ``val``, ``test``) to data
            sets. One data set is split like a folder without splits. An image is a tensor ``(C, H, W)``, an array
            ``(H, W, C)`` or a PIL image; uint8, uint16, or float in [0, 1]. A target is a tensor, array or PIL image
            in the form of :data:`densemble.tasks.task.TargetKind`: ``(H, W)`` or ``(K, H, W)``.
        folder: folder to write.
        task: row of ``TASKS``.
        replace: write files again that exist with another content, and remove further pairs of an earlier call.
        options: options of :class:`DataOptions`.

    Raises:
        DataError: a pair cannot be stored, is another one at each access, or differs from the files in the folder.
        UsageError: the data set has no length, or a split has another name.
        ResourceError: the folder cannot be written or the disk is full.
    """
    if task is None:
        raise UsageError("a torch data set needs task=, for instance task='segmentation'")
    path = expanded(folder)
    kind = TASKS[require_task(task)].target_kind_for(options.get("heatmap", "keypoints"))
    largest = 0.0
    for name, pairs in _splits(data).items():
        writer = _PairWriter(path / name, kind, f"{name} split" if name else "data set")
        for index in range(len(pairs)):
            writer.write(index, pairs[index], replace, _CHANGED)
        if len(pairs):
            writer.write(0, pairs[0], False, _RANDOM)
        writer.finish(replace)
        largest = max(largest, writer.largest)
        log.info(f"{len(pairs)} pairs of the {writer.title} are in {writer.folder}")
    if kind == "heat" and 0 < largest <= 1:  # heat maps of a data set are floats in [0, 1], see TargetKind
        options["heat_max"] = options.get("heat_max") or 1.0
    return FolderData(path, task, **options)


def _splits(data: TorchData) -> dict[str, Any]:
    """Return the data sets by split; the split of a single data set has no name.

    Raises:
        UsageError: a split has another name, or a data set has no length.
    """
    splits = dict(data) if isinstance(data, Mapping) else {"": data}
    unknown = [str(name) for name in splits if name not in ("", *SPLITS)]
    if unknown or not splits:
        raise UsageError(f"data: no split is named '{', '.join(unknown)}'; name them train, val and test")
    for name, pairs in splits.items():
        if isinstance(pairs, IterableDataset) or not hasattr(pairs, "__len__") or not hasattr(pairs, "__getitem__"):
            raise UsageError(
                f"data: the {name or 'data set'} is a {type(pairs).__name__}; give a data set with __len__ and "
                "__getitem__"
            )
    return splits


class _PairWriter:
    """Writes the pairs of one split.

    Args:
        folder: folder of the split.
        kind: kind of the targets.
        title: name of the split in messages.

    Raises:
        DataError: the folder holds files with names that this class does not write.
        ResourceError: it cannot be written.
    """

    def __init__(self, folder: Path, kind: TargetKind, title: str) -> None:
        self.folder, self.kind, self.title = folder, kind, title
        self.parts = {name: require_writable(folder / name) for name in ("images", "targets")}
        self.largest = 0.0
        """Largest value of the float targets."""
        self._files: set[Path] = set()
        foreign = [file for part in self.parts.values() for file in part.iterdir() if not _WRITTEN.fullmatch(file.name)]
        if foreign:
            raise DataError(self._holds(foreign, "choose another folder"))

    def write(self, index: int, pair: Any, replace: bool, remedy: str) -> None:
        """Write a pair.

        Args:
            index: index of the pair.
            pair: image and target.
            replace: replace files with another content; else they are an error.
            remedy: end of the message of that error.

        Raises:
            DataError: the pair cannot be stored, or differs from the files.
        """
        where = f"pair {index} of the {self.title}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            size = f" of {len(pair)}" if isinstance(pair, tuple | list) else ""
            raise DataError(f"{where} is a {type(pair).__name__}{size}; return (image, target)")
        image, target = _image(pair[0], where), _target(pair[1], self.kind, where)
        if size_of(target) != size_of(image):
            raise DataError(
                f"{where}: the image is {format_size(size_of(image))} but the target {format_size(size_of(target))} "
                "(height x width); resize them together"
            )
        if target.dtype.kind == "f" and np.isfinite(target).any():
            self.largest = max(self.largest, float(np.nanmax(target)))
        for folder, planes in zip(self.parts.values(), (image, target), strict=True):
            path = folder / f"{index:06d}.{'png' if _fits_png(planes) else 'tif'}"
            self._files.add(path)
            _write(path, planes, replace, f"{where} differs from '{path}'; {remedy}")

    def finish(self, replace: bool) -> None:
        """Check that an earlier call wrote no further pairs; with ``replace``, remove them.

        Raises:
            DataError: it did.
        """
        others = [file for folder in self.parts.values() for file in folder.iterdir() if file not in self._files]
        if others and not replace:
            raise DataError(self._holds(others, _CHANGED))
        for file in others:
            file.unlink()

    def _holds(self, files: Sequence[Path], remedy: str) -> str:
        example = files[0].name
        return f"'{self.folder}' holds {len(files)} files that are not of this data set, such as '{example}'; {remedy}"


def _write(path: Path, planes: Array, replace: bool, message: str) -> None:
    """Write ``(K, H, W)`` or ``(H, W)``; a file that exists must be equal unless ``replace``.

    Raises:
        DataError: it differs, with ``message``.
        ResourceError: the folder cannot be written or the disk is full.
    """
    with atomic_path(path) as temporary:
        if path.suffix == ".png":
            is_rgb = len(planes) == 3 and planes.ndim == 3
            write_png(temporary, np.moveaxis(planes, 0, -1) if is_rgb else _plain(planes))
        else:
            write_tiff(temporary, _plain(planes))
        if path.exists() and not replace and not filecmp.cmp(temporary, path, shallow=False):
            raise DataError(message)


def _plain(planes: Array) -> Array:
    return planes[0] if planes.ndim == 3 and len(planes) == 1 else planes


def _fits_png(planes: Array) -> bool:
    """Whether a PNG holds the planes: one or three of 8 bits, or one of 16 bits."""
    count = len(planes) if planes.ndim == 3 else 1
    return (planes.dtype == np.uint8 and count in (1, 3)) or (planes.dtype == np.uint16 and count == 1)


def _image(image: Any, where: str) -> Array:
    """Return an image ``(C, H, W)`` as uint8, uint16 or float32.

    Raises:
        DataError: it is no image.
    """
    if is_pil(image):
        image = np.asarray(image.convert("RGB") if image.mode in ("1", "P", "PA", "LA", "RGBA", "CMYK") else image)
    is_tensor = isinstance(image, torch.Tensor)
    pixels = image.detach().cpu().numpy() if is_tensor else image
    if not isinstance(pixels, np.ndarray) or pixels.ndim not in (2, 3) or not pixels.size:
        shape = f" {tuple(pixels.shape)}" if isinstance(pixels, np.ndarray) else ""
        raise DataError(f"{where}: the image is a {type(image).__name__}{shape}; give (C, H, W) or an array (H, W, C)")
    planes = pixels[None] if pixels.ndim == 2 else pixels if is_tensor else np.moveaxis(pixels, -1, 0)
    if planes.dtype in (np.uint8, np.uint16):
        return planes
    if planes.dtype.kind != "f":
        raise DataError(f"{where}: the image has the type {planes.dtype}; give uint8, uint16, or float in [0, 1]")
    planes = planes.astype(np.float32)
    if not (planes.min() >= 0 and planes.max() <= 1):
        raise DataError(
            f"{where}: the image has values from {planes.min():g} to {planes.max():g}, outside [0, 1]; leave out "
            "Normalize, because members normalize their images"
        )
    eight_bits = (planes * 255).round().astype(np.uint8)
    return eight_bits if np.array_equal(eight_bits / np.float32(255), planes) else planes


def _target(target: Any, kind: TargetKind, where: str) -> Array:
    """Return a target ``(H, W)`` or ``(K, H, W)`` with its values, in the smallest type that files store.

    Raises:
        DataError: it is no target.
    """
    if kind == "pixels":
        return _image(target, where)
    values = np.asarray(target.detach().cpu() if isinstance(target, torch.Tensor) else target)
    if values.ndim not in (2, 3) or not values.size or values.dtype.kind not in "buif":
        raise DataError(
            f"{where}: the target has the shape {values.shape} and the type {values.dtype}; give numbers (H, W) or "
            "(K, H, W)"
        )
    if kind in ("labels", "values"):
        values = _plain(values)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    low, high = int(values.min()), int(values.max())
    return values.astype(np.int32 if low < 0 or high > 65535 else np.uint8 if high < 256 else np.uint16)
