"""Colours of classes: far apart for every reader, the same in every package, and readable as class numbers."""

import json
import re
from pathlib import Path

import class_colours as measured
import numpy as np
import pytest
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from torchvision.io import decode_image

from densemble.data.folder import FolderData
from densemble.inference.drawing import BACKGROUND, NO_DATA, class_colours, colour_values, palette
from densemble.storage.images import read_image, read_labels, read_palette, write_png

ROOT = Path(__file__).resolve().parents[3]
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
# Vienot, Brettel and Mollon (1999), "Digital video colourmaps for checking the legibility of displays by dichromats".
LMS = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
DEUTERANOPE = np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]])


def machado(colours: np.ndarray) -> np.ndarray:
    """Colours as a deuteranope sees them, with the matrix of Machado, Oliveira and Fernandes (2009)."""
    matrix = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    unit = colours / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    seen = (linear @ np.array(matrix).T).clip(0, 1)
    return 255 * np.where(seen <= 0.0031308, 12.92 * seen, 1.055 * seen ** (1 / 2.4) - 0.055)


def vienot(colours: np.ndarray) -> np.ndarray:
    """Colours as a deuteranope sees them, with the method of 1999."""
    linear = (colours / 255) ** 2.2
    seen = linear @ (np.linalg.inv(LMS) @ DEUTERANOPE @ LMS).T
    return (255 * seen.clip(0, 1) ** (1 / 2.2)).round()


def smallest_distance(colours: np.ndarray) -> float:
    lab = rgb2lab(colours / 255)
    between = [deltaE_ciede2000(lab[i], lab[j]) for i in range(len(lab)) for j in range(i)]
    return float(min(between))


def test_the_classes_of_camvid_stay_apart_for_a_deuteranope() -> None:
    colours = class_colours(CAMVID)
    stored = json.loads(measured.RESULTS.read_text())["11"]
    assert smallest_distance(machado(colours)) == pytest.approx(stored["deuteranopia"], abs=0.01)
    assert smallest_distance(colours) == pytest.approx(stored["normal"], abs=0.01)
    assert smallest_distance(machado(colours)) > 15 and smallest_distance(vienot(colours)) > 12
    light = np.sort(rgb2lab(colours / 255)[:, 0])
    assert np.diff(light).min() == pytest.approx(stored["lightness"], abs=0.01) and stored["lightness"] > 4


def test_the_stored_distances_are_those_of_the_table() -> None:
    assert measured.measure() == json.loads(measured.RESULTS.read_text())


def test_colours_are_distinct_and_repeat_after_256() -> None:
    colours = palette(300)
    assert len(np.unique(colours[:256], axis=0)) == 256
    np.testing.assert_array_equal(colours[256:], colours[:44])
    for reserved in (BACKGROUND, NO_DATA, (255, 255, 255)):
        assert np.abs(colours.astype(int) - reserved).sum(1).min() >= 60


def test_the_background_is_black_and_takes_no_colour() -> None:
    colours = class_colours(["Background ", "cat", "dog"])
    np.testing.assert_array_equal(colours, [BACKGROUND, *palette(2)])
    np.testing.assert_array_equal(class_colours(["cat", "background", "dog"])[[0, 2]], palette(2))


def test_colour_maps_are_those_of_matplotlib() -> None:
    from matplotlib import colormaps

    values = np.linspace(0, 1, 256)[None]
    for name in ("viridis", "inferno", "magma"):
        expected = (colormaps[name](np.arange(256))[:, :3] * 255).round()
        np.testing.assert_array_equal(colour_values(values, 0, 1, name)[0], expected)


@pytest.mark.parametrize("classes", [2, 11, 17, 256])
def test_a_palette_png_holds_the_class_numbers(classes: int, tmp_path: Path) -> None:
    labels = (np.arange(40 * 30).reshape(40, 30) % classes).astype(np.uint8)
    write_png(path := tmp_path / "a.png", labels, palette(classes))
    with Image.open(path) as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), labels)
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), palette(classes)[labels])
    np.testing.assert_array_equal(decode_image(str(path))[0], labels)
    np.testing.assert_array_equal(read_labels(path), labels)
    np.testing.assert_array_equal(read_image(path), palette(classes)[labels])
    assert read_palette(path)[:classes] == tuple(map(tuple, palette(classes).tolist()))  # type: ignore[index]


def test_saved_label_maps_are_targets(tmp_path: Path) -> None:
    """Palette PNGs are read as class numbers, beside grey PNGs of other sources."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(2):
            for kind in ("images", "targets"):
                (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
            photo = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(photo).save(tmp_path / split / "images" / f"{number}.png")
            labels = random.integers(0, 3, (24, 32), dtype=np.uint8)
            write_png(tmp_path / split / "targets" / f"{number}.png", labels, palette(3) if number else None)
    data = FolderData(tmp_path, "segmentation", classes=["sky", "road", "car"])
    for sample in (*data.train, *data.val):
        with Image.open(sample.target) as image:
            np.testing.assert_array_equal(data.read_target(sample), np.asarray(image))


def test_other_packages_draw_in_the_same_colours() -> None:
    """densemble-runtime has the same source, and the example page the same tables."""
    here, there = ROOT / "src/densemble/inference/drawing", ROOT / "runtime/src/densemble_runtime/drawing"
    names = sorted(path.name for path in here.glob("*.*"))
    assert names == sorted(path.name for path in there.glob("*.*"))
    for name in names:
        text = (here / name).read_bytes().replace(b"densemble.inference.drawing", b"densemble_runtime.drawing")
        text = text.replace(b"from densemble.shapes import", b"from densemble_runtime.images import")
        assert text == (there / name).read_bytes(), f"copy {name} to {there} and rename its imports"
    page = re.sub(r'[\s"+,]', "", (ROOT / "examples/web/colours.js").read_text())
    assert "".join("{:02x}{:02x}{:02x}".format(*colour) for colour in palette(256)) in page
    places = np.linspace(0, 255, 16).round() / 255
    for name in ("viridis", "inferno", "magma"):
        anchors = "".join("{:02x}{:02x}{:02x}".format(*colour) for colour in colour_values(places, 0, 1, name))
        assert f"{name}:table({anchors})" in page
