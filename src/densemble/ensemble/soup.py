"""Soups: networks of one architecture become one network whose weights are their mean."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

State = Mapping[str, Tensor]


def average(states: Iterable[State], weights: Sequence[float]) -> dict[str, Tensor]:
    """Weighted mean of networks' parameters and floating point buffers; integer buffers are the first one's.

    Args:
        states: ``state_dict()`` of each network, taken one after the other: two lie in memory at a time.
        weights: one positive number each.

    Raises:
        ValueError: no states, another number of weights, or tensors of other names or shapes.
    """
    total = sum(weights)
    first: State = {}
    sums: dict[str, Tensor] = {}
    for state, weight in zip(states, weights, strict=True):
        first = first or state
        if {key: tensor.shape for key, tensor in state.items()} != {key: t.shape for key, t in first.items()}:
            raise ValueError("networks of different tensors have no mean")
        for key, tensor in state.items():
            if tensor.is_floating_point():
                # In double precision the mean of equal networks is the network.
                share = tensor.to(torch.float64) * (weight / total)
                sums[key] = sums[key] + share if key in sums else share
    if not first:
        raise ValueError("the mean of no networks is not defined")
    return {key: sums[key].to(tensor.dtype) if key in sums else tensor.clone() for key, tensor in first.items()}


@dataclass(frozen=True)
class Soup:
    """What a greedy soup ended with.

    Attributes:
        ingredients: numbers of the networks whose mean it is, in the order in which they were added.
        score: of the mean, on held-out data.
    """

    ingredients: tuple[int, ...]
    score: float


def greedy_soup(order: Sequence[int], score: Callable[[tuple[int, ...]], float]) -> Soup:
    """Greedy soup (Wortsman et al. 2022): the first network, then each next one if the mean gets no worse by it.

    Args:
        order: numbers of the networks, the best first.
        score: held-out score of the mean of some of them, or of one alone; higher is better.

    Raises:
        ValueError: no networks.
    """
    if not order:
        raise ValueError("nothing to make a soup of")
    soup = Soup((order[0],), score((order[0],)))
    for number in order[1:]:
        wider = (*soup.ingredients, number)
        found = score(wider)
        if found >= soup.score:
            soup = Soup(wider, found)
    return soup
