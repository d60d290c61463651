"""What is drawn at random: strengths, the presets, and the change of one sample."""

from dataclasses import dataclass

import numpy as np

from densemble.shapes import Size


@dataclass(frozen=True)
class Augmentation:
    """Strength of the random changes; the defaults change nothing.

    Attributes:
        flip: probability of a horizontal flip.
        zoom: smallest and largest enlargement. Above 1 the frame is a random window of the image, below 1 the
            image lies somewhere in a larger frame.
        rotation: largest rotation in degrees, either way.
        shear: largest shear in degrees, along x and along y.
        brightness: largest relative change, below 1.
        contrast: largest relative change, below 1.
        saturation: largest relative change, below 1.
        hue: largest turn of the colour circle in degrees.
        grey: probability that all colour is taken away.
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
        """Whether the frame is moved by more than a flip."""
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
"""Preset by name. ``light`` keeps the frame, for what people look at depends on it.

None bends the image in perspective: that is no affine map, and a second resampling would blur image and target.
"""


@dataclass(frozen=True)
class Warp:
    """An affine map of the image about its centre, as ``torchvision.transforms.v2.functional.affine`` has it.

    Attributes:
        scale: enlargement; areas grow by its square, for rotation and shear keep them.
        angle: clockwise rotation in degrees.
        shear: along x and y in degrees.
        shift: of the enlarged image along x and y in pixels.
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
        hue: turn of the colour circle in degrees, from red to green to blue.
        blur: standard deviation in pixels; 0 leaves the image sharp.
        noise: standard deviation; 0 adds none.
        noise_seed: fixes the noise.
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
    """The drawn change of one sample: first the warp, then the flip, then the look; ``None`` leaves that out."""

    flip: bool = False
    warp: Warp | None = None
    look: Look | None = None


def draw_change(how: Augmentation, key: tuple[int, int, int], size: Size) -> Change:
    """The change of one sample, always the same for the same key.

    Args:
        how: strengths.
        key: (seed, epoch, index), none negative.
        size: (H, W) of the image in pixels.
    """
    random = np.random.default_rng(key)
    # All numbers are drawn whatever the strengths: a change of the colours leaves the geometry of a key as it was.
    flip = bool(random.random() < how.flip)
    warp = _draw_warp(how, random, size)
    look = _draw_look(how, random)
    return Change(flip, warp if how.warps else None, look if how.recolours else None)


def _draw_warp(how: Augmentation, random: np.random.Generator, size: Size) -> Warp:
    smallest, largest = how.zoom
    scale = smallest * (largest / smallest) ** random.random()
    angle = how.rotation * random.uniform(-1, 1)
    shear_x, shear_y = how.shear * random.uniform(-1, 1, 2)
    # As far as the window stays in the image or, zoomed out, the image in the frame (but for rotation and shear).
    height, width = size
    room = abs(scale - 1) / 2
    shift_x, shift_y = random.uniform(-1, 1, 2) * (room * width, room * height)
    return Warp(float(scale), float(angle), (float(shear_x), float(shear_y)), (float(shift_x), float(shift_y)))


def _draw_look(how: Augmentation, random: np.random.Generator) -> Look:
    strengths = np.array([how.brightness, how.contrast, how.saturation])
    brightness, contrast, saturation = (float(factor) for factor in 1 + strengths * random.uniform(-1, 1, 3))
    hue = float(how.hue * random.uniform(-1, 1))
    grey, blurred, noisy = (bool(chance) for chance in random.random(3) < (how.grey, how.blur, how.noise))
    blur, noise = (float(sigma) for sigma in random.random(2) * (how.blur_sigma, how.noise_sigma))
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
