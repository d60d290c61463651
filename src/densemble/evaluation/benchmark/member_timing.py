"""Cost of each member: work, time in the naive loop and in fast ensembles, and share of the machine limits."""

import logging
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.ensemble_arguments import Member
from densemble.ensemble.member_views import ViewedMember
from densemble.evaluation.benchmark.execution_modes import NAIVE
from densemble.evaluation.benchmark.flops import Work, count_work
from densemble.evaluation.benchmark.interleave import interleaved
from densemble.evaluation.benchmark.machine_limits import BYTES, MachineLimits
from densemble.inference.runtime.backends.backend import Precision
from densemble.inference.runtime.fast_ensemble import choices
from densemble.nets.rewrite import for_inference

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExecutionChoice:
    """Backend and precision of a member in a fast ensemble; eager if nothing is compiled for the member."""

    backend: str = "eager"
    precision: Precision = "fp32"


@dataclass(frozen=True)
class MemberCost:
    """Cost of one member for a batch.

    Attributes:
        name: name of the member.
        plain: work of the trained member.
        rewritten: work of the member as it is rewritten for inference.
        choices: execution of the member by name of the method.
        samples: seconds of every round by name of the method, the naive loop included.
    """

    name: str
    plain: Work
    rewritten: Work
    choices: dict[str, ExecutionChoice]
    samples: dict[str, list[float]]

    def seconds(self, method: str) -> float:
        """Return the median time of a method."""
        return statistics.median(self.samples[method])

    def work(self, method: str) -> Work:
        """Return the work that a method computes."""
        return self.plain if method == NAIVE else self.rewritten

    def precision(self, method: str) -> Precision:
        """Return the precision that a method computes in."""
        return "fp32" if method == NAIVE else self.choices[method].precision

    def least_seconds(self, method: str, limits: MachineLimits) -> float | None:
        """Return the time at the convolution peak of the method's precision; ``None`` if it was not measured."""
        return limits.seconds(self.work(method).flops, self.precision(method))

    def share_of_peak(self, method: str, limits: MachineLimits) -> float | None:
        """Return the time at the convolution peak divided by the measured time."""
        least = self.least_seconds(method, limits)
        return None if least is None else least / self.seconds(method)

    def share_of_bandwidth(self, method: str, limits: MachineLimits) -> float:
        """Return the time of the least memory traffic at full bandwidth divided by the measured time."""
        moved = self.work(method).values * BYTES[self.precision(method)]
        return moved / limits.bandwidth / self.seconds(method)


def measure_members(
    ensemble: Ensemble, fast: Mapping[str, Ensemble], images: Tensor, rounds: int, most_seconds: float = math.inf
) -> list[MemberCost]:
    """Measure every member with every method, in turn: the caches never hold the weights of the previous call.

    Logs the operators whose FLOPs cannot be counted.

    Args:
        ensemble: the trained ensemble.
        fast: fast versions of the ensemble by name of the method, tuned for images like these.
        images: ``(B, C, H, W)`` in [0, 1].
        rounds, most_seconds: see :func:`interleaved`.
    """
    methods: dict[str, Ensemble] = {NAIVE: ensemble, **fast}
    runs: dict[tuple[str, str], nn.Module] = {
        (name, method): member for method, executed in methods.items() for name, member in executed.named_members()
    }
    samples = interleaved(runs, images, rounds, most_seconds)
    chosen = {method: _execution_choices(executed) for method, executed in fast.items()}
    costs = []
    for name, member in ensemble.named_members():
        plain, rewritten = count_work(member, images), count_work(_rewritten(member), images)
        for operator, calls in plain.unknown.items():
            log.info(
                f"{name}: the FLOP count is a lower bound: operator '{operator}' ran {calls} times and is not counted"
            )
        costs.append(
            MemberCost(
                name,
                plain,
                rewritten,
                {method: by_member[name] for method, by_member in chosen.items()},
                {method: samples[name, method] for method in methods},
            )
        )
    return costs


def _execution_choices(fast: Ensemble) -> dict[str, ExecutionChoice]:
    return {
        name: ExecutionChoice(tuned[0].choice.backend, tuned[0].choice.precision) if tuned else ExecutionChoice()
        for name, tuned in choices(fast).items()
    }


def _rewritten(member: Member) -> Member:
    if isinstance(member, ViewedMember):
        return ViewedMember(for_inference(member.member), member.view.name)
    return for_inference(member)
