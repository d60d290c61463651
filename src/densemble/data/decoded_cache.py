"""The decoded cache: every image is decoded and resized once, then memory-mapped by every member, epoch and process.

A split's arrays lie in one folder, named by a hash of what the files hold and how they are read. The folder is built
under another name and renamed when it is whole: a kill leaves nothing that looks finished, and of two processes that
build the same one, the first wins.
"""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from densemble.data.read_pairs import some
from densemble.data.targets import DTYPES, resize_target
from densemble.errors import DataError, ResourceError
from densemble.shapes import Array, Size
from densemble.storage.images import as_unit
from densemble.storage.validity import mask_file

FORMAT = 2
DEPTHS = (np.uint8, np.uint16, np.float32)
"""How images are kept, from the smallest: all of a split in the depth of its deepest image."""
_ABANDONED = 3600


@dataclass(frozen=True)
class DecodedSplit:
    """A split in memory-mapped arrays.

    Attributes:
        images: ``(N, C, H, W)``: uint8, uint16, or float32 in [0, 1].
        targets: ``(N, H, W)`` or ``(N, K, H, W)`` of the images' size: labels and masks uint8 (uint16 above 255),
            everything else float32.
        stems: N names.
    """

    images: Array
    targets: Array
    stems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.stems)

    def __reduce__(self) -> tuple[Any, ...]:
        # A memory map would be pickled as all that it maps; another process opens the file itself.
        if isinstance(self.images, np.memmap) and isinstance(self.targets, np.memmap):
            return _reopen, (str(self.images.filename), str(self.targets.filename), self.stems)
        return DecodedSplit, (self.images, self.targets, self.stems)


def _reopen(images: str, targets: str, stems: tuple[str, ...]) -> DecodedSplit:
    return DecodedSplit(np.load(images, mmap_mode="r"), np.load(targets, mmap_mode="r"), stems)


class _Deeper(Exception):
    """An image does not fit into the depth that was begun with."""

    def __init__(self, depth: type[np.generic]) -> None:
        self.depth = depth


def resize_image(image: Array, size: Size) -> Tensor:
    """``(H, W, C)`` uint8, uint16 or float32 -> ``(C, h, w)`` of the same type, bilinear with antialiasing."""
    if image.dtype == np.uint8:
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        small: Tensor = transforms.resize(tensor, list(size), antialias=True)
        return small
    values = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)
    resized: Tensor = transforms.resize(values, list(size), antialias=True)
    return resized.round().clamp(0, 65535).to(torch.uint16) if image.dtype == np.uint16 else resized


def unit(images: Array) -> Tensor:
    """Images as they are kept -> float32 in [0, 1]."""
    tensor = torch.from_numpy(np.array(images))
    if tensor.dtype == torch.uint8:
        return tensor.float() / 255
    return tensor.float() / 65535 if tensor.dtype == torch.uint16 else tensor


def decode_split(data: FolderData, split: str, size: Size, folder: Path) -> DecodedSplit:
    """Decodes a split into ``folder``, or opens what was decoded there before from the same files and settings.

    Args:
        size: (H, W) of images and maps.

    Raises:
        DataError: names all files that cannot be used.
        ResourceError: the folder cannot be written or the disk is full.
    """
    samples = data.split(split)
    stems = tuple(sample.stem for sample in samples)
    place = folder / f"{split}-{_key(data, samples, size)}"
    found = _open(place, stems)
    if found is None:
        _sweep(folder)
        _decode(data, samples, size, place)
        found = _open(place, stems)
    if found is None:
        raise ResourceError(f"the cache '{place}' cannot be read back; free some space and remove it")
    return found


def _open(place: Path, stems: tuple[str, ...]) -> DecodedSplit | None:
    """A finished split; ``None`` where there is none. One that was cut short by something outside is removed."""
    if not place.is_dir():
        return None
    try:
        images, targets = (np.load(place / f"{name}.npy", mmap_mode="r") for name in ("images", "targets"))
    except (OSError, ValueError, EOFError):
        shutil.rmtree(place, ignore_errors=True)
        return None
    return DecodedSplit(images, targets, stems)


