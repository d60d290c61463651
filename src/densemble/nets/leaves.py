"""Which parameters a tensor depends on, and copies of networks that share or lack values."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Leaves:
    """Parameters that tensors depend on, read from the autograd graph."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = {id(p): p for p in model.parameters()}
        self.visited: set[Any] = set()
        self.reached: dict[int, nn.Parameter] = {}

    def of(self, tensor: Tensor) -> list[nn.Parameter]:
        """Parameters of ``tensor`` and of all tensors of earlier calls; call it in network order."""
        todo = [tensor.grad_fn]
        while todo:
            step = todo.pop()
            if step is None or step in self.visited:
                continue
            self.visited.add(step)
            leaf = getattr(step, "variable", None)
            if leaf is not None and id(leaf) in self.parameters:
                self.reached[id(leaf)] = leaf
            todo.extend(earlier for earlier, _ in step.next_functions)
        return list(self.reached.values())


def used_parameters(model: nn.Module, maps: list[Tensor]) -> set[str]:
    """Names of the parameters that ``maps`` depend on."""
    leaves = Leaves(model)
    for tensor in maps:
        leaves.of(tensor)
    return {name for name, p in model.named_parameters() if id(p) in leaves.reached}


def without_values(model: nn.Module) -> nn.Module:
    """A copy on the meta device; the weights are not copied."""
    memo: dict[int, Any] = {}
    for p in model.parameters():
        memo[id(p)] = nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad)
    for b in model.buffers():
        memo[id(b)] = torch.empty_like(b, device="meta")
    return copy.deepcopy(model, memo)


def with_the_same_values(model: Model) -> Model:
    """A copy that shares parameters and buffers with ``model``, but not the attributes that its forward changes.

    A module that cannot be copied is returned unchanged.
    """
    try:
        return copy.deepcopy(model, {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())})
    except (RuntimeError, TypeError):  # it holds non-leaf tensors (weight normalization), files or locks
        return model


def settings(model: nn.Module) -> dict[str, Any]:
    """Plain attributes of all modules; a network whose forward changes them returns other maps afterwards."""
    return {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, bool | int | float | str | tuple)
    }
