"""Images for benchmarks: synthetic, or from a data set."""

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
    """Return synthetic scenes ``(B, C, H, W)`` in [0, 1], the same at every call.

    Channels beyond the third repeat the first three. Noise would not do: the error of a lower precision is measured on
    these images, and networks respond to noise with almost constant maps.
    """
    random = np.random.default_rng(0)
    scenes = np.stack([scene(random, size)[0] for _ in range(batch)])
    images = torch.from_numpy(scenes).permute(0, 3, 1, 2).float() / 255
    return images[:, [channel % 3 for channel in range(channels)]].contiguous()


def split_images(data: FolderData, split: str, batch: int, size: Size) -> Tensor:
    """Return the first images of a split ``(B, C, H, W)`` in [0, 1], resized, repeated if there are too few.

    Raises:
        DataError: no such split, or files that cannot be used.
    """
    images = [
        F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
        for image, _, _ in islice(images_with_targets(data, split), batch)
    ]
    return torch.cat(list(islice(cycle(images), batch))).contiguous()
