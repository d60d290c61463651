"""Prediction from files, folders, globs and arrays: at the size of the image, without overwriting files."""

from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot
from PIL import Image
from small_networks import small_dense

import densemble as de
from densemble.errors import DataError, ResourceError, UsageError
from densemble.inference.file_kinds import SAVE
from densemble.inference.predict import prepared
from densemble.inference.sources import expand, find_images
from densemble.tasks import HeatmapTask, RegressionTask, SaliencyTask, SegmentationTask, Task

OPTIONS = {"weights": None, "input_size": (48, 64), "out_size": (12, 16)}


@pytest.fixture(scope="module")
def ensemble() -> de.Ensemble:
    torch.manual_seed(0)
    return de.Ensemble([de.DenseModel("resdeconv", **OPTIONS), de.DenseModel("squeezenet1_1", **OPTIONS)]).eval()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, size in (("a.jpg", (50, 70)), ("b.png", (31, 17)), ("c.JPG", (120, 64))):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_sources(photos: Path) -> None:
    assert [path.name for path in find_images(photos)] == ["a.jpg", "b.png", "c.JPG"]
    assert [path.name for path in find_images(photos / "b.png")] == ["b.png"]
    assert [path.name for path in find_images(f"{photos}/*.jpg")] == ["a.jpg"]
    batch = np.zeros((2, 8, 8, 3), np.uint8)
    assert [type(item).__name__ for item in expand([photos / "a.jpg", batch, torch.zeros(3, 8, 8)])] == [
        "PosixPath",
        "ndarray",
        "ndarray",
        "Tensor",
    ]
    for nothing, message in (("absent", "no image, folder or glob"), ("*.gif", "no image matches")):
        with pytest.raises(DataError, match=message):
            find_images(photos / nothing)
    (photos.parent / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        find_images(photos.parent / "empty")


def test_every_prediction_has_the_size_of_its_image(ensemble: de.Ensemble, photos: Path) -> None:
    result = list(de.predict(ensemble, photos))
    assert [p.name for p in result] == ["a", "b", "c"]
    assert [tuple(p.mean.shape) for p in result] == [(1, 50, 70), (1, 31, 17), (1, 120, 64)]
    for p in result:
        assert p.image.shape[:2] == p.uncertainty.shape == tuple(p.mean.shape[1:]) == p.overlay().shape[:2]
        assert p.map_image().dtype == np.uint8


def test_a_file_an_array_and_a_tensor_give_the_same(ensemble: de.Ensemble, photos: Path) -> None:
    pixels = np.asarray(Image.open(photos / "b.png"))
    tensor = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)
    maps = [next(iter(de.predict(ensemble, source))).mean for source in (photos / "b.png", pixels, tensor)]
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[0], maps[2])


def test_the_map_is_the_resized_map_of_the_ensemble(ensemble: de.Ensemble, photos: Path) -> None:
    pixels = np.asarray(Image.open(photos / "b.png"))
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        expected = F.interpolate(ensemble(x), size=(31, 17), mode="bilinear", align_corners=False)[0]
        lean = F.interpolate(prepared(ensemble)(x), size=(31, 17), mode="bilinear", align_corners=False)[0]
    result = next(iter(de.predict(ensemble, pixels))).mean
    torch.testing.assert_close(result, lean, rtol=0, atol=0)  # the rewritten ensemble's to the bit
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6)  # which is the plain one's up to rounding


def test_predictions_come_one_by_one(ensemble: de.Ensemble, photos: Path) -> None:
    (photos / "b.png").write_bytes(b"no image")
    predictions = de.predict(ensemble, photos)
    assert isinstance(predictions, Iterator)
    assert next(predictions).name == "a"
    failed = next(predictions)
    assert failed.name == "b" and failed.failed is not None and "b.png" in failed.failed
    assert next(predictions).failed is None


def test_an_image_that_fails_does_not_end_the_loop(ensemble: de.Ensemble, photos: Path, tmp_path: Path) -> None:
    (photos / "b.png").write_bytes(b"no image")
    wrong = [np.zeros((4, 4)), np.full((4, 4, 3), 300.0), np.full((4, 4, 3), np.nan), "photo"]
    result = list(de.predict(ensemble, [photos, *wrong[:3], torch.rand(3, 48, 64)]))
    assert [p.failed is None for p in result] == [True, False, True, False, False, False, True]
    for p, said in zip((result[1], *result[3:6]), ("b.png", "(H, W, 3)", "divide by 255", "nan"), strict=True):
        assert p.failed is not None and said in p.failed and p.path == (photos / "b.png" if said == "b.png" else None)
        with pytest.raises(DataError, match=r"there is no mean: .*look at `.failed` first"):
            _ = p.mean
        with pytest.warns(UserWarning, match="nothing is saved"):
            assert p.save(tmp_path / "out") == []
    assert len([path for p in result if p.failed is None for path in p.save(tmp_path / "out", ("npy",))]) == 3


@pytest.mark.slow
def test_bf16_is_near_fp32(ensemble: de.Ensemble, photos: Path) -> None:
    exact = next(iter(de.predict(ensemble, photos / "a.jpg", precision="fp32"))).mean
    near = next(iter(de.predict(ensemble, photos / "a.jpg", precision="bf16"))).mean
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, exact, atol=0.05, rtol=0)


