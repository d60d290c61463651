"""int8 networks against the network in float32."""

import os
import sys

import pytest
import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends.openvino import OpenVINORunner, convert
from densemble.inference.runtime.backends.quantize import quantized

pytest.importorskip("openvino")
pytest.importorskip("nncf")


def small_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 3, padding=1)).eval()


def images(count: int) -> list[Tensor]:
    return [torch.randn(1, 3, 24, 32) for _ in range(count)]


def operations(model: object) -> list[str]:
    return [operation.get_type_name() for operation in model.get_ops()]  # type: ignore[attr-defined]


def test_all_convolutions_are_int8_and_the_map_is_near(capfd: pytest.CaptureFixture[str]) -> None:
    network, (image, *batches) = small_network(), images(5)
    before = operations(convert(network, image))
    model = quantized(convert(network, image), batches)
    # One for what goes into each of the two convolutions, one for the weights of each where those are not stored.
    assert "FakeQuantize" not in before and operations(model).count("FakeQuantize") >= 2
    weights = [operation for operation in model.get_ops() if operation.get_type_name() == "Constant"]
    assert sum(str(weight.get_element_type()) == "<Type: 'int8_t'>" for weight in weights) == 2
    with torch.no_grad():
        expected = network(image)
    error = float((OpenVINORunner(model, "int8")(image)[0] - expected).square().mean().sqrt() / expected.std())
    assert 1e-4 < error < 0.05
    assert capfd.readouterr().out == ""


def test_ranges_come_from_the_images() -> None:
    """Calibrated on images a hundred times fainter, the network saturates."""
    network, (image, *batches) = small_network(), images(5)
    model = quantized(convert(network, image), [batch / 100 for batch in batches])
    with torch.no_grad():
        expected = network(image)
    assert float((OpenVINORunner(model, "int8")(image)[0] - expected).square().mean().sqrt() / expected.std()) > 0.3


def test_missing_images_or_library_are_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="int8 needs calibration images"):
        quantized(object(), [])
    with pytest.raises(UsageError, match="NNCF cannot quantize this network"):
        quantized(object(), images(1))
    monkeypatch.delenv("NNCF_CI", raising=False)
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(UsageError, match=r"pip install 'densemble\[openvino\]'"):
        quantized(object(), images(1))
    assert "NNCF_CI" not in os.environ
