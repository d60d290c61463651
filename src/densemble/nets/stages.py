"""Feature maps that a network itself gives out: the stages of timm's networks, and what any other returns.

A stage is named by timm's ``feature_info``, a returned map by its path: ``2`` in a list, ``layer3`` in a dictionary,
``hidden_states.4`` in a dataclass.
"""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densemble.errors import UsageError

FIELDS = ("feature_maps", "reshaped_hidden_states", "hidden_states")
"""Where Hugging Face's vision models return their stages; the first that is there holds them all but the last map of
some, ``last_hidden_state``."""


def stage_names(model: nn.Module) -> list[str]:
    """Names of the stages that the network's ``forward_intermediates`` gives out, in order.

    A stage of a second branch has the same name again and gets ``#2`` (CrossViT).
    """
    names: list[str] = []
    for stage in model.feature_info:  # type: ignore[union-attr]
        name, count = str(stage["module"]), 2
        while name in names:
            name, count = f"{stage['module']}#{count}", count + 1
        names.append(name)
    return names


def stages(model: nn.Module, images: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Maps ``(B, C, h, w)`` of the named stages, in the order of the names; later stages do not run."""
    known = stage_names(model)
    indices = sorted({known.index(name) for name in names})
    maps: Any = model.forward_intermediates(  # type: ignore[operator]
        images, indices=indices, stop_early=True, intermediates_only=True
    )
    by_index = dict(zip(indices, maps, strict=True))
    return [by_index[known.index(name)] for name in names]


def call_options(model: nn.Module) -> dict[str, bool]:
    """What a forward of Hugging Face's convention is told: to return its inner maps, and to take images of any size."""
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
    """What the network returns for images ``(B, C, H, W)``, told as :func:`call_options` says."""
    return model(images, **call_options(model))


def returned(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Tensors that the network returns in a list, tuple, dictionary or dataclass, by path; none where it returns one.

    A tensor that is returned twice, and the image itself, are left out.
    """
    result = run(model, images)
    if isinstance(result, Tensor):
        return {}
    every = dict(_tensors(result, ""))
    if "output_hidden_states" in call_options(model):
        by_field = [{path: t for path, t in every.items() if path.partition(".")[0] == field} for field in FIELDS]
        last = {path: t for path, t in every.items() if path == "last_hidden_state" and t.ndim == 4}
        every = next((own | last for own in by_field if own), every)
    found: dict[str, Tensor] = {}
    for path, tensor in every.items():
        if tensor is not images and all(tensor is not other for other in found.values()):
            found[path] = tensor
    return found


def named_outputs(model: nn.Module, images: Tensor, paths: Sequence[str]) -> list[Tensor]:
    """Returned tensors in the order of their paths.

    Raises:
        UsageError: one of them is not returned, as by a network that returns something else in training mode.
    """
    found = returned(model, images)
    missing = [path for path in paths if path not in found]
    if missing:
        mode = "training" if model.training else "eval"
        raise UsageError(
            f"{type(model).__name__} returns no '{missing[0]}' in {mode} mode, but {', '.join(found) or 'one tensor'}; "
            "let its forward return the same in both modes"
        )
    return [found[path] for path in paths]


def _tensors(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, torch.Tensor):
        yield path, value
        return
    inside: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        inside = iter(value.items())
    elif dataclasses.is_dataclass(value):
        inside = ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        inside = zip(value._fields, value, strict=True)
    elif isinstance(value, list | tuple):
        inside = iter(enumerate(value))
    else:
        return
    for key, item in inside:
        yield from _tensors(item, f"{path}.{key}" if path else str(key))
