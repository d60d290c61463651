"""Selection of the fastest backend and precision with right outputs, measured on this machine."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends import BACKENDS, REFERENCE, Precision, Runner

EXACT = 1e-4
"""Largest permitted error of a float32 backend, relative to the largest logit of the eager reference."""
DRIFT = 0.03
"""Largest permitted error of the maps of a lower precision, relative to the variation of the maps (both RMS)."""
GAIN = 1.02
"""Least speed-up over eager for which another backend is selected."""
ROUNDS, SECONDS = 5, 2.0


@dataclass(frozen=True)
class Choice:
    """Backend and precision selected for a network at a shape.

    Attributes:
        backend, precision: the selected ones.
        seconds: median time of every candidate with right outputs, ``BACKEND PRECISION`` -> seconds.
        error: error of the selected candidate: see :data:`EXACT`, :data:`DRIFT`.
        refused: candidates that could not be used, with the reason.
    """

    backend: str
    precision: Precision
    seconds: dict[str, float]
    error: float
    refused: dict[str, str]

    @property
    def speedup(self) -> float:
        """Speed-up over eager float32."""
        return self.seconds["eager fp32"] / self.seconds[f"{self.backend} {self.precision}"]


def candidates(backend: str, precision: str, device: torch.device) -> list[tuple[str, Precision]]:
    """Permitted backends and precisions; eager float32, the reference, is always among them.

    Args:
        backend: a row of ``BACKENDS``, or ``auto``: all installed ones that compile within seconds.
        precision: the lowest permitted precision; ``auto``: bfloat16 if the hardware supports it.
        device: where the network runs.

    Raises:
        UsageError: the backend cannot be used here.
    """
    if backend == "auto":
        usable = [name for name in BACKENDS if BACKENDS[name].missing(device) is None]
        names = [name for name in usable if not _skipped_by_auto(name, usable)]
    else:
        reason = BACKENDS[backend].missing(device)
        if reason is not None:
            raise UsageError(f"backend '{backend}' cannot be used: {reason}")
        names = [backend]
    order: tuple[Precision, ...] = get_args(Precision)
    lowest = order.index("bf16" if precision == "auto" else precision)
    pairs = [(name, p) for name in names for p in BACKENDS[name].precisions(device) if order.index(p) <= lowest]
    return pairs if REFERENCE in pairs else [REFERENCE, *pairs]


def _skipped_by_auto(name: str, usable: Sequence[str]) -> bool:
    """Whether ``auto`` does not try a usable backend: see docs/decisions/0009."""
    row = BACKENDS[name]
    return row.slow_to_compile or any(faster in usable for faster in row.slower_than)


def tune(
    network: nn.Module,
    example: Tensor,
    activation: Callable[[Tensor], Tensor],
    pairs: Sequence[tuple[str, Precision]],
    named: str | None = None,
    remembered: Choice | None = None,
    reference: Sequence[Tensor] | None = None,
) -> tuple[Choice, Runner]:
    """Select the fastest of several backends and precisions whose outputs are right.

    Args:
        network: normalized images -> logits.
        example: real normalized images of the shape; int8 is also calibrated on them.
        activation: logits -> maps, on which the error of a lower precision is measured.
        pairs: see :func:`candidates`.
        named: the requested backend: selected if its outputs are right, even if eager is faster.
        remembered: the choice of an earlier process: used without timing if its outputs are still right.
        reference: outputs of eager float32 for the example, if known.
    """
    if remembered is not None:
        pairs = [(remembered.backend, remembered.precision)]
    reference_run = BACKENDS[REFERENCE[0]].compile(network, example, REFERENCE[1], ())
    reference = reference_run(example) if reference is None else reference
    runners, errors, refused = {REFERENCE: reference_run}, {REFERENCE: 0.0}, {}
    for backend, precision in pairs:
        if (backend, precision) in runners:
            continue
        try:
            run = BACKENDS[backend].compile(network, example, precision, [example])
            error = largest_error(run(example), reference, activation, precision)
        except UsageError as reason:
            refused[f"{backend} {precision}"] = str(reason)
            continue
        if not is_right(error, precision):
            refused[f"{backend} {precision}"] = f"its outputs differ by {error:.2g} from eager fp32"
            continue
        runners[backend, precision], errors[backend, precision] = run, error
    if remembered is not None and pairs[0] in runners:
        return replace(remembered, error=errors[pairs[0]]), runners[pairs[0]]
    seconds = _times(runners, example)
    backend, precision = _fastest(seconds, named)
    choice = Choice(
        backend,
        precision,
        {f"{b} {p}": value for (b, p), value in seconds.items()},
        errors[backend, precision],
        refused,
    )
    return choice, runners[backend, precision]


def _fastest(seconds: Mapping[tuple[str, Precision], float], named: str | None) -> tuple[str, Precision]:
    of_named = {pair: value for pair, value in seconds.items() if pair[0] == named}
    if of_named:
        return min(of_named, key=lambda pair: of_named[pair])
    best = min(seconds, key=lambda pair: seconds[pair])
    return best if seconds[best] * GAIN < seconds[REFERENCE] else REFERENCE


def _times(runners: Mapping[tuple[str, Precision], Runner], example: Tensor) -> dict[tuple[str, Precision], float]:
    """Median seconds of each runner; runs are interleaved, so that noise of the machine affects all alike."""
    samples: dict[tuple[str, Precision], list[float]] = {pair: [] for pair in runners}
    started = time.perf_counter()
    for number in range(ROUNDS if len(runners) > 1 else 1):
        for pair, run in runners.items():
            before = time.perf_counter()
            run(example)
            if example.device.type == "cuda":
                torch.cuda.synchronize(example.device)
            samples[pair].append(time.perf_counter() - before)
        if number >= 2 and time.perf_counter() - started > SECONDS:
            break
    return {pair: statistics.median(values) for pair, values in samples.items()}


def is_right(error: float, precision: Precision) -> bool:
    """Whether a backend with this error may be used; never with NaN."""
    return error <= (EXACT if precision == "fp32" else DRIFT)


def largest_error(
    outputs: Sequence[Tensor],
    reference: Sequence[Tensor],
    activation: Callable[[Tensor], Tensor],
    precision: Precision,
) -> float:
    """The largest error over all outputs, see :data:`EXACT` and :data:`DRIFT`; infinity if shapes differ.

    Args:
        outputs: outputs for one batch.
        reference: outputs of eager float32 for the same batch.
        activation: logits -> maps.
        precision: precision of the outputs.
    """
    pairs = list(zip(outputs, reference, strict=True))
    if any(output.shape != expected.shape for output, expected in pairs):
        return float("inf")
    if precision == "fp32":
        return max(float((output - exact).abs().max() / exact.abs().max().clamp(min=1e-12)) for output, exact in pairs)
    return max(_drift(activation(output), activation(exact)) for output, exact in pairs)


def _drift(maps: Tensor, reference: Tensor) -> float:
    variation = (reference - reference.mean((-2, -1), keepdim=True)).double().square().mean().sqrt()
    return float((maps - reference).double().square().mean().sqrt() / variation.clamp(min=1e-6))