def test_saved_files(ensemble: de.Ensemble, photos: Path, tmp_path: Path) -> None:
    p = next(iter(de.predict(ensemble, photos / "a.jpg")))
    written = p.save(
        tmp_path / "out", tuple(kind for kind, row in SAVE.items() if kind != "guarantee" and row.suits(p.task))
    )
    assert [path.name for path in written] == [
        "a_map.png", "a_overlay.png", "a_uncertainty.png", "a.npy", "a.areas.csv",
    ]  # fmt: skip
    stored = np.asarray(Image.open(tmp_path / "out" / "a_map.png"))
    assert stored.shape == (50, 70) and stored.dtype == np.uint8
    np.testing.assert_allclose(stored / 255, p.mean[0].numpy(), atol=0.5 / 255 + 1e-6)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "a.npy"), p.mean.numpy())
    for kind, pixels in (("overlay", p.overlay()), ("uncertainty", p.uncertainty_image())):
        saved = np.asarray(Image.open(tmp_path / "out" / f"a_{kind}.png"))
        np.testing.assert_array_equal(saved[:50, :70], pixels)
        assert saved.shape[0] > 50 and pixels.shape == (50, 70, 3)  # the legend is below
    with pytest.raises(UsageError, match="no drawing is named 'video'; available: overlay, view, uncertainty"):
        p.draw("video")
    with pytest.raises(UsageError, match="cannot save 'video'"):
        p.save(tmp_path, ("video",))
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="choose another folder"):
        p.save(tmp_path / "file")


def test_labels_are_taken_after_resizing_and_saved_as_numbers(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    members = [de.DenseModel("resdeconv", out_channels=4, **OPTIONS) for _ in range(2)]
    task = SegmentationTask(("a", "b", "c", "d"))
    p = next(iter(de.predict(de.Ensemble(members, task=task).eval(), photos / "a.jpg")))
    assert p.label is not None and torch.equal(p.label, p.mean.argmax(0)) and p.label.shape == (50, 70)
    assert p.mutual_information is not None and (p.mutual_information >= 0).all()
    p.save(tmp_path, ("map",))
    with Image.open(tmp_path / "a_map.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), p.label.numpy())
    assert not (tmp_path / "a_map_view.png").exists()


def test_depth_is_saved_in_the_unit_of_the_training_maps(photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = RegressionTask(scale=2.0, file_scale=0.001)
    p = next(iter(de.predict(de.Ensemble([de.DenseModel("resdeconv", **OPTIONS)], task=task), photos / "a.jpg")))
    assert p.entropy is None and p.uncertainty.shape == (50, 70)
    files = p.save(tmp_path, ("map", "overlay", "uncertainty"))
    assert [file.name for file in files] == ["a_map.png", "a_map_view.png", "a_overlay.png", "a_uncertainty.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(files[1]))[:50, :70], p.draw("view").pixels)
    assert (p.uncertainty_image() == 128).all() and "one member" in p.draw("uncertainty").legend.note
    stored = np.asarray(Image.open(tmp_path / "a_map.png"))
    assert stored.dtype == np.uint16
    np.testing.assert_allclose(stored, p.mean[0].numpy() * 1000, atol=0.51)


@pytest.mark.parametrize("task", [SaliencyTask(), HeatmapTask(("head", "hand"))], ids=["saliency", "keypoints"])
def test_uncertainty_of_heat_is_the_deviation_of_the_members(task: Task, photos: Path, tmp_path: Path) -> None:
    """Of two members with shares 3/4 and 1/4, the variance is 3/16 of the squared difference of their maps."""
    members = [small_dense(seed, out_channels=task.out_channels) for seed in range(2)]
    for member in members:
        torch.nn.init.normal_(member.head.logits.weight, std=20)
    both, one, other = (
        next(iter(de.predict(ensemble.eval(), photos / "a.jpg", backend="eager", precision="fp32")))
        for ensemble in (de.Ensemble(members, [3, 1], task), *(de.Ensemble([member], task=task) for member in members))
    )
    difference = one.mean.numpy().astype(np.float64) - other.mean.numpy()
    expected = np.sqrt(3 / 16 * (difference**2).mean(0))
    assert expected.max() > 0.02 and np.ptp(expected) > 0.005
    np.testing.assert_allclose(both.uncertainty, expected, rtol=1e-4, atol=1e-6)
    drawn = both.draw("uncertainty")
    bar = drawn.legend.bar
    assert bar is not None
    assert bar.label == "uncertainty: standard deviation over the members, up to the 99th percentile"
    assert bar.high == pytest.approx(np.percentile(expected, 99), rel=1e-4)
    (file,) = both.save(tmp_path, ("uncertainty",))
    np.testing.assert_array_equal(np.asarray(Image.open(file))[:50, :70], drawn.pixels)
    assert both.entropy is not None and one.entropy is not None
    assert (one.uncertainty_image() == 128).all() and "one member has no spread" in one.draw("uncertainty").legend.note
    with pytest.raises(UsageError, match="no 'variance'; predict with uncertainty=True"):
        _ = replace(both, variance=None).uncertainty


def test_figure(ensemble: de.Ensemble, photos: Path) -> None:
    p = next(iter(de.predict(ensemble, photos / "a.jpg")))
    assert [axis.get_title() for axis in p.figure().axes] == ["a", "saliency", "uncertainty"]
    assert Image.open(BytesIO(p._repr_jpeg_())).size[0] == 12 * 80
    assert repr(p) == "<ImagePrediction of 'a': saliency, 1x50x70>"
    p.show()
    assert len(pyplot.gcf().axes) == 3
    pyplot.close()


def test_wrong_arguments(ensemble: de.Ensemble) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(UsageError, match="no backend is named 'magic'"):
        de.predict(ensemble, image, backend="magic")
    with pytest.raises(UsageError, match="no precision is named 'int3'"):
        de.predict(ensemble, image, precision="int3")
    with pytest.raises(UsageError, match=r"\(H, W, 3\)"):
        list(de.predict(ensemble, np.zeros((8, 8), np.uint8)))
