"""Small data sets, one per task; a small network learns each in seconds."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

Array = np.ndarray[Any, Any]
SIZE = (48, 64)
RED, BLUE = (210, 60, 50), (50, 90, 220)


def discs(random: np.random.Generator, count: int) -> list[tuple[float, float, float, int]]:
    """x, y, radius and colour (0 red, 1 blue) of random discs."""
    return [
        (random.uniform(6, SIZE[1] - 6), random.uniform(6, SIZE[0] - 6), random.uniform(4, 9), int(random.integers(2)))
        for _ in range(count)
    ]


def inside(x: float, y: float, radius: float) -> Array:
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def paint(random: np.random.Generator, shapes: list[tuple[float, float, float, int]]) -> Array:
    image = np.full((*SIZE, 3), random.uniform(90, 150, 3))
    for x, y, radius, colour in shapes:
        image[inside(x, y, radius)] = (RED, BLUE)[colour]
    return (image + random.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)


def save_png(path: Path, pixels: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_points(path: Path, shapes: list[tuple[float, float, float, int]], labelled: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y", "label"] if labelled else ["x", "y"])
        writer.writerows([[x, y, colour] if labelled else [x, y] for x, y, _, colour in shapes])


def write(folder: Path, draw: Callable[[Path, str, np.random.Generator], None], train: int = 64, val: int = 16) -> Path:
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            draw(folder / split, f"{number:03d}", random)
    return folder


def segmentation(folder: Path, stem: str, random: np.random.Generator) -> None:
    shapes = discs(random, 3)
    labels = np.zeros(SIZE, np.uint8)
    for x, y, radius, colour in shapes:
        labels[inside(x, y, radius)] = colour + 1
    labels[:2] = 255
    save_png(folder / "images" / f"{stem}.png", paint(random, shapes))
    save_png(folder / "targets" / f"{stem}.png", labels)


def multilabel(folder: Path, stem: str, random: np.random.Generator) -> None:
    shapes = discs(random, 3)
    save_png(folder / "images" / f"{stem}.png", paint(random, shapes))
    for number, name in enumerate(("red", "round")):
        mask = np.zeros(SIZE, bool)
        for x, y, radius, colour in shapes:
            mask |= inside(x, y, radius) & (number == 1 or colour == 0)
            if number == 0 and colour == 1:
                mask &= ~inside(x, y, radius)
        save_png(folder / "targets" / name / f"{stem}.png", (mask * 255).astype(np.uint8))


def depth(folder: Path, stem: str, random: np.random.Generator) -> None:
    shapes = discs(random, 3)
    metres = np.full(SIZE, 4.0, np.float32)
    for x, y, radius, colour in shapes:
        metres[inside(x, y, radius)] = 1.0 + colour
    metres[:, :3] = 0
    save_png(folder / "images" / f"{stem}.png", paint(random, shapes))
    (folder / "targets").mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(folder / "targets" / f"{stem}.tif", metres)


def keypoints(folder: Path, stem: str, random: np.random.Generator) -> None:
    (red, blue) = discs(random, 2)
    shapes = [(*red[:3], 0), (*blue[:3], 1)]
    save_png(folder / "images" / f"{stem}.png", paint(random, shapes))
    save_points(folder / "targets" / f"{stem}.csv", shapes, labelled=True)


def density(folder: Path, stem: str, random: np.random.Generator) -> None:
    shapes = [(x, y, 2.5, 0) for x, y, _, _ in discs(random, int(random.integers(0, 12)))]
    save_png(folder / "images" / f"{stem}.png", paint(random, shapes))
    save_points(folder / "targets" / f"{stem}.csv", shapes, labelled=False)


def image(folder: Path, stem: str, random: np.random.Generator) -> None:
    painted = paint(random, discs(random, 3))
    save_png(folder / "images" / f"{stem}.png", painted)
    save_png(folder / "targets" / f"{stem}.png", 255 - painted)


TASK_SETS: dict[str, tuple[str, dict[str, Any], Callable[[Path, str, np.random.Generator], None]]] = {
    "segmentation": ("segmentation", {}, segmentation),
    "multilabel": ("multilabel", {}, multilabel),
    "depth": ("depth", {"unit": "m"}, depth),
    "keypoints": ("heatmap", {"sigma": 0.05}, keypoints),
    "density": ("heatmap", {"heatmap": "density", "sigma": 0.02}, density),
    "image": ("image", {}, image),
}
"""Name -> task, options of the FolderData, function that draws one image and its target."""
