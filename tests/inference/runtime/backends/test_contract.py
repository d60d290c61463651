"""The contract of every backend, on a small network with one and with several outputs."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from sampled import sampled
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends import BACKENDS, Precision, Runner
from densemble.inference.runtime.choose_backend import DRIFT
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference

CPU = torch.device("cpu")
QUICK = [name for name in BACKENDS if name != "inductor"]  # it compiles for long, and has tests of its own
Compiled = Callable[[str, Precision], Runner]
PAIRS = [(name, precision) for name in QUICK for precision in BACKENDS[name].precisions(CPU)]


class Network(nn.Module):
    """A real cut network: logits at the head's own size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = for_inference(
            DenseModel("squeezenet1_1", weights=None, out_channels=2, out_size=None, head="upsample", min_size=(8, 8))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model.grid(x)


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 2, 3, padding=1), nn.Conv2d(3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.first(x), self.second(x)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network().eval()


@pytest.fixture(scope="module")
def example() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def compiled(network: Network, example: Tensor) -> Compiled:
    """The network, compiled once for all tests by a backend at a precision."""
    return cache(lambda name, precision: BACKENDS[name].compile(network, example, precision, [example]))


def require(name: str) -> None:
    reason = BACKENDS[name].missing(CPU)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize(("name", "precision"), sampled(PAIRS, PAIRS[::2]))
def test_gives_the_network_s_logits(
    name: str, precision: Precision, network: Network, example: Tensor, compiled: Compiled
) -> None:
    require(name)
    run = compiled(name, precision)
    other = example.flip(0) * 0.7
    with torch.no_grad():
        expected = network(other)
    (result,) = run(other)
    assert result.dtype == torch.float32
    assert result.shape == expected.shape
    if precision == "fp32":
        assert float((result - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
        return
    variation = (expected - expected.mean((-2, -1), keepdim=True)).square().mean().sqrt()
    error = float((result - expected).square().mean().sqrt() / variation)
    # 8 bits of mantissa, or 256 levels over a layer's range: less error than float32 would mean it was not used.
    assert 1e-4 < error < {"bf16": DRIFT, "int8": 0.1}[precision]


@pytest.mark.parametrize("name", QUICK)
def test_later_calls_do_not_change_results(name: str, example: Tensor, compiled: Compiled) -> None:
    require(name)
    run = compiled(name, "fp32")
    (first,) = run(example)
    kept = first.clone()
    run(example * 2 + 1)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("name", QUICK)
def test_several_outputs_come_in_order(name: str, example: Tensor) -> None:
    require(name)
    network = TwoOutputs().eval()
    result = BACKENDS[name].compile(network, example, "fp32", ())(example)
    with torch.no_grad():
        expected = network(example)
    assert [tuple(own.shape) for own in result] == [(2, 2, 64, 64), (2, 1, 64, 64)]
    for own, reference in zip(result, expected, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_the_network_is_not_changed(name: str, network: Network, example: Tensor) -> None:
    require(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    strides = {key: value.stride() for key, value in network.state_dict().items()}
    BACKENDS[name].compile(network, example, "fp32", ())(example)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert {key: value.stride() for key, value in network.state_dict().items()} == strides


class Unexportable(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x).angle().histc(bins=int(x.numpy().sum() > 0) + 3)


@pytest.mark.parametrize("name", [name for name in BACKENDS if name not in ("eager", "inductor")])
def test_a_network_that_cannot_be_compiled_is_refused_with_the_reason(name: str, example: Tensor) -> None:
    require(name)
    with pytest.raises(UsageError, match=name):
        BACKENDS[name].compile(Unexportable(), example, "fp32", ())
