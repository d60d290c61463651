"""The onnxruntime backend against eager PyTorch."""

import sys

import pytest
import torch
from torch import Tensor, nn

import densemble as de
from densemble.errors import UsageError
from densemble.inference.runtime.backends import onnxruntime
from densemble.inference.runtime.backends.onnxruntime import ONNXRUNTIME
from densemble.inference.runtime.execution import LowResNetwork
from densemble.nets.rewrite import for_inference

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")
CPU = torch.device("cpu")


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.layer(x), x.mean((2, 3))


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x).real


def test_logits_of_a_member_equal_eager_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model = for_inference(de.DenseModel("squeezenet1_1", weights=None, head="upsample", out_channels=3))
    network, images = LowResNetwork(model.backbone, model.head, None).eval(), torch.randn(2, 3, 48, 64)
    result = ONNXRUNTIME.compile(network, images, "fp32", ())(images)[0]
    assert capfd.readouterr().out == ""
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_outputs_are_in_order_and_not_overwritten() -> None:
    network, images = Pair().eval(), torch.randn(2, 3, 8, 9)
    run = ONNXRUNTIME.compile(network, images, "fp32", ())
    maps, means = run(images)
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close((maps, means), expected, rtol=1e-5, atol=1e-6)
    kept = maps.clone()
    sliced = torch.randn(2, 4, 8, 9)[:, :3]  # not contiguous
    torch.testing.assert_close(run(sliced)[0], network(sliced)[0].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(maps, kept, rtol=0, atol=0)


def test_a_network_that_cannot_be_exported_is_refused() -> None:
    with pytest.raises(UsageError, match=r"onnxruntime cannot compile this network: .*; use another backend"):
        ONNXRUNTIME.compile(Unknown().eval(), torch.randn(1, 3, 4, 4), "fp32", ())


def test_a_missing_library_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ONNXRUNTIME.missing(CPU) is None and ONNXRUNTIME.precisions(CPU) == ("fp32",)
    assert "the ensemble is on mps" in str(ONNXRUNTIME.missing(torch.device("mps")))
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["onnxruntime"], "get_available_providers", lambda: ["CPUExecutionProvider"])
        assert "pip install onnxruntime-gpu" in str(ONNXRUNTIME.missing(torch.device("cuda")))
    monkeypatch.setattr(onnxruntime, "find_spec", lambda name: None if name == "onnxscript" else object())
    assert ONNXRUNTIME.missing(CPU) == "onnxscript not installed: pip install 'densemble[onnx]'"
