"""What every backend promises, on a small network with and without several outputs."""

import pytest
import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.backends import BACKENDS, Precision
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference

CPU = torch.device("cpu")
QUICK = [name for name in BACKENDS if name != "inductor"]  # it compiles for long, and has tests of its own
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


def require(name: str) -> None:
    reason = BACKENDS[name].missing(CPU)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_gives_the_network_s_logits(name: str, precision: Precision, network: Network, example: Tensor) -> None:
    require(name)
    run = BACKENDS[name].compile(network, example, precision, [example])
    other = example.flip(0) * 0.7
    with torch.no_grad():
        wanted = network(other)
    (found,) = run(other)
    assert found.dtype == torch.float32
    assert found.shape == wanted.shape
    largest = {"fp32": 1e-5, "bf16": 0.05, "int8": 0.5}[precision]
    assert float((found - wanted).abs().max()) <= largest * float(wanted.abs().max())


@pytest.mark.parametrize("name", QUICK)
def test_results_are_the_caller_s(name: str, network: Network, example: Tensor) -> None:
    require(name)
    run = BACKENDS[name].compile(network, example, "fp32", ())
    (first,) = run(example)
    kept = first.clone()
    run(example * 2 + 1)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("name", BACKENDS)
def test_several_outputs_come_in_order(name: str, example: Tensor) -> None:
    require(name)
    network = TwoOutputs().eval()
    found = BACKENDS[name].compile(network, example, "fp32", ())(example)
    with torch.no_grad():
        wanted = network(example)
    assert [tuple(own.shape) for own in found] == [(2, 2, 64, 64), (2, 1, 64, 64)]
    for own, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_the_network_is_left_as_it_is(name: str, network: Network, example: Tensor) -> None:
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
def test_a_network_that_it_cannot_take_is_refused_with_the_reason(name: str, example: Tensor) -> None:
    require(name)
    with pytest.raises(UsageError, match=name):
        BACKENDS[name].compile(Unexportable(), example, "fp32", ())
