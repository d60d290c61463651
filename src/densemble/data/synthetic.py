"""A synthetic data set of drawn scenes with computed gaze maps, for tests and demos without a download.

The gaze is not recorded. The maps are computed: attention is on the vivid objects that the program draws, and a little
on the centre. The data set tests the program; it does not model human gaze.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from densemble.errors import ResourceError, UsageError
from densemble.shapes import Array, Size, format_size
from densemble.storage.pillow import write_png
from densemble.storage.writing import atomic_binary

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

SMALLEST = 32
FIXATIONS_PER_VIEWER = 4
_OVERSAMPLING = 3
_BLUR = 0.06
"""Standard deviation of the Gaussian drawn around a simulated fixation, as a share of the height."""
_VIVID = ((225, 40, 40), (250, 205, 30), (240, 110, 20), (215, 40, 160), (40, 90, 235))


def _ground(random: np.random.Generator, size: Size) -> Array:
    """Draws sky above ground, or wall above floor, with soft texture: float ``(H, W, 3)`` in 0..255."""
    from PIL import Image

    height, width = size
    outdoors = random.random() < 0.6
    top = np.array([150, 185, 215] if outdoors else [190, 180, 165], float) + random.uniform(-20, 20, 3)
    bottom = np.array([120, 140, 95] if outdoors else [125, 105, 90], float) + random.uniform(-20, 20, 3)
    horizon = random.uniform(0.4, 0.7) * height
    rows = np.arange(height)[:, None, None]
    shade = 1 - 0.25 * np.abs(rows - horizon) / height
    image = np.where(rows < horizon, top, bottom) * shade
    coarse = Image.fromarray(random.normal(0, 9, (height // 10 + 2, width // 10 + 2)).astype(np.float32))
    texture = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC))[..., None]
    ground: Array = image * np.ones((1, width, 1)) + texture
    return ground


def _muted(random: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(value) for value in random.uniform(85, 150) + random.uniform(-18, 18, 3))


def _draw_dull(draw: "ImageDraw", random: np.random.Generator, x: float, y: float, r: float) -> None:
    """Draws a house, a tree or a box in muted colours around (x, y), with a radius of about ``r`` pixels."""
    kind, colour, other = random.integers(3), _muted(random), _muted(random)
    if kind == 0:
        draw.rectangle((x - r, y - r * 0.6, x + r, y + r), fill=colour)
        draw.polygon([(x - 1.2 * r, y - 0.6 * r), (x, y - 1.4 * r), (x + 1.2 * r, y - 0.6 * r)], fill=other)
    elif kind == 1:
        draw.rectangle((x - r * 0.15, y, x + r * 0.15, y + r), fill=other)
        draw.ellipse((x - 0.7 * r, y - r, x + 0.7 * r, y + 0.3 * r), fill=colour)
    else:
        draw.rectangle((x - r, y - 0.5 * r, x + r, y + 0.5 * r), fill=colour, outline=other, width=2)


def _draw_vivid(draw: "ImageDraw", random: np.random.Generator, x: float, y: float, r: float) -> None:
    """Draws a ball, a sign or a face in vivid colours around (x, y), with radius ``r`` in pixels."""
    colour = _VIVID[random.integers(len(_VIVID))]
    kind = random.integers(3)
    if kind == 0:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        draw.pieslice((x - r, y - r, x + r, y + r), 60, 150, fill=(250, 250, 250))
    elif kind == 1:
        draw.rectangle((x - 0.12 * r, y, x + 0.12 * r, y + 2 * r), fill=(70, 70, 70))
        draw.polygon([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], fill=colour)
        draw.rectangle((x - 0.15 * r, y - 0.5 * r, x + 0.15 * r, y + 0.5 * r), fill=(255, 255, 255))
    else:
        draw.rectangle((x - 0.8 * r, y + 0.8 * r, x + 0.8 * r, y + 2.2 * r), fill=colour)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(240, 200, 165))
        for side in (-0.4, 0.4):
            draw.ellipse((x + (side - 0.14) * r, y - 0.35 * r, x + (side + 0.14) * r, y - 0.05 * r), fill=(20, 20, 20))
        draw.arc((x - 0.5 * r, y - 0.1 * r, x + 0.5 * r, y + 0.6 * r), 20, 160, fill=(150, 20, 20), width=3)


def _blob(size: Size, x: float, y: float, spread: float) -> Array:
    rows, columns = np.mgrid[: size[0], : size[1]]
    blob: Array = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * spread**2))
    return blob


def scene(random: np.random.Generator, size: Size) -> tuple[Array, Array, Array]:
    """Draws one scene.

    Returns:
        Image uint8 ``(H, W, 3)``, gaze map float32 ``(H, W)`` in [0, 1], fixations bool ``(H, W)``.
    """
    from PIL import Image, ImageDraw

    height, width = size
    k = _OVERSAMPLING
    ground = _ground(random, size).clip(0, 255).astype(np.uint8)
    canvas = Image.fromarray(ground).resize((width * k, height * k), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    for _ in range(random.integers(4, 8)):
        x, y = random.uniform(0, width), random.uniform(0.35, 0.95) * height
        _draw_dull(draw, random, x * k, y * k, random.uniform(0.06, 0.13) * height * k)
    density = 0.06 * _blob(size, width / 2, height / 2, height / 3)
    for _ in range(random.integers(1, 4)):
        r = random.uniform(0.06, 0.11) * height
        x, y = random.uniform(0.1, 0.9) * width, random.uniform(0.15, 0.8) * height
        _draw_vivid(draw, random, x * k, y * k, r * k)
        density = density + random.uniform(0.6, 1.0) * _blob(size, x, y, 1.1 * r)
    image = np.asarray(canvas.resize((width, height), Image.Resampling.LANCZOS))
    density = density / density.max()
    fixated = random.choice(density.size, size=int(random.integers(60, 120)), p=(density / density.sum()).ravel())
    points = np.zeros(density.size, bool)
    points[fixated] = True
    return image, density.astype(np.float32), points.reshape(size)


def viewed(random: np.random.Generator, density: Array, viewers: int) -> Array:
    """Gaze map of simulated viewers: a Gaussian around each fixation, float32 ``(H, W)`` in [0, 1].

    With fewer viewers the map is noisier, as in recorded gaze data.
    """
    height, width = density.shape
    probabilities = density.astype(np.float64).ravel() / density.sum(dtype=np.float64)
    fixations = random.choice(density.size, size=FIXATIONS_PER_VIEWER * viewers, p=probabilities).tolist()
    gaze: Array = np.zeros((height, width), np.float32)
    for index in fixations:
        gaze += _blob((height, width), index % width, index // width, _BLUR * height)
    gaze /= gaze.max()
    return gaze


def make_scenes(
    folder: Path,
    train: int = 96,
    val: int = 24,
    size: Size = (96, 128),
    seed: int = 0,
    *,
    viewers: int | None = None,
    noise: float = 0.0,
) -> Path:
    """Writes scenes to ``{train,val}/{images,targets,fixations}/NNNN``; the same arguments give the same bytes.

    Args:
        folder: created if it is missing.
        train, val: numbers of scenes.
        size: (H, W) in pixels.
        seed: seed of the random numbers.
        viewers: simulated viewers of each training scene, see :func:`viewed`; ``None``: the exact density. Validation
            targets are always the exact density.
        noise: standard deviation of the noise added to all images, in steps of 8-bit values.

    Raises:
        UsageError: the size is below 32 pixels, there are fewer than one viewer, or the noise is negative.
        ResourceError: the folder cannot be written.
    """
    if min(size) < SMALLEST:
        raise UsageError(f"scenes of {format_size(size)} are too small; use at least {SMALLEST}x{SMALLEST}")
    if viewers is not None and viewers < 1:
        raise UsageError(f"{viewers} viewers per scene; use at least 1, or None for exact maps")
    if noise < 0:
        raise UsageError(f"noise {noise:g} is negative; use 0 or more")
    random, disturbance = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    try:
        for split, count in (("train", train), ("val", val)):
            for kind in ("images", "targets", "fixations"):
                (folder / split / kind).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                image, density, points = scene(random, size)
                if noise:
                    noisy = image + disturbance.normal(0, noise, image.shape)
                    image = noisy.round().clip(0, 255).astype(np.uint8)
                if viewers is not None and split == "train":
                    density = viewed(disturbance, density, viewers)
                _write(folder / split, f"{number:04d}", image, density, points)
    except OSError as error:
        raise ResourceError(
            f"cannot write scenes into '{folder}': {error.strerror or error}; choose another folder"
        ) from error
    return folder


def _write(folder: Path, stem: str, image: Array, density: Array, points: Array) -> None:
    from PIL import Image

    with atomic_binary(folder / "images" / f"{stem}.jpg") as file:
        Image.fromarray(image).save(file, "JPEG", quality=92)
    grey = (density * 255).round().astype(np.uint8)
    for kind, pixels in (("targets", grey), ("fixations", points)):
        write_png(folder / kind / f"{stem}.png", pixels)
