"""The decoded cache: every picture is decoded and resized once, then memory-mapped by every member and epoch."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from densemble.data.folder import FolderData, some
from densemble.data.layouts import Sample
from densemble.errors import DataError, ResourceError
from densemble.shapes import Size

Array = np.ndarray[Any, Any]
FORMAT = 1


@dataclass(frozen=True)
class DecodedSplit:
    """A split in memory-mapped arrays.

    Attributes:
        images: uint8 ``(N, 3, H, W)``.
        targets: saliency and regression float32, labels uint8, ``(N, h, w)``.
        stems: N names.
    """

    images: Array
    targets: Array
    stems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.stems)


def resize_image(image: Array, size: Size) -> Tensor:
    """uint8 ``(H, W, 3)`` -> uint8 ``(3, h, w)``, bilinear with antialiasing."""
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    resized: Tensor = transforms.resize(tensor, list(size), antialias=True)
    return resized


def resize_target(target: Array, size: Size, task_name: str) -> Tensor:
    """A map ``(H, W)`` -> ``(h, w)``: saliency by area, labels and values by the nearest pixel centre.

    Labels must not be mixed, and a mean over valid and invalid depths is neither; hence nearest-exact for both.
    """
    if task_name == "saliency":
        values = torch.from_numpy(np.ascontiguousarray(target, dtype=np.float32))[None, None]
        return F.interpolate(values, size=size, mode="bilinear", antialias=True)[0, 0].clamp(0, 1)
    # Interpolation takes floats only; labels up to 255 and their float64 images are the same numbers.
    values = torch.from_numpy(np.ascontiguousarray(target, dtype=np.float64))[None, None]
    nearest = F.interpolate(values, size=size, mode="nearest-exact")[0, 0]
    return nearest.to(torch.uint8) if task_name == "segmentation" else nearest.float()


def decode_split(data: FolderData, split: str, size: Size, target_size: Size, folder: Path) -> DecodedSplit:
    """Decodes a split into ``folder``, or opens what was decoded there before with the same files and settings.

    Args:
        size: (H, W) of the pictures.
        target_size: (h, w) of the maps.

    Raises:
        DataError: names all files that cannot be used.
        ResourceError: the folder cannot be written or the disk is full.
    """
    samples = data.split(split)
    stems = tuple(sample.stem for sample in samples)
    place = folder / f"{split}-{_key(data, samples, size, target_size)}"
    if not place.is_dir():
        _decode(data, samples, size, target_size, place)
    return DecodedSplit(
        np.load(place / "images.npy", mmap_mode="r"), np.load(place / "targets.npy", mmap_mode="r"), stems
    )


def _key(data: FolderData, samples: Sequence[Sample], size: Size, target_size: Size) -> str:
    files = []
    for sample in samples:
        for path in (sample.image, sample.target):
            status = path.stat()
            files.append((str(path.resolve()), status.st_size, status.st_mtime_ns))
    settings = [FORMAT, data.task_name, data.scale, data.ignore_index, size, target_size, torch.__version__]
    return hashlib.sha256(json.dumps([settings, files]).encode()).hexdigest()[:16]


def _decode(data: FolderData, samples: Sequence[Sample], size: Size, target_size: Size, place: Path) -> None:
    building = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        building.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(
            building / "images.npy", mode="w+", dtype=np.uint8, shape=(len(samples), 3, *size)
        )
        kind = np.uint8 if data.task_name == "segmentation" else np.float32
        targets = np.lib.format.open_memmap(
            building / "targets.npy", mode="w+", dtype=kind, shape=(len(samples), *target_size)
        )

        def one(number: int) -> str | None:
            try:
                image, target = data.read_pair(samples[number])
            except DataError as error:
                return str(error)
            images[number] = resize_image(image, size).numpy()
            targets[number] = resize_target(target, target_size, data.task_name).numpy()
            return None

        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            faults = [fault for fault in pool.map(one, range(len(samples))) if fault]
        if faults:
            raise DataError(f"{len(faults)} of {len(samples)} pairs cannot be used: {some(faults)}")
        images.flush()
        targets.flush()
        if not place.is_dir():
            building.rename(place)
    except OSError as error:
        if not place.is_dir():  # another process may have finished the same cache first
            raise ResourceError(
                f"cannot write the cache '{place}': {error.strerror or error}; free some space"
            ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
