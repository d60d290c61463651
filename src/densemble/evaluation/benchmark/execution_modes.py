"""Methods to run an ensemble: the naive loop, and densemble with a backend and a precision."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from densemble.ensemble.cascade import Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.resize import resize_to_target
from densemble.evaluation.benchmark.interleave import Method
from densemble.inference.cascade_runner import predict_cascade
from densemble.inference.runtime.fast_ensemble import accelerate

log = logging.getLogger(__name__)

NAIVE = "naive loop"


def naive_loop(ensemble: Ensemble) -> Method:
    """Run the trained members one after the other (eager, float32, channels first) and combine their stacked maps."""
    members, task = list(ensemble.named_members()), ensemble.task

    def run(images: Tensor) -> Tensor:
        stack: list[Tensor] = []
        for name, member in members:
            maps = task.activation(member(images) / ensemble.temperatures[name])
            stack.append(resize_to_target(maps, stack[0] if stack else maps, task))
        return ensemble.combination.combine(torch.stack(stack))

    return run


def accelerated(
    ensemble: Ensemble, images: Tensor, modes: Sequence[tuple[str, str]], together: bool = True
) -> dict[str, Ensemble]:
    """Make fast ensembles for batches like ``images``, by name of the mode; logs the choices.

    Args:
        ensemble: the ensemble; it is not changed.
        images: ``(B, C, H, W)`` in [0, 1].
        modes: (backend, precision) of each fast ensemble; duplicates are made once.
        together: see :func:`.fast_ensemble.make_fast_ensemble`; not for single members or cascades.
    """
    ensembles = {}
    for backend, precision in dict.fromkeys(modes):
        name = name_of(backend, precision)
        log.info(f"{name}:")
        ensembles[name] = accelerate(ensemble, images, backend, precision, shared=together)
    return ensembles


def name_of(backend: str, precision: str) -> str:
    """Return the name of a backend and a precision in tables."""
    return f"ours, {backend}" if backend == precision else f"ours, {backend} {precision}"


def cascaded(ensemble: Ensemble, policy: Policy) -> Method:
    """Run a fast ensemble as a cascade."""
    return lambda images: predict_cascade(ensemble, images, policy).prediction.mean


def relative_errors(methods: Mapping[str, Method], images: Tensor) -> dict[str, float]:
    """Return the largest difference to the map of the naive loop, relative to the largest value of that map."""
    with torch.inference_mode():
        expected = methods[NAIVE](images)
        scale = expected.abs().max()
        return {name: float((run(images) - expected).abs().max() / scale) for name, run in methods.items()}
