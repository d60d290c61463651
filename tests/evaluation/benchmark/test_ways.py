"""The naive loop and densemble's variants compute the same ensemble."""

import pytest
import torch

import densemble as de
from densemble.ensemble.calibrate import make_calibration
from densemble.evaluation.benchmark.benchmark_images import synthetic_images
from densemble.evaluation.benchmark.execution_modes import NAIVE, accelerated, naive_loop, relative_errors


@pytest.fixture
def images() -> torch.Tensor:
    return synthetic_images(2, 3, (48, 64))


def test_the_naive_loop_equals_the_ensemble(small_ensemble: de.Ensemble, images: torch.Tensor) -> None:
    wanted = small_ensemble(images)
    assert torch.allclose(naive_loop(small_ensemble)(images), wanted, atol=1e-6)
    pairs = zip(small_ensemble.members.values(), (2, 1), strict=True)
    first, second = (torch.sigmoid(member(images) / t) for member, t in pairs)
    assert torch.allclose(wanted, (first + 3 * second) / 4, atol=1e-6)


def test_the_naive_loop_equals_any_rule_calibration_and_size(images: torch.Tensor) -> None:
    options = {"weights": None, "input_size": (48, 64), "out_channels": 3}
    members = [de.DenseModel("squeezenet1_1", out_size=size, **options) for size in ((12, 16), (24, 32))]
    calibration = make_calibration({"kind": "temperature", "value": 1.7, "distribution": "categorical"})
    ensemble = de.Ensemble(members, combine="logits", calibration=calibration).eval()
    assert torch.allclose(naive_loop(ensemble)(images), ensemble(images), atol=1e-6)


def test_errors_are_relative_to_the_largest_value(images: torch.Tensor) -> None:
    methods = {NAIVE: lambda x: 4 * torch.ones(1, 1, 2, 2), "off": lambda x: torch.tensor([[[[4.0, 4.0], [3.0, 4.2]]]])}
    assert relative_errors(methods, images) == {NAIVE: 0.0, "off": pytest.approx(0.25)}


def test_eager_gives_the_same_map_and_is_made_once(small_ensemble: de.Ensemble, images: torch.Tensor) -> None:
    fast = accelerated(small_ensemble, images, [("eager", "fp32"), ("eager", "fp32")])
    assert list(fast) == ["ours, eager fp32"]
    methods = {NAIVE: naive_loop(small_ensemble), **fast}
    assert relative_errors(methods, images)["ours, eager fp32"] < 1e-4
