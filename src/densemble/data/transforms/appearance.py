"""Change the look of an image: blur, colours and noise. Targets do not change."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from densemble.data.transforms.change import Look
from densemble.data.transforms.geometry import mean_colour

Matrix = np.ndarray[Any, Any]

_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def change_look(image: Tensor, look: Look) -> Tensor:
    """Apply blur, colour change and noise to an image ``(C, H, W)`` in [0, 1]; the result is in [0, 1]."""
    if look.blur > 0:
        image = _blur(image, look.blur)
    image = _recolour(image, look)
    if look.noise > 0:
        # torchvision's gaussian_noise uses the global generator, so its noise would depend on earlier draws.
        generator = torch.Generator().manual_seed(look.noise_seed)
        noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
        image = image + look.noise * noise.to(image.device, non_blocking=True)
    return image.clamp_(0, 1)


def _blur(image: Tensor, sigma: float) -> Tensor:
    width = 2 * math.ceil(2 * sigma) + 1
    # Channels as a batch are four times as fast as the grouped convolution over channels, with the same result.
    blurred: Tensor = transforms.gaussian_blur(image[:, None], [width, width], [sigma, sigma])
    return blurred[:, 0]


def _recolour(image: Tensor, look: Look) -> Tensor:
    """Apply brightness, contrast, saturation and hue as one linear transform of the channels.

    The first three follow torchvision. Torchvision changes the hue in HSV, which takes 3 ms at 192x256, sixty times
    as long as this function. Here the hue is rotated in YIQ (Haeberli 1993, "Matrix operations for image
    processing"), which keeps the luma. Saturation and hue change RGB images only.
    """
    channels = len(image)
    if channels == 3:
        mix, shares = _hue(look.hue) @ _saturation(look.saturation), _LUMA
    else:
        mix, shares = np.eye(channels), np.full(channels, 1 / channels)
    # The matrix and the shares go to a GPU together; nothing is read back, which would wait for it.
    matrix = torch.from_numpy(np.vstack([look.brightness * look.contrast * mix, shares]))
    matrix = matrix.to(image.device, image.dtype, non_blocking=True)
    factors, grey = matrix[:-1], (matrix[-1] * mean_colour(image).flatten()).sum()
    offset = (look.brightness * (1 - look.contrast) * grey).expand(channels, 1)
    return torch.addmm(offset, factors, image.reshape(channels, -1)).reshape(image.shape)


def _saturation(factor: float) -> Matrix:
    matrix: Matrix = factor * np.eye(3) + (1 - factor) * _LUMA  # each row moves its channel towards the luma
    return matrix


def _hue(degrees: float) -> Matrix:
    angle = math.radians(degrees)
    rotation = np.array([[1, 0, 0], [0, math.cos(angle), math.sin(angle)], [0, -math.sin(angle), math.cos(angle)]])
    matrix: Matrix = _FROM_YIQ @ rotation @ _TO_YIQ
    return matrix
