"""Ways to run an ensemble: the naive loop, and ours by backend and precision."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from densemble.ensemble.cascade import Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.resize import resize_maps
from densemble.evaluation.benchmark.interleave import Method
from densemble.inference.cascade_runner import predict_cascade
from densemble.inference.runtime.fast_ensemble import accelerate
from densemble.shapes import Size

NAIVE = "naive loop"


def naive_loop(ensemble: Ensemble) -> Method:
    """One member after the other as they were trained, eager, float32, channels first; then the rule on the stack."""
    members, task = list(ensemble.named_members()), ensemble.task

    def run(images: Tensor) -> Tensor:
        stack: list[Tensor] = []
        for name, member in members:
            maps = task.activation(member(images) / ensemble.temperatures[name])
            stack.append(resize_maps(maps, _size(stack[0] if stack else maps), task.target_kind == "density"))
        return ensemble.combination.combine(torch.stack(stack))

    return run


def accelerated(
    ensemble: Ensemble,
    images: Tensor,
    kinds: Sequence[tuple[str, str]],
    say: Callable[[str], None],
    together: bool = True,
) -> dict[str, Ensemble]:
    """Fast ensembles by name, for batches like ``images``.

    Args:
        ensemble: left as it is.
        images: ``(B, C, H, W)`` in [0, 1].
        kinds: backends and precisions; what is named twice is made once.
        say: told what is made; the loggers ``densemble.*`` give the choices.
        together: see :func:`.fast_ensemble.make_fast_ensemble`; not for single members or cascades.
    """
    made = {}
    for backend, precision in dict.fromkeys(kinds):
        name = name_of(backend, precision)
        say(f"{name}:")
        made[name] = accelerate(ensemble, images, backend, precision, shared=together)
    return made


def name_of(backend: str, precision: str) -> str:
    """What a backend and a precision are called in a table."""
    return f"ours, {backend}" if backend == precision else f"ours, {backend} {precision}"


def cascaded(ensemble: Ensemble, policy: Policy) -> Method:
    """A cascade of a fast ensemble."""
    return lambda images: predict_cascade(ensemble, images, policy).prediction.mean


def relative_errors(ways: Mapping[str, Method], images: Tensor) -> dict[str, float]:
    """Largest difference to the naive loop's map, relative to that map's largest value."""
    with torch.inference_mode():
        wanted = ways[NAIVE](images)
        return {name: float((way(images) - wanted).abs().max() / wanted.abs().max()) for name, way in ways.items()}


def _size(maps: Tensor) -> Size:
    return int(maps.shape[-2]), int(maps.shape[-1])
