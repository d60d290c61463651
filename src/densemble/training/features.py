"""Features of a frozen backbone: computed once, cached on disk, shared by members with the same backbone."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from densemble.data.decoded_cache import DecodedSplit, unit
from densemble.data.targets import resize_target
from densemble.nets.dense import DenseModel
from densemble.progress.phases import track
from densemble.shapes import Array
from densemble.storage.arrays import create_array
from densemble.storage.writing import cache_folder
from densemble.training.dataset import EpochSampler, Samples, batches, read_target
from densemble.training.settings import MemberFit

FORMAT = 1
HEAD_ONLY = ("head", "doublings", "out_channels", "out_size")


@dataclass(frozen=True, eq=False)
class FeatureSamples(Samples):
    """Feature maps ``[(C, h, w), ...]``, deepest first, and targets ``(h, w)`` or ``(K, h, w)``."""

    maps: list[Array]

    def __getitem__(self, key: tuple[int, int]) -> tuple[list[Tensor], Tensor]:
        _, index = key
        features = [torch.from_numpy(np.array(level[index])) for level in self.maps]
        return features, resize_target(read_target(self.split, index), self.target_size, self.kind)


def feature_batches(
    fit: MemberFit, split: DecodedSplit, sampler: EpochSampler, batch_size: int
) -> DataLoader[tuple[list[Tensor], Tensor]]:
    """Return batches of features and targets; features that are not cached yet are computed first.

    Raises:
        ResourceError: the folder cannot be written or the disk is full.
    """
    model, bf16 = fit.model, fit.settings.precision == "bf16"
    folder = fit.cache / f"features-{_key(model, split, bf16)}"
    if not folder.is_dir():
        _compute(model, split, folder, batch_size, bf16)
    count = 1 + len(model.spec.skip_nodes)
    maps = [np.load(folder / f"{level}.npy", mmap_mode="r") for level in range(count)]
    return batches(FeatureSamples(split, fit.target_size, fit.task.target_kind, maps), sampler, batch_size)


def _key(model: DenseModel, split: DecodedSplit, bf16: bool) -> str:
    spec = {key: value for key, value in model.spec.as_dict().items() if key not in HEAD_ONLY}
    digest = hashlib.sha256(json.dumps([FORMAT, spec, split.stems, bf16, torch.__version__]).encode())
    digest.update(str(getattr(split.images, "filename", "")).encode())
    for name, tensor in sorted(model.backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def _compute(model: DenseModel, split: DecodedSplit, folder: Path, batch_size: int, bf16: bool) -> None:
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    arrays: list[np.memmap[Any, Any]] = []
    try:
        with cache_folder(folder, "free some space, or train without cache_features") as temporary:
            starts = range(0, len(split), batch_size)
            for start in track(starts, "computing features", len(starts), "batches"):
                images = unit(split.images[start : start + batch_size]).to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    maps = [level.float().cpu().numpy() for level in model.features(images)]
                if not arrays:
                    arrays = [
                        create_array(temporary / f"{level}.npy", np.float32, (len(split), *features.shape[1:]))
                        for level, features in enumerate(maps)
                    ]
                for array, features in zip(arrays, maps, strict=True):
                    array[start : start + len(features)] = features
            for array in arrays:
                array.flush()
    finally:
        model.train(was_training)
