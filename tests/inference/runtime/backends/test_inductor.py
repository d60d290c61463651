"""The inductor backend against eager PyTorch."""

import shutil
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends import inductor
from densemble.inference.runtime.backends.backend import native_bf16
from densemble.inference.runtime.backends.inductor import INDUCTOR

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(INDUCTOR.missing(CPU) is not None, reason=str(INDUCTOR.missing(CPU)))


class TwoGrids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = F.relu(self.first(x))
        return features, self.second(F.interpolate(features, scale_factor=2, mode="bilinear"))


class Undecided(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.slow  # the backend is used only if it is named
@needs_compiler
def test_outputs_equal_eager_and_are_not_overwritten() -> None:
    network, images = TwoGrids().eval(), torch.randn(2, 3, 10, 12)
    kept = [(weight.clone(), weight.stride()) for weight in network.parameters()]
    run = INDUCTOR.compile(network, images, "fp32", ())
    result = run(images)
    before = [output.clone() for output in result]
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(result, list(expected), rtol=1e-5, atol=1e-6)
    run(-images)
    torch.testing.assert_close(result, before, rtol=0, atol=0)
    for (weight, stride), now in zip(kept, network.parameters(), strict=True):
        assert torch.equal(weight, now) and stride == now.stride()  # the network is left as it is


@pytest.mark.slow
@needs_compiler
@pytest.mark.skipif(not native_bf16(CPU), reason="the processor has no bfloat16")
def test_bfloat16_is_used_and_near() -> None:
    network, images = TwoGrids().eval(), torch.randn(2, 3, 10, 12)
    result = INDUCTOR.compile(network, images, "bf16", ())(images)
    with torch.no_grad():
        expected = network(images)
    for own, exact in zip(result, expected, strict=True):
        error = float((own - exact).abs().max() / exact.abs().max())
        assert own.dtype == torch.float32 and 1e-5 < error < 0.02


@needs_compiler
def test_any_number_of_networks_of_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 1)
    images = torch.randn(1, 3, 8, 8)
    networks = [nn.Sequential(nn.Conv2d(3, 2, 1)).eval() for _ in range(3)]
    for network in networks:
        result = INDUCTOR.compile(network, images, "fp32", ())(images)[0]
        torch.testing.assert_close(result, network(images).detach(), rtol=1e-5, atol=1e-6)


def test_a_network_that_cannot_be_compiled_is_refused() -> None:
    with pytest.raises(UsageError, match=r"inductor cannot compile this network: .*; use another backend"):
        INDUCTOR.compile(Undecided(), torch.randn(1, 3, 4, 4), "fp32", ())


def test_a_missing_library_is_reported_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "'no-such-compiler' is not installed: install it" in str(INDUCTOR.missing(CPU))
    monkeypatch.setenv("CXX", shutil.which("sh") or "sh")
    monkeypatch.setattr(inductor.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    assert "python3-dev" in str(INDUCTOR.missing(CPU))
    monkeypatch.setattr(inductor, "find_spec", lambda name: None)
    assert "pip install triton" in str(INDUCTOR.missing(torch.device("cuda")))
    assert "the ensemble is on mps" in str(INDUCTOR.missing(torch.device("mps")))
