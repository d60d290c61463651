"""Images to measure with: synthetic, or of a data set."""

from itertools import cycle, islice

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.data.synthetic import scene
from densemble.evaluation.scores import images_with_targets
from densemble.shapes import Size


def synthetic_images(batch: int, channels: int, size: Size) -> Tensor:
    """Synthetic scenes ``(B, C, H, W)`` in [0, 1], always the same ones; channels beyond three repeat the first three.

    Noise would not do: what lower precision loses is measured on these, and networks see nothing in noise.
    """
    random = np.random.default_rng(0)
    scenes = np.stack([scene(random, size)[0] for _ in range(batch)])
    images = torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 255
    return images[:, [channel % 3 for channel in range(channels)]].contiguous()


def split_images(data: FolderData, split: str, batch: int, size: Size) -> Tensor:
    """The first images of a split ``(B, C, H, W)`` in [0, 1], resized; over again where there are too few.

    Raises:
        DataError: no such split, or files that cannot be used.
    """
    few = [
        F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        for images, _, _ in islice(images_with_targets(data, split), batch)
    ]
    return torch.cat(list(islice(cycle(few), batch))).contiguous()
