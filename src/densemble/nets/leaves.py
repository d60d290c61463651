"""Which parameters a tensor was computed from, read from autograd's own graph."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Leaves:
    """Parameters that a tensor was computed from, read from autograd's own graph."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {id(p): p for p in model.parameters()}
        self.seen: set[Any] = set()
        self.found: dict[int, nn.Parameter] = {}

    def of(self, tensor: Tensor) -> list[nn.Parameter]:
        """Those of ``tensor`` and of all tensors asked for before, which lie above it in a network."""
        todo = [tensor.grad_fn]
        while todo:
            step = todo.pop()
            if step is None or step in self.seen:
                continue
            self.seen.add(step)
            leaf = getattr(step, "variable", None)
            if leaf is not None and id(leaf) in self.parameters:
                self.found[id(leaf)] = leaf
            todo.extend(earlier for earlier, _ in step.next_functions)
        return list(self.found.values())


def used_parameters(model: nn.Module, maps: list[Tensor]) -> set[str]:
    """Names of the parameters that ``maps`` were computed from."""
    reach = Leaves(model)
    for found in maps:
        reach.of(found)
    return {name for name, p in model.named_parameters() if id(p) in reach.found}


def without_values(model: nn.Module) -> nn.Module:
    """A copy on the meta device; no second set of weights comes to be."""
    memo: dict[int, Any] = {}
    for p in model.parameters():
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    for b in model.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    return copy.deepcopy(model, memo)


def with_the_same_values(model: Model) -> Model:
    """A copy whose parameters and buffers are the given one's own; only what forward keeps in attributes is apart.

    A module that cannot be copied is returned as it is.
    """
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    except (RuntimeError, TypeError):  # it keeps tensors that were computed (weight normalization), files or locks
        return model


def settings(model: nn.Module) -> dict[str, Any]:
    """Plain values among the attributes of all modules; a network whose forward changes them gives other maps later."""
    return {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple)
    }
