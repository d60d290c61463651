"""Feature maps that a network gives access to: the stages of timm networks, and the tensors that a network returns.

A stage has its name in timm's ``feature_info``. A returned map is named by its path: ``2`` in a list, ``layer3`` in a
dictionary, ``hidden_states.4`` in a dataclass.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densemble.errors import UsageError

FIELDS = ("feature_maps", "reshaped_hidden_states", "hidden_states")
"""Fields in which vision models of Hugging Face return their stages. The first existing field has all stages; some
models return one more map in ``last_hidden_state``."""


def stage_names(model: nn.Module) -> list[str]:
    """Names of the stages that ``forward_intermediates`` of the network returns, in order.

    A stage of a second branch with the same name gets the suffix ``#2`` (CrossViT).
    """
    names: list[str] = []
    for stage in model.feature_info:  # type: ignore[union-attr]
        name, count = str(stage["module"]), 2
        while name in names:
            name, count = f"{stage['module']}#{count}", count + 1
        names.append(name)
    return names


def stages(model: nn.Module, images: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Feature maps ``(B, C, h, w)`` of the named stages, in the order of ``names``; later stages do not run."""
    known = stage_names(model)
    indices = sorted({known.index(name) for name in names})
    maps: Any = model.forward_intermediates(  # type: ignore[operator]
        images, indices=indices, stop_early=True, intermediates_only=True
    )
    by_index = dict(zip(indices, maps, strict=True))
    return [by_index[known.index(name)] for name in names]


def call_options(model: nn.Module) -> dict[str, bool]:
    """Keyword arguments for Hugging Face models: return the hidden states and accept images of any size."""
    parameters = inspect.signature(model.forward).parameters
    any_option = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    configured = hasattr(getattr(model, "config", None), "output_hidden_states")
    options = {}
    if "output_hidden_states" in parameters or (any_option and configured):
        options["output_hidden_states"] = True
    if "interpolate_pos_encoding" in parameters:
        options["interpolate_pos_encoding"] = True
    return options


def run(model: nn.Module, images: Tensor) -> Any:
    """Call the network on images ``(B, C, H, W)`` with :func:`call_options`."""
    return model(images, **call_options(model))


def returned(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Tensors that the network returns in a list, tuple, dictionary or dataclass, by path.

    The result has each tensor once and not the image itself. It is empty if the network returns a single tensor.
    """
    result = run(model, images)
    if isinstance(result, Tensor):
        return {}
    tensors = dict(_tensors(result, ""))
    if "output_hidden_states" in call_options(model):
        by_field = [{path: t for path, t in tensors.items() if path.partition(".")[0] == field} for field in FIELDS]
        last = {path: t for path, t in tensors.items() if path == "last_hidden_state" and t.ndim == 4}
        tensors = next((field_tensors | last for field_tensors in by_field if field_tensors), tensors)
    unique: dict[str, Tensor] = {}
    for path, tensor in tensors.items():
        if tensor is not images and all(tensor is not other for other in unique.values()):
            unique[path] = tensor
    return unique


def named_outputs(model: nn.Module, images: Tensor, paths: Sequence[str]) -> list[Tensor]:
    """Returned tensors at ``paths``, in order.

    Raises:
        UsageError: a tensor is missing, for example because the network returns other tensors in training mode.
    """
    tensors = returned(model, images)
    missing = [path for path in paths if path not in tensors]
    if missing:
        mode, existing = "training" if model.training else "eval", ", ".join(tensors) or "one tensor"
        raise UsageError(
            f"{type(model).__name__} returns no '{missing[0]}' in {mode} mode, but {existing}; "
            "change its forward to return the same maps in both modes"
        )
    return [tensors[path] for path in paths]


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif dataclasses.is_dataclass(value):
        items = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        items = zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        items = iter(enumerate(value))
    else:
        return
    for key, item in items:
        yield from _tensors(item, f"{path}.{key}" if path else str(key))
