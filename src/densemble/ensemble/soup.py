"""Soups: one network whose weights are the mean of several networks of one architecture."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def average(states: Iterable[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """Average the parameters and floating point buffers of networks; integer buffers are those of the first network.

    Args:
        states: ``state_dict()`` of each network, read one after the other: at most two are in memory at a time.
        weights: one positive number per network.

    Raises:
        ValueError: there are no states, a wrong number of weights, or tensors of different names or shapes.
    """
    total = sum(weights)
    first: State = {}
    sums: dict[str, Tensor] = {}
    for state, weight in zip(states, weights, strict=True):
        first = first or state
        if {key: tensor.shape for key, tensor in state.items()} != {key: t.shape for key, t in first.items()}:
            raise ValueError("networks with different tensors cannot be averaged")
        for key, tensor in state.items():
            if tensor.is_floating_point():
                # In double precision the mean of equal networks is exactly that network.
                share = tensor.to(torch.float64) * (weight / total)
                sums[key] = sums[key] + share if key in sums else share
    if not first:
        raise ValueError("there are no networks to average")
    return {key: sums[key].to(tensor.dtype) if key in sums else tensor.clone() for key, tensor in first.items()}


@dataclass(frozen=True)
class Soup:
    """Result of a greedy soup.

    Attributes:
        ingredients: indices of the averaged networks, in the order in which they were added.
        score: held-out score of the averaged network.
    """

    ingredients: tuple[int, ...]
    score: float


def greedy_soup(order: Sequence[int], score: Callable[[tuple[int, ...]], float]) -> Soup:
    """Greedy soup (Wortsman et al. 2022): start with the first network, add each other one if the score does not drop.

    Args:
        order: indices of the networks, best first.
        score: held-out score of the mean of some networks, or of a single one; higher is better.

    Raises:
        ValueError: there are no networks.
    """
    if not order:
        raise ValueError("there are no networks to make a soup from")
    soup = Soup((order[0],), score((order[0],)))
    for network in order[1:]:
        ingredients = (*soup.ingredients, network)
        new_score = score(ingredients)
        if new_score >= soup.score:
            soup = Soup(ingredients, new_score)
    return soup
