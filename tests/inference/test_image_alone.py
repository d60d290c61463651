"""One image that cannot be predicted does not change the results of other images."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from small_networks import SmallClassifier
from torch import Tensor

from densemble.ensemble.cascade import Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalSet
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import MAPS, Prediction
from densemble.errors import ArtifactError
from densemble.inference import compute
from densemble.inference.cascade_runner import predict_cascade
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.pipeline import Seconds
from densemble.inference.files.predict_files import predict_files, predict_images
from densemble.inference.sources import make_items
from densemble.inference.tiles import predict_large as large
from densemble.nets.dense import DenseModel
from densemble.nets.halo import Reach
from densemble.storage.artifact import save
from densemble.tasks import SegmentationTask

TASK = SegmentationTask(("a", "b", "c"))
BLACK, BATCH = 2, 4


class Stretching(SmallClassifier):
    """A classifier that stretches the contrast of an image: of an even one it makes 0 / 0."""

    def forward(self, x: Tensor) -> Tensor:
        lowest = x.amin((2, 3), keepdim=True)
        return super().forward((x - lowest) / (x.amax((2, 3), keepdim=True) - lowest))


STRETCHING = "inference.test_image_alone:Stretching"
FUNCTIONS = ("--function", "small_networks:SmallClassifier", "--function", STRETCHING)


def net(seed: int, backbone: torch.nn.Module | str | None = None, **options: Any) -> DenseModel:
    given = {"out_size": (12, 16), "input_size": (48, 64), "head": "upsample", "weights": None, **options}
    torch.manual_seed(seed)
    model = DenseModel(backbone or SmallClassifier(), out_channels=3, **given)
    torch.nn.init.normal_(model.head.logits.weight, std=2.0)
    return model.eval()


@pytest.fixture(scope="module")
def members() -> dict[str, DenseModel]:
    """The second one gives NaN for black images."""
    return {"one": net(0), "two": net(1, Stretching()), "three": net(2)}


def images() -> Tensor:
    batch = torch.rand(BATCH, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    batch[BLACK] = 0
    return batch


def require_same(result: Prediction, expected: Prediction) -> None:
    for name in MAPS:
        torch.testing.assert_close(
            getattr(result, name), getattr(expected, name), rtol=0, atol=1e-6, msg=lambda text, at=name: f"{at}: {text}"
        )


@pytest.mark.parametrize("rule", ["mean", "median"])
def test_each_image_of_a_batch_equals_its_separate_prediction(rule: str, members: dict[str, DenseModel]) -> None:
    weights = {"one": 3.0, "two": 2.0, "three": 1.0}
    ensemble = Ensemble(members, list(weights.values()), TASK, rule, min_members=2).eval()
    others = {name: member for name, member in members.items() if name != "two"}
    reduced = Ensemble(others, [3, 1], TASK, rule).eval()
    with pytest.warns(UserWarning, match=f"image {BLACK} of a batch of {BATCH}.*'two' gives NaN.*: left out"):
        batch = ensemble.predict(images())
    with pytest.warns(UserWarning, match="'two'"), torch.no_grad():
        maps, served = ensemble(images()), ensemble.predict_members(images())
    assert batch.left_out == tuple({"two": "gives NaN or infinity"} if n == BLACK else {} for n in range(BATCH))
    for number, image in enumerate(images()):
        alone = (reduced if number == BLACK else ensemble).predict(image)
        require_same(batch[number], alone)
        torch.testing.assert_close(maps[number], alone.mean[0], rtol=0, atol=1e-6)
        require_same(served[number], (reduced if number == BLACK else ensemble).predict_members(image[None]))


def test_an_image_that_cannot_be_predicted_is_named(members: dict[str, DenseModel]) -> None:
    ensemble = Ensemble(members, task=TASK).eval()
    for run in (ensemble, ensemble.predict, ensemble.predict_members):
        with pytest.raises(ArtifactError, match=f"image {BLACK} of a batch of {BATCH} .*'two' gives NaN") as caught:
            run(images())
        assert isinstance(caught.value, UnusableMaps) and caught.value.images == (BLACK,)


def test_a_member_that_would_have_given_the_size_of_the_map_can_be_left_out() -> None:
    ensemble = Ensemble([net(1, Stretching()), net(0, out_size=(6, 8))], task=TASK, min_members=1).eval()
    with pytest.warns(UserWarning), torch.no_grad():
        assert ensemble(images()).shape == (BATCH, 3, 12, 16)


def test_the_guarantee_is_void_for_that_image_only(members: dict[str, DenseModel]) -> None:
    ensemble = Ensemble(members, task=TASK, guarantee=ConformalSet(0.34, 0.1, 20), min_members=1).eval()
    with pytest.warns(UserWarning):
        result = ensemble.predict(images()).included
    assert result is not None and result[BLACK].all()
    for number in (0, 1, 3):
        alone = ensemble.predict(images()[number]).included
        assert alone is not None and torch.equal(result[number], alone[0]) and not alone.all()
    with pytest.warns(UserWarning):
        assert ensemble.predict(images()[BLACK]).included is None


def test_a_cascade_fails_for_the_images_that_reach_the_member(members: dict[str, DenseModel]) -> None:
    ensemble = Ensemble(members, task=TASK).eval()
    policy = Policy(("one", "two", "three"), "entropy", 0.0, 1.0, 0.5, 1.0, 1.0)
    with pytest.raises(UnusableMaps, match="a cascade needs each of its members") as caught:
        predict_cascade(ensemble, images(), policy)
    assert caught.value.images == (BLACK,)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(compute.PIXELS, "cpu", 48 * 64)  # image by image
        with pytest.raises(UnusableMaps) as caught:
            compute.batch_predictor(ensemble, False)(images())
    assert caught.value.images == (BLACK,)


def photos(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(BATCH)]
    for path, image in zip(paths, images(), strict=True):
        Image.fromarray((image.permute(1, 2, 0) * 255).byte().numpy()).save(path)
    return paths


@pytest.mark.parametrize("pace", [Pace(BATCH), Pace(3, pad=True)], ids=str)
@pytest.mark.parametrize("least", [None, 1])
def test_other_images_of_a_folder_are_predicted(
    least: int | None, pace: Pace, members: dict[str, DenseModel], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "densemble")
    ensemble = Ensemble(members, task=TASK, min_members=least, guarantee=ConformalSet(0.3, 0.1, 20)).eval()
    paths = photos(tmp_path / "in")
    np.save(broken := tmp_path / "in" / "nan.npy", np.full((48, 64, 3), np.nan, np.float32))
    paths.append(broken)
    out = tmp_path / "out"
    out.mkdir()

    def run(*what: str) -> list[Any]:
        compute, output = ensemble.predict_members, Output(out, what)
        return list(predict_files(ensemble, make_items(paths), compute, output, pace, Seconds()))

    first, second = run("npy"), run("npy")
    done = BATCH - 1 if least is None else BATCH
    assert [sum(p.failed is None for p in report) for report in (first, second)] == [done, done]
    assert not caplog.messages
    assert sum(p.failed is None and p.earlier for p in second) == done
    for report in (first, second):
        assert [p.path for p in report if p.failed is None and p.without] == ([] if least is None else [paths[BLACK]])
        *black, undefined = [p.failed for p in report if p.failed is not None]
        assert "nan.npy': the image holds undefined values" in undefined
        assert len(black) == (1 if least is None else 0)
        assert all("2.png': member 'two' gives NaN" in reason for reason in black)
    for number in (0, 1, 3):
        (p,) = predict_images(ensemble, make_items(paths[number]), ensemble.predict_members)
        alone = p.mean.numpy()
        np.testing.assert_allclose(np.load(out / f"{number}.npy"), alone, rtol=0, atol=1e-6)
    assert (out / "2.npy").exists() == (least == 1)
    failed = [p.failed for p in run("guarantee") if p.failed is not None]
    assert len(failed) == 2 and "2.png" in failed[0]


def test_the_command_line_names_the_image_and_writes_the_others(densemble: Callable[..., Any], tmp_path: Path) -> None:
    members = {"one": net(0, "small_networks:SmallClassifier"), "two": net(1, STRETCHING)}
    artifact = save(Ensemble(members, task=TASK), tmp_path / "e.safetensors")
    photos(tmp_path / "in")
    options = (*FUNCTIONS, "--save", "npy", "--backend", "eager", "--precision", "fp32")
    done = densemble("predict", artifact, tmp_path / "in", "-o", tmp_path / "out", *options)
    assert done.returncode == 5 and "2.png': member 'two' gives NaN" in done.stderr
    assert sorted(file.name for file in (tmp_path / "out").glob("*.npy")) == ["0.npy", "1.npy", "3.npy"]
    done = densemble("predict", artifact, tmp_path / "in", "-o", tmp_path / "all", *options, "--min-members", 1)
    assert done.returncode == 5 and "2.png': predicted without member 'two', which gives NaN" in done.stderr
    assert "without 1 of the members: two: gives NaN or infinity (of 1 images, first '" in done.stderr
    for number in (0, 1, 3):
        pair = [np.load(tmp_path / out / f"{number}.npy") for out in ("out", "all")]
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-6)


def test_an_image_read_by_windows_has_the_same_members_everywhere(
    densemble: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"input_size": None, "out_size": None}
    one = net(0, "small_networks:SmallClassifier", **options)
    artifact = save(Ensemble({"one": one, "two": net(1, STRETCHING, **options)}, task=TASK), tmp_path / "e.safetensors")
    alone = save(Ensemble({"one": one}, task=TASK), tmp_path / "one.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (128, 160, 3), dtype=np.uint8)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "sound.tif", pixels, tile=(64, 64))
    pixels[64:, 96:] = 0  # the last window
    tifffile.imwrite(tmp_path / "in" / "field.tif", pixels, tile=(64, 64))
    monkeypatch.setattr(large, "MOST_PIXELS", 1000)
    reaches = dict.fromkeys(("one", "two"), Reach(None, "it takes seconds to measure"))
    monkeypatch.setattr("densemble.inference.predict.measure_reaches", lambda ensemble: reaches)
    arguments = (*FUNCTIONS, "--save", "npy", "--tile", "64", "--precision", "fp32", "--backend", "eager")
    done = densemble("predict", artifact, tmp_path / "in", "-o", tmp_path / "out", *arguments)
    assert done.returncode == 5 and "field.tif': member 'two' gives NaN" in done.stderr
    assert [file.name for file in (tmp_path / "out").glob("*mean*")] == ["sound_mean.tif"]
    done = densemble("predict", artifact, tmp_path / "in", "-o", tmp_path / "all", *arguments, "--min-members", 1)
    assert done.returncode == 5 and "field.tif': predicted without member 'two'" in done.stderr
    assert densemble("predict", alone, tmp_path / "in", "-o", tmp_path / "alone", *arguments).returncode == 0
    result, expected = (tifffile.imread(tmp_path / out / "field_mean.tif") for out in ("all", "alone"))
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
    result, expected = (tifffile.imread(tmp_path / out / "sound_mean.tif") for out in ("all", "out"))
    np.testing.assert_array_equal(result, expected)
