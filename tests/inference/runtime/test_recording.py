"""Recorded predictions: the maps of the plain ensemble, padding, recorded shapes, unusable maps, too little memory.

On a CPU a recording calls the recorded function; everything around it is the same code as on a GPU.
"""

from dataclasses import replace
from functools import partial

import pytest
import torch
from small_networks import small_dense
from torch import Tensor

import densemble as de
from densemble.ensemble.prediction import Prediction
from densemble.errors import ResourceError
from densemble.inference.compute import BatchPredictor
from densemble.inference.predict import prepared
from densemble.inference.runtime.backends import BACKENDS
from densemble.inference.runtime.choose_backend import candidates
from densemble.inference.runtime.recorded_prediction import Launched, RecordedPrediction
from densemble.inference.runtime.recording import Recording


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "cudagraph", replace(BACKENDS["cudagraph"], missing=lambda device: None))


@pytest.fixture
def ensemble() -> de.Ensemble:
    return de.Ensemble([small_dense(seed) for seed in range(3)], [3, 2, 1], task=de.TASKS["saliency"]()).eval()


def counted(recorded: RecordedPrediction, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of the batches that recordings ran on."""
    shapes: list[tuple[int, ...]] = []
    call = Recording.__call__

    def noted(self: Recording[Prediction], images: Tensor) -> Prediction:
        if self in recorded._recordings.values():
            shapes.append(tuple(images.shape))
        return call(self, images)

    monkeypatch.setattr(Recording, "__call__", noted)
    return shapes


@pytest.mark.usefixtures("on_cpu")
def test_recorded_maps_are_those_of_the_ensemble(ensemble: de.Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = RecordedPrediction(prepared(ensemble, "cudagraph", "fp32"), True)
    shapes = counted(recorded, monkeypatch)
    for count in (4, 4, 3, 1, 4):
        images = torch.rand(count, 3, 48, 64)
        expected, got = ensemble.predict_members(images), recorded.launch(images)()
        assert set(got.maps()) == set(expected.maps())
        for name, maps in got.maps().items():
            torch.testing.assert_close(maps, getattr(expected, name), rtol=1e-4, atol=1e-5)
    assert shapes == [(4, 3, 48, 64)] * 4  # the first batch is not recorded; smaller ones are padded


@pytest.mark.usefixtures("on_cpu")
def test_a_later_launch_changes_no_earlier_result(ensemble: de.Ensemble) -> None:
    recorded = RecordedPrediction(prepared(ensemble, "cudagraph", "fp32"), ())
    black, white = torch.zeros(1, 3, 48, 64), torch.ones(1, 3, 48, 64)
    expected = [recorded.launch(images)().mean for images in (black, white)]
    waiting = [recorded.launch(images) for images in (black, white)]
    assert not torch.equal(*expected)
    for wait, mean in zip(waiting, expected, strict=True):
        assert torch.equal(wait().mean, mean)


@pytest.mark.usefixtures("on_cpu")
def test_bytes_give_the_maps_of_floats(ensemble: de.Ensemble) -> None:
    recorded = RecordedPrediction(prepared(ensemble, "cudagraph", "fp32"), ())
    images = torch.randint(0, 256, (2, 3, 48, 64), dtype=torch.uint8)
    maps = [recorded.launch(images)().mean for _ in range(2)]  # unrecorded, recorded
    assert list(recorded._recordings) == [(2, 3, 48, 64)]
    for mean in maps:
        torch.testing.assert_close(mean, ensemble.predict_members(images / 255).mean, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("on_cpu")
def test_the_least_recently_used_shape_is_replaced(ensemble: de.Ensemble) -> None:
    recorded = RecordedPrediction(prepared(ensemble, "cudagraph", "fp32"), (), most=2)
    for width in (64, 64, 80, 80, 64, 96, 96):
        recorded.launch(torch.rand(1, 3, 48, width))()
    assert [shape[-1] for shape in recorded._recordings] == [64, 96]


@pytest.mark.usefixtures("on_cpu")
def test_an_unusable_map_is_found_without_the_recording(ensemble: de.Ensemble) -> None:
    ensemble.min_members = 2
    recorded = RecordedPrediction(prepared(ensemble, "cudagraph", "fp32"), ())
    images = torch.rand(2, 3, 48, 64)
    recorded.launch(images)()
    assert recorded.launch(images)().left_out is None
    next(network for _, network in recorded.ensemble.named_members()).mean.fill_(torch.nan)
    left_out = recorded.launch(images)().left_out
    first = next(iter(ensemble.members))
    assert left_out is not None and [list(members) for members in left_out] == [[first], [first]]


def test_auto_takes_recordings_on_a_gpu_and_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, row in BACKENDS.items():
        missing = (lambda device: None) if name != "openvino" else (lambda device: "runs on the CPU")
        monkeypatch.setitem(BACKENDS, name, replace(row, missing=missing, precisions=lambda device: ("fp32", "bf16")))
    pairs = candidates("auto", "auto", torch.device("cuda"))
    assert {name for name, _ in pairs} == {"eager", "cudagraph"}


def test_a_recording_inside_a_recording_is_a_part_of_it() -> None:
    inner = Recording(lambda x: 2 * x, torch.zeros(2))
    alone = inner(torch.ones(2)).clone()
    outer = Recording(lambda x: inner(x + 1), torch.zeros(2))
    assert outer(torch.ones(2)).tolist() == [4, 4] and alone.tolist() == [2, 2]
    assert inner._input.tolist() == [1, 1]  # its own input is not used inside the other recording


def test_batches_are_halved_until_they_fit(lines: list[str]) -> None:
    sizes: list[int] = []

    def predict(images: Tensor) -> Prediction:
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Prediction(images[:, :1], *(None,) * 6)

    images = torch.rand(9, 3, 10, 10)
    in_parts = BatchPredictor(lambda images: partial(Prediction.map, predict(images), Tensor.cpu), pixels=1000)
    assert torch.equal(in_parts(images).mean, images[:, :1])
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    assert torch.equal(in_parts(images[:4]).mean, images[:4, :1]) and sizes[7:] == [2, 2]  # it is remembered
    assert lines[-1] == "GPU memory is too small for 4 images of 10x10: continuing with 2"


def test_a_single_image_that_does_not_fit_is_an_error() -> None:
    def predict(images: Tensor) -> Launched:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ResourceError, match="one image of 10x20 does not fit into the memory of the GPU"):
        BatchPredictor(predict, pixels=1000)(torch.rand(2, 3, 10, 20))
