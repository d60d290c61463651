"""Output files hold no data where the source holds none, as a whole and by windows; checked with rasterio."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from small_networks import small_dense

import densemble as de
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet
from densemble.errors import ResourceError
from densemble.inference.files.job import Output
from densemble.inference.sources import read_for_ensemble
from densemble.inference.stored_maps import no_data, with_no_data
from densemble.inference.tiles.predict_large import predict_large
from densemble.tasks import DepthTask, MultilabelTask, RegressionTask, SaliencyTask, SegmentationTask, Task

rasterio = pytest.importorskip("rasterio")

TASKS: dict[str, Task] = {
    "segmentation": SegmentationTask(("a", "b", "c")),
    "multilabel": MultilabelTask(("a", "b")),
    "saliency": SaliencyTask(),
    "depth": DepthTask(scale=300.0),
    "regression": RegressionTask(scale=3.0, invalid_below=None, whole=False),
}
GUARANTEES = {"segmentation": ConformalSet(0.2, 0.1, 20), "depth": ConformalInterval(1.5, 0.05, 0.1, 20)}


def build(name: str) -> de.Ensemble:
    task = TASKS[name]
    members = [small_dense(seed, out_channels=task.out_channels) for seed in range(2)]
    return de.Ensemble(members, task=task, guarantee=GUARANTEES.get(name)).eval()


@pytest.fixture
def source(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A GeoTIFF whose value for no data is 7, and where it holds data."""
    path, hole = tmp_path / "p.tif", np.zeros((40, 56), bool)
    hole[:13], hole[20:24, 30:40] = True, True
    values = np.random.default_rng(0).integers(8, 255, (3, 40, 56), dtype=np.uint8)
    values[:, hole] = 7
    layout = {"driver": "GTiff", "height": 40, "width": 56, "count": 3, "dtype": "uint8", "nodata": 7}
    with rasterio.open(path, "w", crs="EPSG:32632", transform=rasterio.Affine(2, 0, 5e5, 0, -2, 5e6), **layout) as file:
        file.write(values)
    return path, ~hole


