"""Random changes: strengths, presets, and the change of one sample."""

from dataclasses import dataclass

import numpy as np

from densemble.shapes import Size


@dataclass(frozen=True)
class Augmentation:
    """Strengths of the random changes; the defaults change nothing.

    Attributes:
        flip: probability of a horizontal flip.
        zoom: smallest and largest enlargement. Above 1 the result is a random window of the image, below 1 the
            image lies at a random position in a larger frame.
        rotation: largest rotation in degrees, in both directions.
        shear: largest shear in degrees, along x and along y.
        brightness: largest relative change, below 1.
        contrast: largest relative change, below 1.
        saturation: largest relative change, below 1.
        hue: largest rotation of the colour circle in degrees.
        grey: probability of a conversion to grey.
        blur: probability of a Gaussian blur.
        blur_sigma: largest standard deviation of the blur in pixels.
        noise: probability of Gaussian noise.
        noise_sigma: largest standard deviation of the noise; white is 1.
    """

    flip: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    shear: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    blur_sigma: float = 1.2
    noise: float = 0.0
    noise_sigma: float = 0.03

    @property
    def warps(self) -> bool:
        """Whether the geometry changes by more than a flip."""
        return self.zoom != (1.0, 1.0) or self.rotation > 0 or self.shear > 0

    @property
    def recolours(self) -> bool:
        """Whether anything but the geometry changes."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue, self.grey, self.blur, self.noise)
        return any(strength > 0 for strength in strengths)


AUGMENT: dict[str, Augmentation] = {
    "none": Augmentation(),
    "light": Augmentation(flip=0.5, brightness=0.15, contrast=0.15, saturation=0.15),
    "strong": Augmentation(
        flip=0.5,
        zoom=(0.8, 1.6),
        rotation=10.0,
        shear=4.0,
        brightness=0.3,
        contrast=0.3,
        saturation=0.3,
        hue=18.0,
        grey=0.1,
        blur=0.2,
        noise=0.2,
    ),
}
"""Presets by name. ``light`` keeps the frame because saliency depends on it.

No preset changes the perspective: that is not affine and would need a second resampling, which blurs image and target.
"""


@dataclass(frozen=True)
class Warp:
    """An affine transform about the image centre, as in ``torchvision.transforms.v2.functional.affine``.

    Attributes:
        scale: enlargement; areas change by its square because rotation and shear keep areas.
        angle: clockwise rotation in degrees.
        shear: shear along x and y in degrees.
        shift: shift of the enlarged image along x and y in pixels.
    """

    scale: float
    angle: float
    shear: tuple[float, float]
    shift: tuple[float, float]


@dataclass(frozen=True)
class Look:
    """A change of colours.

    Attributes:
        brightness: factor.
        contrast: factor about the mean grey.
        saturation: factor; 0 is grey.
        hue: rotation of the colour circle in degrees, from red to green to blue.
        blur: standard deviation in pixels; 0 means no blur.
        noise: standard deviation; 0 means no noise.
        noise_seed: seed of the noise.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    noise_seed: int = 0


@dataclass(frozen=True)
class Change:
    """The change of one sample: first the warp, then the flip, then the look; ``None`` skips a step."""

    flip: bool = False
    warp: Warp | None = None
    look: Look | None = None


def draw_change(augmentation: Augmentation, key: tuple[int, int, int], size: Size) -> Change:
    """Draw the change of one sample; the same key gives the same change.

    Args:
        augmentation: strengths.
        key: (seed, epoch, index), all non-negative.
        size: (H, W) of the image in pixels.
    """
    random = np.random.default_rng(key)
    # All numbers are always drawn, so that the strengths of the look do not affect the geometry of a key.
    flip = bool(random.random() < augmentation.flip)
    warp = _draw_warp(augmentation, random, size)
    look = _draw_look(augmentation, random)
    return Change(flip, warp if augmentation.warps else None, look if augmentation.recolours else None)


def _draw_warp(augmentation: Augmentation, random: np.random.Generator, size: Size) -> Warp:
    smallest, largest = augmentation.zoom
    scale = smallest * (largest / smallest) ** random.random()
    angle = augmentation.rotation * random.uniform(-1, 1)
    shear_x, shear_y = augmentation.shear * random.uniform(-1, 1, 2)
    # Without rotation and shear, the window stays in the image, or the smaller image stays in the frame.
    height, width = size
    max_shift = abs(scale - 1) / 2
    shift_x, shift_y = random.uniform(-1, 1, 2) * (max_shift * width, max_shift * height)
    return Warp(float(scale), float(angle), (float(shear_x), float(shear_y)), (float(shift_x), float(shift_y)))


def _draw_look(augmentation: Augmentation, random: np.random.Generator) -> Look:
    strengths = np.array([augmentation.brightness, augmentation.contrast, augmentation.saturation])
    brightness, contrast, saturation = (float(factor) for factor in 1 + strengths * random.uniform(-1, 1, 3))
    hue = float(augmentation.hue * random.uniform(-1, 1))
    probabilities = (augmentation.grey, augmentation.blur, augmentation.noise)
    grey, blurred, noisy = (bool(applies) for applies in random.random(3) < probabilities)
    blur, noise = (float(sigma) for sigma in random.random(2) * (augmentation.blur_sigma, augmentation.noise_sigma))
    noise_seed = int(random.integers(2**63))
    return Look(
        brightness,
        contrast,
        0.0 if grey else saturation,
        hue,
        blur if blurred else 0.0,
        noise if noisy else 0.0,
        noise_seed,
    )
