"""Uncertainty at the size of the image against stacked float64 maps, on every prediction path."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import torch.nn.functional as F
from PIL import Image
from sampled import sampled
from torch import Tensor

import densemble as de
from densemble.ensemble.cascade import Policy
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.prediction import Prediction
from densemble.inference.cascade_runner import predict_cascade
from densemble.inference.compute import batch_predictor
from densemble.inference.files.job import Output
from densemble.inference.files.predict_files import predict_images
from densemble.inference.image_prediction import at_image_size
from densemble.inference.sources import Item
from densemble.inference.tiles.predict_large import predict_large
from densemble.inference.tiles.streaming import plan_windows, stream
from densemble.inference.tiles.tile_members import measure_reaches
from densemble.inference.tiles.windows import Windows
from densemble.tasks import DepthTask, MultilabelTask, SegmentationTask, Task, make_task

SIZE = (31, 45)
WEIGHTS = (2.0, 1.0, 1.0)
TASKS: dict[str, Task] = {
    "segmentation": SegmentationTask(("a", "b", "c")),
    "multilabel": MultilabelTask(("a", "b")),
    "depth": DepthTask(unit="m"),
    "density": make_task({"name": "heatmap", "mode": "density", "classes": ["cell"]}),
}
MAPS = ("entropy", "expected_entropy", "mutual_information", "disagreement", "variance")


def members(task: Task, **options: Any) -> list[de.DenseModel]:
    made = []
    for seed in range(len(WEIGHTS)):
        torch.manual_seed(seed)
        given = {"out_size": (12, 16), "input_size": (48, 64), "cut": "layer1", "head": "upsample", **options}
        member = de.DenseModel("resnet18", out_channels=task.out_channels, weights=None, **given)
        torch.nn.init.normal_(member.head.logits.weight, std=1.5)
        made.append(member.eval())
    return made


def build(name: str, **options: Any) -> de.Ensemble:
    task = TASKS.get(name) or make_task({"name": "heatmap", "classes": ["head", "hand"]})
    return de.Ensemble(members(task), WEIGHTS, task, **options).eval()


def photo() -> np.ndarray[Any, Any]:
    coarse = np.random.default_rng(3).integers(0, 256, (8, 11, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(SIZE[::-1], Image.Resampling.BICUBIC))


def images_of(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float() / 255


def defined(stacked: Tensor, mean: Tensor, task: Task) -> dict[str, Tensor]:
    """The definitions over float64 maps of all members ``(M, K, H, W)`` and the served mean ``(K, H, W)``."""
    w = torch.tensor(WEIGHTS, dtype=torch.float64) / sum(WEIGHTS)
    arithmetic = torch.einsum("m,mkhw->khw", w, stacked)
    result = {"variance": torch.einsum("m,mkhw->khw", w, (stacked - arithmetic) ** 2)}
    if task.distribution == "none":
        return result
    if task.distribution == "categorical":
        h = lambda p: -torch.xlogy(p, p).sum(-3)  # noqa: E731
        votes = F.one_hot(stacked.argmax(1), stacked.shape[1]).permute(0, 3, 1, 2).double()
        result["disagreement"] = 1 - torch.einsum("m,mkhw->khw", w, votes).amax(0)
    else:
        h = lambda p: -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean(-3)  # noqa: E731
        share = torch.einsum("m,mkhw->khw", w, (stacked >= 0.5).double())
        result["disagreement"] = torch.minimum(share, 1 - share).mean(0)
    expected = torch.einsum("m,mhw->hw", w, h(stacked))
    return {
        **result,
        "entropy": h(mean),
        "expected_entropy": expected,
        "mutual_information": h(arithmetic) - expected,
    }


def reference(ensemble: de.Ensemble, pixels: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """All maps at the image's size: every member's map resized in float64, then the definitions."""
    images, task, size = images_of(pixels), ensemble.task, pixels.shape[:2]
    with torch.no_grad():
        small = torch.cat([maps for _, maps in ensemble.member_maps(images)]).double()
        mean = ensemble(images).double()
    area = small[0, 0].numel() / (size[0] * size[1]) if task.target_kind == "density" else 1.0
    grow = lambda maps: F.interpolate(maps, size=size, mode="bilinear", align_corners=False) * area  # noqa: E731
    return defined(grow(small), grow(mean)[0], task)


def assert_maps(result: Any, wanted: dict[str, Tensor]) -> None:
    for name in MAPS:
        got = getattr(result, name)
        assert (got is None) == (name not in wanted), name
        if got is not None and name == "disagreement":  # a vote at a tie may turn by rounding
            assert float(((got.double() - wanted[name]).abs() > 1e-5).double().mean()) < 0.01
        elif got is not None:
            torch.testing.assert_close(got.double(), wanted[name], atol=2e-5, rtol=1e-3, msg=lambda m, n=name: n + m)


def test_the_entropy_between_two_pixels_by_hand() -> None:
    """A 4x4 map of certain pixels on 32x32: 7 is 7/16 of the way from one pixel to the next, so p = (9/16, 7/16)."""
    mean = torch.zeros(1, 2, 4, 4)
    mean[:, 0, :, 0] = mean[:, 1, :, 1:] = 1
    small = Prediction(mean, None, torch.zeros(1, 4, 4), None, None, None, mean.max(1).indices)
    ensemble = de.Ensemble(members(SegmentationTask(("a", "b"))), task=SegmentationTask(("a", "b")))
    served = at_image_size(small, np.zeros((32, 32, 3), np.uint8), "x", None, ensemble)
    assert served.mean[:, 16, 7].tolist() == pytest.approx([9 / 16, 7 / 16])
    assert served.entropy is not None
    assert float(served.entropy[16, 7]) == pytest.approx(0.68532, abs=1e-5)  # -(9/16 ln 9/16 + 7/16 ln 7/16)
    assert float(served.entropy[16, 3]) == pytest.approx(0, abs=1e-6)  # and none inside of a pixel


def test_a_map_over_the_members_cannot_be_resized() -> None:
    ensemble, pixels = build("segmentation"), photo()
    with pytest.raises(ValueError, match="12x16 for an image of 31x45"):
        at_image_size(ensemble.predict(images_of(pixels)), pixels, "x", None, ensemble)


@pytest.mark.parametrize("name", TASKS)
def test_every_map_is_computed_at_the_images_size(name: str) -> None:
    ensemble, pixels = build(name), photo()
    wanted = reference(ensemble, pixels)
    assert all(float(maps.std()) > 1e-9 for maps in wanted.values())
    assert_maps(predict_one(ensemble, pixels), wanted)
    (served,) = de.predict(ensemble, pixels, backend="eager", precision="fp32")
    assert_maps(served, wanted)


@pytest.mark.parametrize("name", TASKS)
def test_the_map_size_of_the_ensemble_is_unchanged(name: str) -> None:
    ensemble, images = build(name), images_of(photo())
    result = ensemble.predict(images)
    with torch.no_grad():
        stacked = torch.cat([maps for _, maps in ensemble.member_maps(images)]).double()
    wanted = defined(stacked, result.mean[0].double(), ensemble.task)
    single = {name: None if getattr(result, name) is None else getattr(result, name)[0] for name in MAPS}
    assert_maps(type("Maps", (), single), wanted)


def predict_one(ensemble: de.Ensemble, pixels: Any, uncertainty: Any = True) -> Any:
    (served,) = predict_images(ensemble, [Item(pixels, "x")], batch_predictor(ensemble, uncertainty))
    return served


class ImageInMemory:
    """An image in memory that is read like a large one."""

    def __init__(self, pixels: np.ndarray[Any, Any]) -> None:
        self.pixels, self.size, self.channels = pixels, pixels.shape[:2], pixels.shape[2]

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray[Any, Any]:
        return self.pixels[top : top + height, left : left + width]


def streamed(ensemble: de.Ensemble, pixels: np.ndarray[Any, Any], names: tuple[str, ...], **options: Any) -> Any:
    rows = list(stream(ensemble, ImageInMemory(pixels), planes=names, **options))
    joined = {name: torch.cat([part.planes[name] for part in rows], dim=-2) for name in names}
    return type("Maps", (), {**dict.fromkeys(MAPS), **joined})


@pytest.mark.parametrize("name", TASKS)
def test_streams_of_small_maps_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densemble.inference.tiles.streaming.BLOCK", 20)
    ensemble, pixels = build(name), photo()
    wanted = reference(ensemble, pixels)
    assert_maps(streamed(ensemble, pixels, tuple(wanted)), wanted)


def test_a_single_requested_map_is_the_same() -> None:
    ensemble, pixels = build("segmentation"), photo()
    wanted = reference(ensemble, pixels)
    for name in MAPS:
        served = predict_one(ensemble, pixels, uncertainty=(name,))
        others = {other for other in MAPS if getattr(served, other) is not None}
        assert others <= {name, "expected_entropy"} and name in others  # the expected entropy is part of another
        torch.testing.assert_close(getattr(served, name).double(), wanted[name], atol=2e-5, rtol=1e-3)
        torch.testing.assert_close(getattr(streamed(ensemble, pixels, (name,)), name).double(), wanted[name], atol=2e-5,
                                   rtol=1e-3)  # fmt: skip


def test_a_cascade_over_all_members_agrees() -> None:
    ensemble, pixels = build("segmentation"), photo()
    policy = Policy(tuple(ensemble.members), "mutual_information", 1e-9, 1.0, 0.5, 1.0, 1.0)
    got = predict_cascade(ensemble, images_of(pixels), policy, uncertainty=True)
    assert got.used.tolist() == [3]
    assert_maps(at_image_size(got.prediction, pixels, "x", None, ensemble), reference(ensemble, pixels))


@pytest.mark.parametrize(
    "by", ["mutual_information", *(pytest.param(by, marks=pytest.mark.slow) for by in ("entropy", "disagreement"))]
)
def test_the_ranking_is_the_mean_at_the_images_size(by: str, tmp_path: Path, densemble: Callable[..., Any]) -> None:
    ensemble, pixels = build("segmentation"), photo()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    artifact = de.save(ensemble, tmp_path / "e.safetensors")
    done = densemble(
        "predict",
        artifact,
        tmp_path / "a.png",
        "-o",
        tmp_path / "out",
        "--save",
        "npy",
        "--precision",
        "fp32",
        "--rank-by",
        by,
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "ranking.csv").open(newline="") as file:
        (_, (_, value)) = csv.reader(file)
    assert float(value) == pytest.approx(float(reference(ensemble, pixels)[by].mean()), rel=3e-3)


def test_the_interval_follows_the_variance_at_the_images_size(tmp_path: Path) -> None:
    ensemble = build("depth", guarantee=ConformalInterval(1.5, 0.05, 0.1, 20))
    pixels = photo()
    served, spread = predict_one(ensemble, pixels, uncertainty=False), reference(ensemble, pixels)["variance"]
    with torch.no_grad():
        mean = F.interpolate(ensemble(images_of(pixels)), size=SIZE, mode="bilinear", align_corners=False)
    wanted = ensemble.guarantee.apply(torch.cat([mean, spread[None].float()], 1))  # type: ignore[union-attr]
    assert served.lower is not None and served.upper is not None
    torch.testing.assert_close(
        torch.stack([served.lower, served.upper])[:, None], torch.stack(wanted), atol=1e-5, rtol=1e-4
    )
    result = streamed(ensemble, pixels, ("lower", "upper"))
    torch.testing.assert_close(result.lower, served.lower, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(result.upper, served.upper, atol=1e-5, rtol=1e-4)


def test_a_large_image_is_written_with_the_same_uncertainty(tmp_path: Path) -> None:
    pixels = photo()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for name, of in (("segmentation", "entropy"), ("depth", "variance"), ("keypoints", "variance")):
        ensemble = build(name)
        path, view = predict_large(ensemble, tmp_path / "a.png", name, Output(tmp_path, ("uncertainty",))).files
        wanted = reference(ensemble, pixels)[of].numpy()
        wanted = np.sqrt(wanted.mean(0)) if of == "variance" else wanted
        (small,) = de.predict(ensemble, tmp_path / "a.png", backend="eager", precision="fp32")
        np.testing.assert_allclose(small.uncertainty, wanted, atol=1e-4, rtol=1e-3)
        np.testing.assert_allclose(tifffile.imread(path), wanted, atol=1e-4, rtol=1e-3)
        assert view.name == f"{name}_uncertainty_view.png"


def window_maps(
    ensemble: de.Ensemble, images: Tensor, windows: Windows
) -> Iterator[tuple[tuple[Any, ...], Tensor, Tensor]]:
    """Each window's place, its weights ``(h, w)`` and the members' maps ``(M, K, h, w)`` where it has any."""
    for i, (top, bottom) in enumerate(windows.rows.outputs):
        for j, (left, right) in enumerate(windows.columns.outputs):
            first, start = windows.rows.starts[i], windows.columns.starts[j]
            seen = images[..., first : first + windows.rows.window, start : start + windows.columns.window]
            with torch.no_grad():
                maps = torch.cat([maps for _, maps in ensemble.member_maps(seen)]).double()
            weights = torch.outer(windows.rows.weights[i].double(), windows.columns.weights[j].double())
            inside = maps[..., top - first : bottom - first, left - start : right - start]
            yield (..., slice(top, bottom), slice(left, right)), weights, inside


@pytest.mark.parametrize("name", sampled(["segmentation", "multilabel", "depth"], ["segmentation"]))
def test_overlapping_windows_count_by_their_weight(name: str) -> None:
    """Entropy of the blended mean; over the members, each window of a member counts with the window's weight."""
    task = TASKS[name]
    ensemble = de.Ensemble(members(task, out_size=None, input_size=None, head="aspp"), WEIGHTS, task).eval()
    pixels = np.asarray(Image.fromarray(photo()).resize((130, 70)))
    windows = plan_windows(ensemble, (70, 130), 64, 0.25, measure_reaches(ensemble))
    assert windows.blended and len(windows) > 4
    images = torch.from_numpy(
        np.pad(pixels, ((0, windows.rows.padded - 70), (0, windows.columns.padded - 130), (0, 0)), mode="edge").copy()
    ).permute(2, 0, 1)[None] / 255  # fmt: skip
    parts = list(window_maps(ensemble, images.float(), windows))
    opinions = []  # each member's map by each window, with its share of every pixel
    for box, weights, maps in parts:
        for weight, member in zip(WEIGHTS, maps, strict=True):
            whole = torch.zeros(task.out_channels, *images.shape[-2:], dtype=torch.float64)
            share = torch.zeros(images.shape[-2:], dtype=torch.float64)
            whole[box], share[box] = member, weights * weight / sum(WEIGHTS)
            opinions.append((share, whole))
    mean = sum(share * whole for share, whole in opinions)
    assert isinstance(mean, Tensor)
    wanted = {"variance": sum(share * (whole - mean) ** 2 for share, whole in opinions)}
    if task.distribution != "none":
        h = {
            "categorical": lambda p: -torch.xlogy(p, p).sum(0),
            "bernoulli": lambda p: -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean(0),
        }[task.distribution]
        expected = sum(share * h(whole) for share, whole in opinions)
        wanted |= {"entropy": h(mean), "expected_entropy": expected, "mutual_information": h(mean) - expected}
    cut = {name: maps[..., :70, :130] for name, maps in wanted.items()}  # type: ignore[index]
    result = streamed(ensemble, pixels, tuple(cut), tile=64)
    for name, maps in cut.items():
        torch.testing.assert_close(
            getattr(result, name).double(), maps, atol=2e-5, rtol=1e-3, msg=lambda m, n=name: n + m
        )
    if task.distribution == "categorical":
        votes = sum(share * F.one_hot(whole.argmax(0), 3).permute(2, 0, 1) for share, whole in opinions)
        assert isinstance(votes, Tensor)
        got = streamed(ensemble, pixels, ("disagreement",), tile=64).disagreement
        away = (got.double() - (1 - votes.amax(0))[:70, :130]).abs() > 1e-5
        assert float(away.double().mean()) < 0.01
