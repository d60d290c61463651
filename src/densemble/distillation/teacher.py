"""The maps of an ensemble for the images that a student learns from, computed once and cached in the run folder."""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from densemble.data.decoded_cache import DecodedSplit, file_digests, resize_image
from densemble.data.folder import FolderData
from densemble.distillation.options import DistillOptions
from densemble.engines.member import Training
from densemble.engines.plan import sizes
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.resize import resize_maps
from densemble.inference.predict import prepared
from densemble.inference.sources import find_images, read_for_ensemble
from densemble.progress.phases import track
from densemble.shapes import Array, Size
from densemble.storage.arrays import create_array
from densemble.storage.writing import cache_folder
from densemble.training.soft_targets import SoftTargets

log = logging.getLogger(__name__)
FORMAT = 1
_ARRAYS = ("maps", "doubt", "unlabelled")


@dataclass(frozen=True)
class Teacher:
    """An ensemble that teaches a student.

    Attributes:
        ensemble: the ensemble.
        fingerprint: identifies the ensemble in the cache.
        options: options of the distillation.
        files: unlabelled images.
    """

    ensemble: Ensemble
    fingerprint: str
    options: DistillOptions
    files: Sequence[Path] = ()

    def teach(self, training: Training, train: DecodedSplit) -> SoftTargets:
        """Return the soft targets of a training: from the cache, or computed now.

        Memory does not grow with the number of images. Maps in [0, 1] are stored as float16; values and densities as
        float32.

        Raises:
            DataError: an image cannot be read, or has a wrong number of channels.
            ArtifactError: a member gives no usable map of an image.
            ResourceError: the folder cannot be written or the disk is full.
        """
        files, target_size = self.files, sizes(training.config, training.config.members[0]).target
        images_as = [train.images.shape[1:], str(train.images.dtype)] if files else None
        key = [FORMAT, self.fingerprint, train.stems, target_size, images_as]
        images = [path for sample in training.data.train for path in (sample.image, *sample.bands)]
        text = json.dumps([*key, file_digests([*images, *files])])
        path = training.cache / f"soft-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if not path.is_dir():
            _Pass(self.ensemble, training.data, train, files, target_size).write(path)
        maps, doubt, unlabelled = (np.load(path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
        mean_doubt = float(np.mean([float(np.mean(image, dtype=np.float64)) for image in doubt]))
        return SoftTargets(maps, doubt, mean_doubt, unlabelled, self.options.label_share, self.options.weighting)


def unlabelled_files(ensemble: Ensemble, data: FolderData, sources: Sequence[str | Path]) -> list[Path]:
    """Return the unlabelled images; copies of images of the data set are left out.

    The ensemble's maps of the validation and test images would make their scores optimistic.

    Raises:
        DataError: there is no image at a path, or the first one does not fit the ensemble.
    """
    files = list(dict.fromkeys(path for source in sources for path in find_images(source)))
    known = {digest for samples in data.layout.splits.values()
             for digest in file_digests([sample.image for sample in samples])} if files else set()  # fmt: skip
    fresh = [path for path, digest in zip(files, file_digests(files), strict=True) if digest not in known]
    if len(fresh) < len(files):
        log.info(f"{len(files) - len(fresh)} unlabelled images are also images of '{data.path}': left out")
    for path in fresh[:1]:  # before anything is trained
        read_for_ensemble(path, ensemble)
    return fresh


@dataclass(frozen=True)
class _Pass:
    """One pass of the ensemble over the labelled and the unlabelled images."""

    ensemble: Ensemble
    data: FolderData
    train: DecodedSplit
    files: Sequence[Path]
    target_size: Size

    def write(self, path: Path) -> None:
        """Write the arrays into a folder, which appears when it is complete."""
        remedy = "free some space, or choose another folder with --set trainer.cache_dir=FOLDER"
        with cache_folder(path, remedy) as building:
            self._fill(building)

    def _fill(self, folder: Path) -> None:
        task, count = self.ensemble.task, len(self.train) + len(self.files)
        dtype = np.float32 if task.target_kind in ("values", "density") else np.float16
        shapes = {
            "maps": (dtype, (count, task.out_channels, *self.target_size)),
            "doubt": (np.float32, (count, *self.target_size)),
            "unlabelled": (self.train.images.dtype, (len(self.files), *self.train.images.shape[1:])),
        }
        maps, doubt, unlabelled = (
            create_array(folder / f"{name}.npy", kind, shape) for name, (kind, shape) in shapes.items()
        )
        log.info(f"computing the maps of the ensemble for {len(self.train)} labelled, {len(self.files)} other images")
        started, fast = time.monotonic(), prepared(self.ensemble)
        for index, image in enumerate(track(self._images(), "ensemble maps", count, "images")):
            if index >= len(self.train):
                unlabelled[index - len(self.train)] = _stored(image, unlabelled)
            maps[index], doubt[index] = self._predict(fast, image)
        log.info(f"maps of {count} images computed in {time.monotonic() - started:.0f} s")

    def _images(self) -> Iterable[Array]:
        """Yield the images ``(H, W, C)`` in [0, 1] at their full size."""
        for sample in self.data.train:
            yield self.data.unit_image(sample)
        for path in self.files:
            yield read_for_ensemble(path, self.ensemble)

    def _predict(self, fast: Ensemble, image: Array) -> tuple[Array, Array]:
        """Return the map and the disagreement of the members for one image, at the size of the training targets."""
        pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        device = next(fast.parameters()).device
        asked = "variance" if self.ensemble.task.distribution == "none" else "mutual_information"
        prediction = fast.predict_members(pixels.to(device), {asked})
        doubt: Tensor | None = prediction.mutual_information
        doubt = prediction.spread().mean(1) if doubt is None else doubt
        density = self.ensemble.task.target_kind == "density"
        maps = resize_maps(prediction.mean.float(), self.target_size, density, antialias=True)
        small = resize_maps(doubt[:, None].float(), self.target_size, antialias=True)
        return maps[0].cpu().numpy(), small[0, 0].cpu().numpy()


def _stored(image: Array, like: Array) -> Array:
    """Resize an image ``(H, W, C)`` in [0, 1] to the size and data type of stored images."""
    height, width = like.shape[-2:]
    small = resize_image(image.astype(np.float32), (height, width)).numpy().clip(0, 1)
    scaled: Array = small if like.dtype.kind == "f" else np.rint(small * np.iinfo(like.dtype).max)
    return scaled.astype(like.dtype)
