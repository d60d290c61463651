"""Functions that damage a data set."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from data.good_sets import SIZE, STEMS, heat, image_of, labels, photo, save, target_of
from PIL import Image

Array = np.ndarray[Any, Any]


def cut(path: Path, keep: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])


def turned(folder: Path, stem: str, orientation: int, shown: tuple[int, int] = SIZE) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(image_of(folder, stem).with_suffix(".jpg"), photo(50, shown), exif=exif, quality=95)


def all_maps(folder: Path, change: Callable[[Path, int], object]) -> None:
    for number, stem in enumerate("abcdef"):
        change(target_of(folder, stem), number)


def relabelled(*numbers: int) -> Callable[[Path], object]:
    """Replaces the numbers of the three classes in all targets."""
    new = np.array(numbers)
    dtype = np.uint8 if min(numbers) >= 0 else np.int16
    suffix = ".png" if min(numbers) >= 0 else ".npy"
    return lambda folder: all_maps(
        folder, lambda path, number: save(path.with_suffix(suffix), new[labels(number)].astype(dtype))
    )


def with_classes(change: Callable[[Path], object], names: str = "sky\nroad\ncar\n") -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        change(folder)
        (folder / "classes.txt").write_text(names)

    return spoil


def with_palette(path: Path, values: Array, colours: list[int]) -> None:
    image = Image.fromarray(values.astype(np.uint8), "L").convert("P")
    image.putdata(values.ravel().tolist())
    image.putpalette(colours + [0] * (768 - len(colours)))
    image.save(path)


COLOURS = np.array([[10, 20, 30], [200, 0, 0], [0, 200, 0]], np.uint8)
FLAT = COLOURS.ravel().tolist()


def differing_palettes(folder: Path) -> None:
    all_maps(folder, lambda path, number: with_palette(path, labels(number), FLAT))
    with_palette(target_of(folder, "c"), labels(2), FLAT[6:] + FLAT[3:6] + FLAT[:3])


def in_colours(suffix: str) -> Callable[[Path], object]:
    return lambda folder: all_maps(folder, lambda path, number: save(path.with_suffix(suffix), COLOURS[labels(number)]))


def smoothed(folder: Path) -> None:
    def change(path: Path, number: int) -> None:
        drawn = Image.fromarray(labels(number) * 30)
        save(path, np.asarray(drawn.resize((23, 17), 0).rotate(20).resize(SIZE[::-1], 2)))

    all_maps(folder, change)


def only_in_val(folder: Path) -> None:
    all_maps(folder, lambda path, number: save(path, np.minimum(labels(number), 1) if number < 4 else labels(number)))


def not_in_val(folder: Path) -> None:
    all_maps(folder, lambda path, number: save(path, np.minimum(labels(number), 1) if number > 3 else labels(number)))


def rare(folder: Path) -> None:
    def change(path: Path, number: int) -> None:
        values = np.minimum(labels(number), 1)
        values[5, 5] = 2
        save(path, values)

    all_maps(folder, change)


def copied(
    source: str, to: str, change: Callable[[Array], Array], suffix: str, **options: Any
) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        pixels = change(np.asarray(Image.open(image_of(folder, source))))
        save(image_of(folder, to).with_suffix(suffix), pixels, **options)
        if pixels.shape[:2] != SIZE:
            number = "abcdef".index(to)
            save(target_of(folder, to), labels(number, pixels.shape[:2]))

    return spoil


def same(pixels: Array) -> Array:
    return pixels


def halved(pixels: Array) -> Array:
    return np.asarray(Image.fromarray(pixels).resize((48, 36), Image.Resampling.BICUBIC))


def only(folder: Path, split: str, keep: int) -> None:
    for stem in STEMS[split][keep:]:
        target_of(folder, stem).unlink()
        image_of(folder, stem).unlink()


def resized(stem: str, size: tuple[int, int]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        save(image_of(folder, stem), photo(60, size))
        save(target_of(folder, stem), labels(60, size))

    return spoil


def doubled(folder: Path) -> None:
    Image.fromarray(photo(70)).save(image_of(folder, "a").with_suffix(".jpg"))


def capital(folder: Path) -> None:
    for kind, array in (("images", photo(71)), ("targets", labels(71))):
        Image.fromarray(array).save(folder / "train" / kind / "A.png")


def point_file(text: str) -> Callable[[Path], object]:
    return lambda folder: target_of(folder, "b").write_text(text)


def heat_file(array: Array) -> Callable[[Path], object]:
    return lambda folder: save(target_of(folder, "b").with_suffix(".npy"), array)


def fixations(array: Array) -> Callable[[Path], object]:
    return lambda folder: save(folder / "train" / "fixations" / "b.png", array)


def float_images(change: Callable[[Array], Array]) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        for number, stem in enumerate("abcdef"):
            values = photo(number).astype(np.float32) / 255
            save(image_of(folder, stem).with_suffix(".npy"), change(values) if stem == "b" else values)

    return spoil


def undefined(values: Array) -> Array:
    values[3, 3] = np.nan
    return values


def depths(change: Callable[[Array], Array]) -> Callable[[Path], object]:
    return lambda folder: save(
        target_of(folder, "b").with_suffix(".npy"), change(300 + 500 * heat(1)).astype(np.float32)
    )


def spotted(value: float) -> Callable[[Array], Array]:
    def change(values: Array) -> Array:
        values[:10, :10] = value
        return values

    return change


def all_depths(scale: float) -> Callable[[Path], object]:
    return lambda folder: all_maps(
        folder, lambda path, n: save(path.with_suffix(".npy"), ((300 + 500 * heat(n)) * scale).astype(np.float32))
    )


def masks(change: Callable[[Array], Array]) -> Callable[[Path], object]:
    return lambda folder: save(target_of(folder, "b"), change(np.load(target_of(folder, "b"))))


def twelve_bits(folder: Path) -> None:
    for number, stem in enumerate("abcdef"):
        save(image_of(folder, stem).with_suffix(".tif"), photo(number).astype(np.uint16) * 16, photometric="rgb")


def stacked(folder: Path) -> None:
    pages = np.stack([photo(1), photo(2)])
    save(image_of(folder, "b").with_suffix(".tif"), pages, photometric="rgb")


def without_data(folder: Path) -> None:
    save(image_of(folder, "b").with_suffix(".tif"), np.full((48, 64), 7, np.uint8), extratags=[no_data_tag("7")])


def no_data_tag(value: str) -> tuple[int, str, int, str, bool]:
    """GDAL's tag for the no-data value."""
    return 42113, "s", 0, value, True


def in_pages(folder: Path) -> None:
    planes = np.stack([labels(1) == number for number in range(3)]).astype(np.uint8)
    save(target_of(folder, "b").with_suffix(".tif"), planes, photometric="minisblack")
