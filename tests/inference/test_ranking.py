"""Images ranked by uncertainty, and guarantees written as files."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

import densemble as de
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet, RiskControl
from densemble.errors import ResourceError, UsageError
from densemble.inference.ranking import RANKINGS, require_ranked, write_ranking
from densemble.tasks import DepthTask, MultilabelTask, SaliencyTask, SegmentationTask, Task

TASKS: dict[str, Task] = {
    "segmentation": SegmentationTask(("a", "b", "c")),
    "many": SegmentationTask(tuple("abcd")),
    "multilabel": MultilabelTask(("a", "b")),
    "depth": DepthTask(unit="m"),
    "saliency": SaliencyTask(),
}
SIZES = {"a.png": (30, 44), "b.png": (48, 64), "c.png": (21, 33)}


def build(name: str, **options: Any) -> de.Ensemble:
    task = TASKS[name]
    members = []
    for seed in range(2):
        torch.manual_seed(seed)
        member = de.DenseModel(
            "resdeconv", out_channels=task.out_channels, out_size=(12, 16), input_size=(48, 64), cut="stages.0",
            head="upsample", weights=None,
        )  # fmt: skip
        torch.nn.init.normal_(member.head.logits.weight, std=0.5)
        members.append(member)
    return de.Ensemble(members, [2, 1], task, **options).eval()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, size in SIZES.items():
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return folder


def read_ranking(path: Path) -> tuple[list[str], list[tuple[str, float]]]:
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    return header, [(Path(image).name, float(value)) for image, value in rows]


@pytest.mark.parametrize(
    ("name", "by"),
    [
        ("segmentation", "mutual_information"),
        ("multilabel", "disagreement"),
        ("saliency", "entropy"),
        ("depth", "variance"),
    ],
)
def test_the_least_certain_image_comes_first(
    name: str, by: str, photos: Path, tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    artifact, out = de.save(build(name), tmp_path / "e.safetensors"), tmp_path / "out"
    done = densemble("predict", artifact, photos, "-o", out, "--save", "npy", "--rank-by", by)
    assert done.returncode == 0 and "least certain first" in done.stderr, done.stderr
    header, rows = read_ranking(out / "ranking.csv")
    assert header == ["picture", by]
    means = {f"{p.name}.png": float(getattr(p, by).double().mean()) for p in de.predict(de.load(artifact), photos)}
    assert [value for _, value in rows] == sorted((value for _, value in rows), reverse=True)
    assert dict(rows) == pytest.approx(means, rel=1e-4) and len(set(means.values())) == len(SIZES)


@pytest.mark.parametrize(
    ("name", "by"),
    [("depth", "entropy"), ("depth", "mutual_information"), ("segmentation", "entrpy"), ("saliency", "")],
)
def test_an_unsupported_ranking_is_refused_before_prediction(
    name: str, by: str, photos: Path, tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    artifact, out = de.save(build(name), tmp_path / "e.safetensors"), tmp_path / "out"
    done = densemble("predict", artifact, photos, "-o", out, "--rank-by", by)
    assert done.returncode == 2 and f"cannot be ranked by '{by}'; " in done.stderr and "available: " in done.stderr
    assert "variance" in done.stderr and not list(tmp_path.glob("out/*"))
    (prediction,) = de.predict(de.load(artifact), photos / "a.png")
    with pytest.raises(UsageError, match="cannot be ranked by"):
        prediction.unsureness(by)


def test_every_ranking_of_a_task_has_its_map(photos: Path) -> None:
    for name, task in TASKS.items():
        (prediction,) = de.predict(build(name), photos / "a.png")
        for by in RANKINGS:
            if getattr(prediction, by) is None:
                with pytest.raises(UsageError):
                    require_ranked(by, task)
            else:
                assert prediction.unsureness(by) >= 0


def test_ranking_file(tmp_path: Path) -> None:
    path = write_ranking(tmp_path / "r.csv", [(Path("b,1.png"), 0.5), (Path("a.png"), 0.75)], "entropy")
    assert path.read_text() == 'picture,entropy\na.png,0.75\n"b,1.png",0.5\n'
    with pytest.raises(ResourceError, match="cannot write"):
        write_ranking(tmp_path / "nowhere" / "r.csv", [], "entropy")


@pytest.mark.parametrize(
    ("name", "guarantee"),
    [
        ("segmentation", ConformalSet(0.3, 0.1, 20)),
        ("many", ConformalSet(0.2, 0.1, 20)),
        ("multilabel", RiskControl(0.45, 0.1, 0.9, 60, "bernoulli")),
        ("saliency", None),
    ],
)
def test_sets_are_planes_of_a_tiff(
    name: str, guarantee: Any, photos: Path, tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    artifact, out = de.save(build(name, guarantee=guarantee), tmp_path / "e.safetensors"), tmp_path / "out"
    done = densemble("predict", artifact, photos, "-o", out, "--save", "npy,guarantee")
    if guarantee is None:
        assert done.returncode == 2 and "has no guarantee" in done.stderr and not list(out.glob("*"))
        return
    assert done.returncode == 0, done.stderr
    for image, size in SIZES.items():
        planes, maps = tifffile.imread(out / f"{image[0]}_guarantee.tif"), np.load(out / f"{image[0]}.npy")
        assert planes.dtype == np.uint8 and planes.shape == (TASKS[name].out_channels, *size)
        expected = maps >= guarantee.threshold
        if name != "multilabel":
            expected |= np.arange(len(maps))[:, None, None] == maps.argmax(0)
        np.testing.assert_array_equal(planes, np.where(expected, 255, 0))
        assert set(np.unique(planes)) == {0, 255}


@pytest.mark.parametrize("floor", [None, 0.05])
def test_an_interval_is_two_planes_in_the_values_unit(floor: float | None, photos: Path, tmp_path: Path) -> None:
    ensemble = build("depth", guarantee=ConformalInterval(1.5, floor, 0.1, 20))
    (prediction,) = de.predict(ensemble, photos / "a.png")
    (path,) = prediction.save(tmp_path, ("guarantee",))
    assert path.name == "a_guarantee.tif"
    lower, upper = tifffile.imread(path)
    mean = prediction.mean[0].numpy()
    assert lower.dtype == np.float32 and lower.shape == (30, 44) and (lower < mean).all() and (mean < upper).all()
    np.testing.assert_allclose((lower + upper) / 2, mean, atol=1e-5)
    width = upper - lower
    if floor is None:
        np.testing.assert_allclose(width, 3.0, atol=1e-5)
    else:
        assert width.std() > 1e-3 and width.min() >= 3.0 * floor**0.5 - 1e-5


def test_a_narrow_image_has_its_sets_as_planes_too(tmp_path: Path) -> None:
    ensemble = build("many", guarantee=ConformalSet(0.2, 0.1, 20))
    (prediction,) = de.predict(ensemble, np.zeros((20, 3, 3), np.uint8))
    (path,) = prediction.save(tmp_path, ("guarantee",))
    assert path.name == "0_guarantee.tif" and tifffile.imread(path).shape == (4, 20, 3)


def test_a_missing_guarantee_is_refused(photos: Path, tmp_path: Path) -> None:
    (prediction,) = de.predict(build("segmentation"), photos / "a.png")
    assert prediction.included is None and prediction.lower is None
    with pytest.raises(UsageError, match="has no guarantee, or was loaded without a member; make one"):
        prediction.save(tmp_path, ("guarantee",))
