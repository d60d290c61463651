"""Uncertainty maps against a stacked float64 reference, and their memory."""

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from densemble.ensemble.uncertainty import RunningUncertainty
from densemble.tasks import Distribution

SHAPE = (2, 5, 6, 7)
PROBABILITIES: list[Distribution] = ["categorical", "bernoulli"]
MAPS = ("variance", "expected_entropy", "mutual_information", "disagreement")


def members(distribution: Distribution, number: int) -> list[Tensor]:
    logits = 3 * torch.randn(number, *SHAPE)
    return list(torch.softmax(logits, 2) if distribution == "categorical" else torch.sigmoid(logits))


def accumulated(maps: list[Tensor], weights: list[float], distribution: Distribution) -> RunningUncertainty:
    running = RunningUncertainty(distribution)
    for member_maps, weight in zip(maps, weights, strict=True):
        running.add(member_maps, weight)
    return running


def stacked(maps: list[Tensor], weights: list[float], distribution: Distribution) -> dict[str, Tensor]:
    """Every map by its definition, from all members at once."""
    p = torch.stack(maps).double()
    w = torch.tensor(weights, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    w = w / w.sum()
    mean = (w * p).sum(0)
    if distribution == "categorical":
        decisions = torch.nn.functional.one_hot(p.argmax(2), SHAPE[1]).movedim(-1, 2)
        agreeing = (w * decisions).sum(0).amax(1)
        entropies, whole = torch.special.entr(p).sum(2), torch.special.entr(mean).sum(1)
    else:
        yes = (w * (p >= 0.5)).sum(0)
        agreeing = torch.maximum(yes, 1 - yes).mean(1)
        entropies = (torch.special.entr(p) + torch.special.entr(1 - p)).mean(2)
        whole = (torch.special.entr(mean) + torch.special.entr(1 - mean)).mean(1)
    expected = (w[..., 0] * entropies).sum(0)
    return {
        "variance": (w * (p - mean) ** 2).sum(0),
        "expected_entropy": expected,
        "mutual_information": whole - expected,
        "disagreement": 1 - agreeing,
    }


@pytest.mark.parametrize("distribution", PROBABILITIES)
def test_running_maps_equal_their_definitions_whatever_the_order(distribution: Distribution) -> None:
    maps, weights = members(distribution, 7), [0.3, 2.0, 1.0, 0.01, 5.0, 1.0, 1.0]
    expected = stacked(maps, weights, distribution)
    for running in (
        accumulated(maps, weights, distribution),
        accumulated(maps[::-1], weights[::-1], distribution),
    ):
        for name in MAPS:
            torch.testing.assert_close(getattr(running, name)().double(), expected[name], atol=1e-6, rtol=0)
    assert (
        expected["mutual_information"].mean() > 0.1 and expected["disagreement"].mean() > 0.1
    )  # there is something to miss


@pytest.mark.parametrize("distribution", PROBABILITIES)
@pytest.mark.parametrize("number", [1, 3, 7])
def test_equal_members_do_not_disagree(distribution: Distribution, number: int) -> None:
    (maps,) = members(distribution, 1)
    running = accumulated([maps] * number, [1 / 3, 0.7, 1e-3, 11.0, 0.1, 0.1, 2.0][:number], distribution)
    for name in ("variance", "mutual_information", "disagreement"):
        assert getattr(running, name)().abs().max() == 0
    torch.testing.assert_close(
        running.expected_entropy(), stacked([maps], [1.0], distribution)["expected_entropy"].float()
    )


def test_votes_by_hand() -> None:
    votes = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.3, 0.2], [0.1, 0.8, 0.1]]).view(3, 1, 3, 1, 1)
    assert accumulated(list(votes), [1.0, 2.0, 1.0], "categorical").disagreement() == pytest.approx(0.25)
    assert accumulated(list(votes), [1.0, 1.0, 6.0], "categorical").disagreement() == pytest.approx(0.25)


def test_a_bernoulli_member_decides_for_a_channel_from_one_half_on() -> None:
    """A member decides for a channel at exactly 0.5: otherwise it would be the one of three that disagrees."""
    below = torch.nextafter(torch.tensor(0.5), torch.tensor(0.0)).item()
    votes = torch.tensor([[0.6, 0.6], [0.5, below], [0.9, 0.9]]).view(3, 1, 2, 1, 1)
    assert accumulated(list(votes[:, :, :1]), [1.0] * 3, "bernoulli").disagreement() == 0
    assert accumulated(list(votes[:, :, 1:]), [1.0] * 3, "bernoulli").disagreement() == pytest.approx(1 / 3)
    assert accumulated(list(votes), [1.0] * 3, "bernoulli").disagreement() == pytest.approx((0 + 1 / 3) / 2)


@pytest.mark.parametrize("distribution", PROBABILITIES)
def test_mutual_information_is_never_negative(distribution: Distribution) -> None:
    (maps,) = members(distribution, 1)
    nearly_equal = [(maps + 1e-7 * torch.randn(SHAPE)).clamp(0, 1) for _ in range(9)]
    assert accumulated(nearly_equal, [1.0] * 9, distribution).mutual_information().min() >= 0  # type: ignore[union-attr]


def test_values_have_a_variance_only() -> None:
    running = accumulated(members("bernoulli", 3), [1.0] * 3, "none")
    assert running.variance().shape == SHAPE
    assert running.expected_entropy() is running.mutual_information() is running.disagreement() is None


class LivingBytes(TorchDispatchMode):
    """Peak number of bytes of tensors created inside; each storage counts once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and (storage := tensor.untyped_storage()).data_ptr() not in self._known:
                self._known.add(storage.data_ptr())
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, storage.data_ptr(), storage.nbytes())
        return result

    def _forget(self, position: int, size: int) -> None:
        self._known.discard(position)
        self.now -= size


@pytest.mark.parametrize("distribution", [*PROBABILITIES, "none"])
def test_memory_does_not_grow_with_the_members(distribution: Distribution) -> None:
    def peak(number: int) -> int:
        with LivingBytes() as living:
            running = RunningUncertainty(distribution)
            for _ in range(number):
                running.add(torch.rand(1, 8, 50, 60), 1.0)
            for name in MAPS:
                getattr(running, name)()
        return living.peak

    assert 3 * 8 * 50 * 60 * 4 <= peak(14) <= peak(3)
