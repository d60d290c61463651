"""CSV files: areas, values and counts, compared with values computed by hand or by numpy."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_predictions import make, of_maps

from densemble.tasks import DepthTask, HeatmapTask, ImageTask, MultilabelTask, SaliencyTask, SegmentationTask

LABEL = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [1, 1, 1, 2]])
TASK = SegmentationTask(("background", "road", "car", "sky"))


def read(path: Path) -> dict[str, str]:
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    return row


def test_areas_of_classes(tmp_path: Path) -> None:
    (path,) = make(LABEL, task=TASK).save(tmp_path, ("csv",))
    row = read(path)
    assert path.name == "a.areas.csv"
    assert (row["image"], row["height"], row["width"], row["pixels"]) == ("a", "3", "4", "12")
    columns = ("pixels", "share", "regions", "probability", "area_m2")
    assert [row[f"background_{c}"] for c in columns] == ["4", "0.333333", "1", "0.75", ""]  # (0.6 + 3 * 0.8) / 4
    assert [row[f"road_{c}"] for c in columns] == ["5", "0.416667", "2", "0.72", ""]
    assert [row[f"car_{c}"] for c in columns] == ["3", "0.25", "1", "0.7333", ""]
    assert [row[f"sky_{c}"] for c in columns] == ["0", "0.0", "0", "", ""]


def test_missing_data_is_left_out(tmp_path: Path) -> None:
    valid = np.ones((3, 4), bool)
    valid[:, 3] = False
    (path,) = make(LABEL, task=TASK, valid=valid).save(tmp_path, ("csv",))
    row = read(path)
    assert (row["pixels"], row["car_pixels"], row["road_share"]) == ("9", "0", "0.555556")
    (path,) = make(LABEL, task=TASK, valid=~np.ones((3, 4), bool)).save(tmp_path, ("csv",))
    row = read(path)
    assert (row["pixels"], row["road_pixels"], row["road_share"], row["road_probability"]) == ("0", "0", "", "")


def test_masks(tmp_path: Path) -> None:
    mean = np.array([[[0.5, 0.4, 0.9]], [[0.9, 0.7, 0.2]]])
    row = read(of_maps(mean, MultilabelTask(("cat", "dog"))).save(tmp_path, ("csv",))[0])
    assert (row["cat_pixels"], row["cat_regions"], row["cat_probability"]) == ("2", "2", "0.7")
    assert (row["dog_pixels"], row["dog_regions"], row["dog_probability"]) == ("2", "1", "0.8")


@pytest.mark.parametrize(
    ("crs", "pixel"),
    [("EPSG:32632", 4.0), ("EPSG:2263", 4.0 * (1200 / 3937) ** 2), ("EPSG:4326", None), (None, None)],
    ids=["metres", "US survey feet", "degrees", "none"],
)
def test_square_metres(crs: str | None, pixel: float | None, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    layout = {"driver": "GTiff", "height": 3, "width": 4, "count": 3, "dtype": "uint8"}
    transform = rasterio.Affine(2, 0, 10, 0, -2, 20)
    with rasterio.open(tmp_path / "a.tif", "w", crs=crs, transform=transform, **layout) as file:
        file.write(np.zeros((3, 3, 4), np.uint8))
    row = read(make(LABEL, tmp_path / "a.tif", TASK).save(tmp_path, ("csv",))[0])
    assert row["image"] == "a.tif"
    if pixel is None:
        assert row["road_area_m2"] == ""
    else:
        assert float(row["road_area_m2"]) == pytest.approx(5 * pixel) and row["sky_area_m2"] == "0.0"


@pytest.mark.parametrize(
    ("task", "prefixes"),
    [
        (SaliencyTask(), [""]),
        (DepthTask(unit="m"), [""]),
        (HeatmapTask(("cell", "nucleus"), mode="density"), ["cell_", "nucleus_"]),
        (ImageTask(), ["channel0_", "channel1_", "channel2_"]),
    ],
    ids=["saliency", "depth", "density", "image"],
)
def test_values(task: Any, prefixes: list[str], tmp_path: Path) -> None:
    mean = np.random.default_rng(0).random((len(prefixes), 24, 31)).astype(np.float32)
    valid = np.random.default_rng(1).random((24, 31)) < 0.8
    row = read(of_maps(mean, task, valid=valid).save(tmp_path, ("csv",))[0])
    assert list(row) == ["image", "height", "width", "pixels"] + [
        f"{prefix}{column}" for prefix in prefixes for column in ("mean", "min", "max", "sum")
    ]
    assert row["pixels"] == str(valid.sum())
    for prefix, plane in zip(prefixes, mean, strict=True):
        known = plane[valid].astype(float)
        expected = {"mean": known.mean(), "min": known.min(), "max": known.max(), "sum": known.sum()}
        for column, value in expected.items():
            assert float(row[f"{prefix}{column}"]) == pytest.approx(value, rel=1e-5)


def test_class_names_with_commas_are_quoted(tmp_path: Path) -> None:
    row = read(make(LABEL, task=SegmentationTask(("a,b", 'c"d', "e", "f"))).save(tmp_path, ("csv",))[0])
    assert row["a,b_pixels"] == "4" and row['c"d_pixels'] == "5"