@lru_cache(maxsize=1 << 20)
def _digest(path: str, length: int, changed: int) -> str:
    """Hash of a file; read again only when its length or its time of change differs."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def file_digests(paths: Sequence[Path]) -> list[str]:
    """Hash of what each file holds; empty for a folder.

    Raises:
        DataError: one cannot be read.
    """

    def one(path: Path) -> str:
        try:
            status = path.stat()
            return _digest(str(path.resolve()), status.st_size, status.st_mtime_ns) if path.is_file() else ""
        except OSError as error:
            raise DataError(f"cannot read '{path}': {error.strerror or error}") from error

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(one, paths))


def _key(data: FolderData, samples: Sequence[Sample], size: Size) -> str:
    files = [path for sample in samples for path in (sample.target, *sample.files)]
    files += [mask for path in files if (mask := mask_file(path)) is not None]
    task = data.task.describe()  # asked first: the reading of point maps learns from it how many channels there are
    reading = {key: str(value) for key, value in asdict(data.reading).items()}
    settings = [FORMAT, reading, task, size, [s.stem for s in samples], torch.__version__]
    drawn = [repr((sample.drawing, sample.absent)) for sample in samples if sample.drawing or sample.absent]
    text = json.dumps([settings, file_digests(files), drawn], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _sweep(folder: Path) -> None:
    """Removes what processes that were killed left half built, once nobody has written to it for an hour."""
    for left in folder.glob(".*.tmp"):
        try:
            newest = max((file.stat().st_mtime for file in left.iterdir()), default=left.stat().st_mtime)
        except OSError:
            continue  # its owner has just finished or removed it
        if time.time() - newest > _ABANDONED:
            shutil.rmtree(left, ignore_errors=True)


def _decode(data: FolderData, samples: Sequence[Sample], size: Size, place: Path) -> None:
    building = place.with_name(f".{place.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")
    depth: type[np.generic] = np.uint8
    try:
        while True:
            building.mkdir(parents=True, exist_ok=True)
            try:
                _fill(data, samples, size, building, depth)
                break
            except _Deeper as deeper:
                depth = deeper.depth
        if not place.is_dir():
            building.rename(place)
    except OSError as error:
        if not place.is_dir():  # another process may have finished the same cache first
            raise ResourceError(
                f"cannot write the cache '{place}': {error.strerror or error}; free some space, or choose another "
                "folder with --set trainer.cache_dir=FOLDER"
            ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _fill(data: FolderData, samples: Sequence[Sample], size: Size, building: Path, depth: type[np.generic]) -> None:
    task, reading, channels = data.task, data.reading, data.channels
    planes = (task.out_channels,) if reading.planes else ()
    deep_labels = reading.kind == "labels" and max(task.out_channels - 1, data.ignore_index) > 255
    target_type = np.uint16 if deep_labels else DTYPES[reading.kind]
    count = len(samples)
    images = np.lib.format.open_memmap(building / "images.npy", "w+", dtype=depth, shape=(count, channels, *size))
    targets = np.lib.format.open_memmap(
        building / "targets.npy", "w+", dtype=target_type, shape=(count, *planes, *size)
    )

    def one(number: int) -> str | _Deeper | None:
        try:
            image, target = _read_pair(data, samples[number], channels, planes)
        except DataError as error:
            return str(error)
        if DEPTHS.index(image.dtype.type) > DEPTHS.index(depth):
            return _Deeper(image.dtype.type)
        images[number] = _deepened(resize_image(image, size).numpy(), depth)
        moved = torch.from_numpy(np.ascontiguousarray(target))
        targets[number] = resize_target(moved, size, reading.kind).numpy()
        return None

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        outcomes = [outcome for outcome in pool.map(one, range(count)) if outcome is not None]
    faults = [outcome for outcome in outcomes if isinstance(outcome, str)]
    if faults:
        raise DataError(f"{len(faults)} of {count} pairs cannot be used: {some(faults)}")
    deeper = [outcome.depth for outcome in outcomes if isinstance(outcome, _Deeper)]
    if deeper:
        raise _Deeper(max(deeper, key=DEPTHS.index))
    images.flush()
    targets.flush()


def _read_pair(data: FolderData, sample: Sample, channels: int, planes: tuple[int, ...]) -> tuple[Array, Array]:
    """An image in the shallowest type that holds it, and its target.

    Raises:
        DataError: a file that cannot be read, or another number of channels.
    """
    image, target = data.read_pair(sample)
    kept = (np.uint8,) if data.reading.options["image_range"] is not None else (np.uint8, np.uint16)
    if image.dtype.type not in kept:
        image = as_unit(image, data.reading.options["image_range"])
    if image.shape[2] != channels:
        raise DataError(
            f"'{sample.image}' has {image.shape[2]} channels, the first image has {channels}; "
            "choose some with --set data.bands=[0, 1, 2]"
        )
    if target.shape[:-2] != planes:
        raise DataError(
            f"map '{sample.target}' has {target.shape[0]} channels, wanted {data.task.out_channels}; "
            "all maps must have as many"
        )
    return image, target


def _deepened(image: Array, depth: type[np.generic]) -> Array:
    """An image in a deeper type with the same meaning: 255 of 8 bits is 65535 of 16, and 1 of a float."""
    if image.dtype == depth:
        return image
    if depth == np.uint16:
        return image.astype(np.uint16) * np.uint16(257)
    return (image / np.float32(np.iinfo(image.dtype).max)).astype(np.float32)
