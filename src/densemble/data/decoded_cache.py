"""The decoded cache: images are decoded and resized once, then memory-mapped in every member, epoch and process.

The arrays of a split are in one folder. Its name is a hash of the files and of the reading settings. The folder is
built under a temporary name and renamed when it is complete. An interrupted process therefore leaves no folder that
looks complete, and if two processes build the same folder, the first one is kept.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from densemble.data.folder import FolderData
from densemble.data.layouts import Sample
from densemble.data.parallel import map_in_threads
from densemble.data.read_pairs import first_few
from densemble.data.targets import DTYPES, resize_target
from densemble.errors import DataError, ResourceError
from densemble.input_files import open_regular
from densemble.shapes import Array, Size
from densemble.storage.arrays import create_array
from densemble.storage.images import as_unit
from densemble.storage.temporary import sweep
from densemble.storage.validity import mask_file
from densemble.storage.writing import cache_folder

FORMAT = 2
DEPTHS = (np.uint8, np.uint16, np.float32)
"""Data types of images, from the smallest; all images of a split have the type of the deepest one."""


@dataclass(frozen=True)
class DecodedSplit:
    """A split in memory-mapped arrays.

    Attributes:
        images: ``(N, C, H, W)``: uint8, uint16, or float32 in [0, 1].
        targets: ``(N, H, W)`` or ``(N, K, H, W)`` of the same size: labels and masks uint8 (labels above 255 uint16),
            all other kinds float32.
        stems: names of the N samples.
    """

    images: Array
    targets: Array
    stems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.stems)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling a memory map would copy the whole array; instead, the other process opens the file.
        if isinstance(self.images, np.memmap) and isinstance(self.targets, np.memmap):
            return _reopen, (str(self.images.filename), str(self.targets.filename), self.stems)
        return DecodedSplit, (self.images, self.targets, self.stems)


def _reopen(images: str, targets: str, stems: tuple[str, ...]) -> DecodedSplit:
    return DecodedSplit(np.load(images, mmap_mode="r"), np.load(targets, mmap_mode="r"), stems)


def resize_image(image: Array, size: Size) -> Tensor:
    """Resizes ``(H, W, C)`` uint8, uint16 or float32 to ``(C, h, w)``, bilinear with antialiasing; keeps the type."""
    if image.dtype == np.uint8:
        tensor = torch.from_numpy(np.require(image, requirements=("C", "W"))).permute(2, 0, 1)
        small: Tensor = transforms.resize(tensor, list(size), antialias=True)
        return small
    values = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    resized: Tensor = transforms.resize(values, list(size), antialias=True)
    return resized.round().clamp(0, 65535).to(torch.uint16) if image.dtype == np.uint16 else resized


def unit(images: Array | Tensor) -> Tensor:
    """Converts cached images to float32 in [0, 1]."""
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    return tensor.float() / 65535 if tensor.dtype == torch.uint16 else tensor


def decode_split(data: FolderData, split: str, size: Size, folder: Path) -> DecodedSplit:
    """Decodes a split into ``folder``, or opens the arrays there if files and settings are the same.

    Args:
        data: the data folder.
        split: name of the split.
        size: (H, W) of images and targets.
        folder: folder of the cache.

    Raises:
        DataError: files cannot be used; names them.
        ResourceError: the folder cannot be written or the disk is full.
    """
    samples = data.split(split)
    stems = tuple(sample.stem for sample in samples)
    path = folder / f"{split}-{_key(data, samples, size)}"
    decoded = _open(path, stems)
    if decoded is None:
        sweep(folder)
        _decode(data, samples, size, path)
        decoded = _open(path, stems)
    if decoded is None:
        raise ResourceError(f"the cache '{path}' cannot be read back; free some space and remove it")
    return decoded


def _open(path: Path, stems: tuple[str, ...]) -> DecodedSplit | None:
    """Opens a complete split; ``None`` if it does not exist. A damaged split is removed."""
    if not path.is_dir():
        return None
    try:
        images, targets = (np.load(path / f"{name}.npy", mmap_mode="r") for name in ("images", "targets"))
    except (OSError, ValueError, EOFError):
        shutil.rmtree(path, ignore_errors=True)
        return None
    return DecodedSplit(images, targets, stems)


@lru_cache(maxsize=1 << 20)
def _digest(path: str, length: int, changed: int) -> str:
    """Hash of a file; cached until its length or its modification time changes."""
    with open_regular(Path(path)) as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def file_digests(paths: Sequence[Path]) -> list[str]:
    """Hash of the contents of each file; empty for a folder.

    Raises:
        DataError: a file cannot be read.
    """

    def digest(path: Path) -> str:
        try:
            status = path.stat()
            return _digest(str(path.resolve()), status.st_size, status.st_mtime_ns) if path.is_file() else ""
        except OSError as error:
            raise DataError(f"cannot read '{path}': {error.strerror or error}") from error

    return map_in_threads(digest, paths, "checking images, targets")


def _key(data: FolderData, samples: Sequence[Sample], size: Size) -> str:
    files = [path for sample in samples for path in (sample.target, *sample.files)]
    files += [mask for path in files if (mask := mask_file(path)) is not None]
    task = data.task.describe()  # before data.reading, because it sets the number of channels of point targets
    reading = {key: str(value) for key, value in asdict(data.reading).items()}
    settings = [FORMAT, reading, task, size, [s.stem for s in samples], torch.__version__]
    drawn = [repr((sample.drawing, sample.absent)) for sample in samples if sample.drawing or sample.absent]
    text = json.dumps([settings, file_digests(files), drawn], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _decode(data: FolderData, samples: Sequence[Sample], size: Size, path: Path) -> None:
    depth: type[np.generic] | None = np.uint8
    remedy = "free some space, or choose another folder with --set trainer.cache_dir=FOLDER"
    with cache_folder(path, remedy) as building:
        while depth is not None:
            depth = _fill(data, samples, size, building, depth)


def _fill(
    data: FolderData, samples: Sequence[Sample], size: Size, building: Path, depth: type[np.generic]
) -> type[np.generic] | None:
    """Writes the arrays; returns the data type that they need if ``depth`` is not enough, else ``None``."""
    task, reading, channels = data.task, data.reading, data.channels
    planes = (task.out_channels,) if reading.planes else ()
    deep_labels = reading.kind == "labels" and max(task.out_channels - 1, data.ignore_index) > 255
    target_type = np.uint16 if deep_labels else DTYPES[reading.kind]
    count = len(samples)
    for file in building.iterdir():  # of an attempt with a smaller type
        file.unlink()
    images = create_array(building / "images.npy", depth, (count, channels, *size))
    targets = create_array(building / "targets.npy", target_type, (count, *planes, *size))

    def decode(number: int) -> str | type[np.generic] | None:
        try:
            image, target = _read_pair(data, samples[number], channels, planes)
        except DataError as error:
            return str(error)
        if DEPTHS.index(image.dtype.type) > DEPTHS.index(depth):
            deeper: type[np.generic] = image.dtype.type
            return deeper
        images[number] = _deepened(resize_image(image, size).numpy(), depth)
        targets[number] = resize_target(torch.from_numpy(np.ascontiguousarray(target)), size, reading.kind).numpy()
        return None

    failures = map_in_threads(decode, range(count), "reading", "pairs")
    messages = [failure for failure in failures if isinstance(failure, str)]
    if messages:
        raise DataError(f"{len(messages)} of {count} pairs cannot be used: {first_few(messages)}")
    deeper = [failure for failure in failures if isinstance(failure, type)]
    if deeper:
        return max(deeper, key=DEPTHS.index)
    images.flush()
    targets.flush()
    return None


def _read_pair(data: FolderData, sample: Sample, channels: int, planes: tuple[int, ...]) -> tuple[Array, Array]:
    """An image in the smallest data type that represents it, and its target.

    Raises:
        DataError: a file cannot be read, or the number of channels is different.
    """
    image, target = data.read_pair(sample)
    image_range = data.reading.options["image_range"]
    if image.dtype != np.uint8 and (image.dtype != np.uint16 or image_range is not None):
        image = as_unit(image, image_range)
    if image.shape[2] != channels:
        raise DataError(
            f"'{sample.image}' has {image.shape[2]} channels, but the first image has {channels}; "
            "select channels with --set data.bands=[0, 1, 2]"
        )
    if target.shape[:-2] != planes:
        raise DataError(
            f"map '{sample.target}' has {target.shape[0]} channels, but the task has {data.task.out_channels}; "
            "save all maps with this number of channels"
        )
    return image, target


def _deepened(image: Array, depth: type[np.generic]) -> Array:
    """Converts an image to a deeper data type: 255 of 8 bits becomes 65535 of 16 bits, or 1 of a float."""
    if image.dtype == depth:
        return image
    if depth == np.uint16:
        return image.astype(np.uint16) * np.uint16(257)
    return (image / np.float32(np.iinfo(image.dtype).max)).astype(np.float32)
