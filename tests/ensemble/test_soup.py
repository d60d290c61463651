"""Soups against means by hand, and greedy soups against every possible order."""

import random

import pytest
import torch
from torch import nn

from densemble.ensemble.soup import average, greedy_soup


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    for _ in range(seed + 1):
        made(torch.rand(2, 3, 8, 8) * seed)  # running statistics and their counter move
    return made.eval()


def test_the_mean_of_equal_networks_is_the_network() -> None:
    state = network(1).state_dict()
    for weights in ([1.0], [1.0] * 3, [0.2, 0.5, 0.7]):
        mean = average([state] * len(weights), weights)
        assert mean.keys() == state.keys()
        assert all(torch.equal(mean[key], state[key]) and mean[key].dtype == state[key].dtype for key in state)


def test_weights_and_running_statistics_are_averaged_and_counters_are_the_first() -> None:
    first, second = network(1).state_dict(), network(2).state_dict()
    mean = average(iter([first, second]), [3.0, 1.0])
    for key in ("0.weight", "1.weight", "1.running_mean", "1.running_var", "2.bias"):
        torch.testing.assert_close(mean[key], 0.75 * first[key] + 0.25 * second[key], atol=1e-6, rtol=1e-6)
    assert int(mean["1.num_batches_tracked"]) == int(first["1.num_batches_tracked"]) == 2


def test_the_mean_of_linear_networks_is_the_mean_of_their_outputs() -> None:
    torch.manual_seed(0)
    networks, images = [nn.Conv2d(3, 2, 3) for _ in range(4)], torch.rand(1, 3, 6, 6)
    mean = nn.Conv2d(3, 2, 3)
    mean.load_state_dict(average((model.state_dict() for model in networks), [1.0] * 4))
    torch.testing.assert_close(mean(images), torch.stack([model(images) for model in networks]).mean(0))


def test_a_mean_does_not_change_its_ingredients() -> None:
    states = [network(1).state_dict(), network(2).state_dict()]
    before = [{key: tensor.clone() for key, tensor in state.items()} for state in states]
    mean = average(states, [1.0, 1.0])
    for tensor in mean.values():
        tensor.zero_()
    for state, old in zip(states, before, strict=True):
        assert all(torch.equal(state[key], old[key]) for key in old)


def test_networks_without_a_mean_are_refused() -> None:
    with pytest.raises(ValueError, match="different tensors"):
        average([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}], [1.0, 1.0])
    with pytest.raises(ValueError, match="different tensors"):
        average([{"a": torch.zeros(2)}, {"b": torch.zeros(2)}], [1.0, 1.0])
    with pytest.raises(ValueError, match="no networks"):
        average([], [])
    with pytest.raises(ValueError):
        average([{"a": torch.zeros(2)}], [1.0, 1.0])
    with pytest.raises(ValueError, match="no networks"):
        greedy_soup([], lambda numbers: 0.0)


def test_the_greedy_soup_by_hand() -> None:
    """Targets 0; networks are numbers; a mean's score is its distance from 0, negated."""
    values = [1.0, -0.5, 4.0, 0.5]

    def score(numbers: tuple[int, ...]) -> float:
        return -abs(sum(values[number] for number in numbers) / len(numbers))

    # First -0.5; with 0.5 the mean is 0; 1 and 4 would move it away.
    soup = greedy_soup([1, 3, 0, 2], score)
    assert soup.ingredients == (1, 3) and soup.score == 0


def test_the_greedy_soup_is_never_worse_than_its_best_ingredient() -> None:
    chance = random.Random(0)
    for _ in range(200):
        table: dict[frozenset[int], float] = {}

        def score(numbers: tuple[int, ...], table: dict[frozenset[int], float] = table) -> float:
            return table.setdefault(frozenset(numbers), chance.random())

        alone = [score((number,)) for number in range(5)]
        soup = greedy_soup(sorted(range(5), key=lambda number: -alone[number]), score)
        assert soup.score >= max(alone) and soup.score == score(soup.ingredients)
        left = [number for number in range(5) if number not in soup.ingredients]
        # A network that was left out makes the mean of the better ones worse.
        for number in left:
            better = tuple(i for i in soup.ingredients if alone[i] > alone[number])
            assert score((*better, number)) < score(better)


def test_a_network_that_changes_nothing_is_added() -> None:
    assert greedy_soup([2, 0, 1], lambda numbers: 0.5).ingredients == (2, 0, 1)
