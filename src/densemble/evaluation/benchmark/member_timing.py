"""Each member by itself: its work, its time in the naive loop and in ours, and how near that is to the limit."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.ensemble_arguments import Member
from densemble.ensemble.member_views import Viewed
from densemble.evaluation.benchmark.execution_modes import NAIVE
from densemble.evaluation.benchmark.flops import Work, count_work
from densemble.evaluation.benchmark.interleave import interleaved
from densemble.evaluation.benchmark.machine_limits import BYTES, MachineLimits
from densemble.inference.runtime.backends.backend import Precision
from densemble.inference.runtime.fast_ensemble import choices
from densemble.nets.rewrite import for_inference


@dataclass(frozen=True)
class Chosen:
    """How a member is run in one of our methods; eagerly where nothing was compiled for it."""

    backend: str = "eager"
    precision: Precision = "fp32"


@dataclass(frozen=True)
class MemberCost:
    """What one member takes for a batch.

    Attributes:
        name: of the member.
        plain, rewritten: its work as it was trained, and as it is run.
        choices: by name of the method.
        samples: seconds of every round, by name of the method; the naive loop's is among them.
    """

    name: str
    plain: Work
    rewritten: Work
    choices: dict[str, Chosen]
    samples: dict[str, list[float]]

    def seconds(self, method: str) -> float:
        """Median time."""
        return statistics.median(self.samples[method])

    def work(self, method: str) -> Work:
        """What is computed in a method."""
        return self.plain if method == NAIVE else self.rewritten

    def precision(self, method: str) -> Precision:
        """What a method computes in."""
        return "fp32" if method == NAIVE else self.choices[method].precision

    def least_seconds(self, method: str, limits: MachineLimits) -> float | None:
        """Work divided by the convolution peak of the method's precision; ``None`` where that was not measured."""
        return limits.seconds(self.work(method).flops, self.precision(method))

    def share_of_peak(self, method: str, limits: MachineLimits) -> float | None:
        """The share of the time that would do at the convolution peak."""
        least = self.least_seconds(method, limits)
        return None if least is None else least / self.seconds(method)

    def share_of_bandwidth(self, method: str, limits: MachineLimits) -> float:
        """The share of the time that would do to move what has to move, even with all else fused."""
        moved = self.work(method).values * BYTES[self.precision(method)]
        return moved / limits.bandwidth / self.seconds(method)


def measure_members(
    ensemble: Ensemble, fast: Mapping[str, Ensemble], images: Tensor, rounds: int, say: Callable[[str], None]
) -> list[MemberCost]:
    """The cost of every member by every method, in turn: weights are not in the caches from the call before.

    Args:
        ensemble: as it was trained.
        fast: the same one, by name of the method, tuned for images like these.
        images: ``(B, C, H, W)`` in [0, 1].
        rounds: see :func:`interleaved`.
        say: told of work that cannot be counted.
    """
    methods: dict[str, Ensemble] = {NAIVE: ensemble, **fast}
    runs: dict[tuple[str, str], nn.Module] = {
        (name, method): member for method, one in methods.items() for name, member in one.named_members()
    }
    samples = interleaved(runs, images, rounds)
    chosen = {method: _chosen(one) for method, one in fast.items()}
    costs = []
    for name, member in ensemble.named_members():
        plain, rewritten = count_work(member, images), count_work(_rewritten(member), images)
        for operator, calls in plain.unknown.items():
            say(f"{name}: FLOPs are at least; operator '{operator}' ran {calls} times and is not counted")
        costs.append(
            MemberCost(
                name,
                plain,
                rewritten,
                {method: own[name] for method, own in chosen.items()},
                {method: samples[name, method] for method in methods},
            )
        )
    return costs


def _chosen(fast: Ensemble) -> dict[str, Chosen]:
    return {
        name: Chosen(tuned[0].choice.backend, tuned[0].choice.precision) if tuned else Chosen()
        for name, tuned in choices(fast).items()
    }


def _rewritten(member: Member) -> Member:
    if isinstance(member, Viewed):
        return Viewed(for_inference(member.member), member.view.name)
    return for_inference(member)
