"""Valid data sets, one for each task."""

from glob import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]
SIZE = (48, 64)
STEMS = {"train": ("a", "b", "c", "d"), "val": ("e", "f")}


def photo(number: int, size: tuple[int, int] = SIZE) -> Array:
    """A coloured image with large shapes and fine detail, different for each number."""
    random = np.random.default_rng(number)
    coarse = Image.fromarray(random.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(size[::-1], 3)
    noise = random.integers(-30, 30, (size[0] // 2 + 1, size[1] // 2 + 1, 1)).repeat(2, 0).repeat(2, 1)
    return (np.asarray(coarse).astype(int) + noise[: size[0], : size[1]]).clip(0, 255).astype(np.uint8)


def labels(number: int, size: tuple[int, int] = SIZE) -> Array:
    """Three classes in large blocks, different for each number."""
    random = np.random.default_rng(100 + number)
    blocks = np.concatenate([[0, 1, 2], random.integers(0, 3, 9)]).reshape(3, 4)
    rows, columns = (np.arange(side) * count // side for side, count in zip(size, (3, 4), strict=True))
    return blocks[rows][:, columns].astype(np.uint8)


def heat(number: int, size: tuple[int, int] = SIZE) -> Array:
    """A blob in 0..1."""
    random = np.random.default_rng(200 + number)
    y, x = random.uniform(10, size[0] - 10), random.uniform(10, size[1] - 10)
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 200)


def save(path: Path, array: Array, **options: Any) -> None:
    """Writes an array in the format of the suffix, and removes other files of the same stem."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f"{escape(path.stem)}.*"):
        other.unlink()
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, array, **options)
    else:
        Image.fromarray(array).save(path, **options)


def write_points(path: Path, points: list[tuple[float, float]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x,y\n" + "".join(f"{x},{y}\n" for x, y in points))


def _target(folder: Path, stem: str, number: int, task: str) -> None:
    random = np.random.default_rng(300 + number)
    match task:
        case "segmentation":
            save(folder / f"{stem}.png", labels(number))
        case "saliency":
            save(folder / f"{stem}.png", (heat(number) * 255).round().astype(np.uint8))
        case "depth" | "regression":
            save(folder / f"{stem}.png", (300 + 500 * heat(number)).astype(np.uint16))
        case "multilabel":
            save(
                folder / f"{stem}.npy", np.stack([labels(number + 10 * k) == 1 for k in range(3)], -1).astype(np.uint8)
            )
        case "heatmap":
            write_points(folder / f"{stem}.csv", [tuple(p) for p in random.uniform(2, 46, (3, 2)).round(1)])
        case "image":
            save(folder / f"{stem}.png", 255 - photo(number))


def write_good(folder: Path, task: str) -> Path:
    """A valid data set of four training and two validation pairs of 48x64."""
    number = 0
    for split, stems in STEMS.items():
        for stem in stems:
            save(folder / split / "images" / f"{stem}.png", photo(number))
            _target(folder / split / "targets", stem, number, task)
            number += 1
    return folder


def image_of(folder: Path, stem: str) -> Path:
    split = next(split for split, stems in STEMS.items() if stem in stems)
    return next((folder / split / "images").glob(f"{stem}.*"))


def target_of(folder: Path, stem: str) -> Path:
    return next((image_of(folder, stem).parents[1] / "targets").glob(f"{stem}.*"))