def known(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        masks = file.read_masks() != 0
    assert (masks == masks[0]).all()
    return np.asarray(masks[0])


def without_views(files: Iterable[Path]) -> list[Path]:
    return [file for file in files if not file.name.endswith("_view.png")]


@pytest.mark.parametrize("name", TASKS)
def test_no_map_where_the_source_holds_no_data(name: str, source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, valid = source
    ensemble = build(name)
    kinds = ("map", "npy", "uncertainty", *(("guarantee",) if name in GUARANTEES else ()))
    (prediction,) = de.predict(ensemble, path, backend="eager")
    saved = prediction.save(tmp_path / "whole", kinds)
    whole = dict(zip(kinds, without_views(saved), strict=True))
    (tmp_path / "windows").mkdir()
    in_windows = predict_large(ensemble, path, "p", Output(tmp_path / "windows", kinds)).files
    windows = dict(zip(kinds, without_views(in_windows), strict=True))
    views = [file for file in (*saved, *in_windows) if file not in (*whole.values(), *windows.values())]
    assert sorted(file.name.split("_", 1)[1] for file in views) == ["map_view.png"] * 2 + ["uncertainty_view.png"]
    height, width = valid.shape
    for file in views:
        assert (np.asarray(Image.open(file))[:height, :width][~valid] == 128).all()
    mean = np.load(whole["npy"])
    np.testing.assert_array_equal(np.isfinite(mean), np.broadcast_to(valid, mean.shape))
    for file in (whole["map"], *windows.values(), *([whole["guarantee"]] if name in GUARANTEES else [])):
        np.testing.assert_array_equal(known(file), valid)
    np.testing.assert_array_equal(np.isfinite(prediction.uncertainty), valid)
    assert (prediction.uncertainty_image()[~valid] == 128).all()
    with rasterio.open(whole["map"]) as one, rasterio.open(windows["map"]) as other:
        assert one.nodata == other.nodata or np.isnan([one.nodata, other.nodata]).all()
        assert np.abs(one.read().astype(float) - other.read())[:, valid].max() <= 1
    if name == "segmentation":
        np.testing.assert_array_equal(tifffile.imread(whole["map"])[valid], prediction.label.numpy()[valid])
    np.testing.assert_array_equal(prediction.overlay()[~valid], prediction.image[~valid])


def test_averages_leave_out_missing_data(source: tuple[Path, np.ndarray]) -> None:
    path, valid = source
    (prediction,) = de.predict(build("segmentation"), path, backend="eager")
    assert prediction.entropy is not None
    expected = float(prediction.entropy[torch.from_numpy(valid)].mean())
    assert prediction.unsureness("entropy") == pytest.approx(expected, rel=1e-5)


def test_networks_see_what_they_were_trained_on(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, valid = source
    image = read_for_ensemble(path, build("saliency"))
    stored = tifffile.imread(path)
    stored = stored if stored.shape[-1] == 3 else np.moveaxis(stored, 0, -1)
    np.testing.assert_allclose(image, np.where(valid[..., None], stored / 255, 0), atol=1e-6)
    floats = np.where(valid, 20.0, -9999.0).astype(np.float32)
    tifffile.imwrite(tmp_path / "f.tif", floats, extratags=[(42113, "s", 0, "-9999", True)])
    ensemble = build("saliency")
    ensemble.reading = {"image_range": [-50, 50]}
    np.testing.assert_allclose(
        read_for_ensemble(tmp_path / "f.tif", ensemble)[..., 0], np.where(valid, 0.7, 0), atol=1e-6
    )
    files = predict_large(ensemble, tmp_path / "f.tif", "f", Output(tmp_path, ("map", "overlay"))).files
    assert [file.name for file in files] == ["f_map.tif", "f_overlay.png", "f_map_view.png"]
    np.testing.assert_array_equal(known(files[0]), valid)


def test_256_classes_leave_no_8_bit_number_for_no_data(source: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    path, valid = source
    (prediction,) = de.predict(build("segmentation"), path, backend="eager")
    many = replace(prediction, label=torch.full(valid.shape, 255), task=SegmentationTask(tuple(map(str, range(256)))))
    file, _ = many.save(tmp_path, ("map",))
    np.testing.assert_array_equal(tifffile.imread(file), np.where(valid, 255, 65535))


def test_the_no_data_number_marks_only_missing_data() -> None:
    valid = np.array([[True, True, False]])
    for dtype, values, empty, expected in (
        (np.uint8, [0, 9, 5], 0, [1, 9, 0]),
        (np.uint8, [255, 9, 5], 255, [254, 9, 255]),
        (np.uint16, [65535, 0, 5], 65535, [65534, 0, 65535]),
    ):
        np.testing.assert_array_equal(with_no_data(np.array([values], dtype), valid, empty), [expected])
    assert no_data(np.dtype("uint16"), TASKS["depth"]) == 0 and np.isnan(no_data(np.dtype("f4"), TASKS["saliency"]))
    assert no_data(np.dtype("uint16"), RegressionTask(invalid_below=None)) == 65535


def test_a_map_that_cannot_be_written_as_a_whole_leaves_the_earlier_one(
    source: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prediction,) = de.predict(build("saliency"), source[0], backend="eager")
    file, view = prediction.save(tmp_path / "out", ("map",))
    before = file.read_bytes()

    def stopped(path: Path, *_: object) -> None:
        path.write_bytes(before[:50])
        raise ResourceError("the disk is full")

    monkeypatch.setattr("densemble.storage.images.write_geotiff", stopped)
    with pytest.raises(ResourceError, match="full"):
        prediction.save(tmp_path / "out", ("map",))
    assert file.read_bytes() == before and set(file.parent.iterdir()) == {file, view}
