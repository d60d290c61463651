"""Each member by itself: its work, its time in the naive loop and in ours, and how near that is to the limit."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from densemble.benchmarking.flops import Work, count_work
from densemble.benchmarking.interleave import interleaved
from densemble.benchmarking.limits import BYTES, MachineLimits
from densemble.benchmarking.ways import NAIVE
from densemble.ensemble.arguments import Member
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.views import Viewed
from densemble.inference.backends.base import Precision
from densemble.inference.fast import choices
from densemble.nets.rewrite import for_inference


@dataclass(frozen=True)
class Chosen:
    """How a member is run in one of our ways; eagerly where nothing was compiled for it."""

    backend: str = "eager"
    precision: Precision = "fp32"


@dataclass(frozen=True)
class MemberCost:
    """What one member takes for a batch.

    Attributes:
        name: of the member.
        plain, rewritten: its work as it was trained, and as it is run.
        choices: by name of the way.
        samples: seconds of every round, by name of the way; the naive loop's is among them.
    """

    name: str
    plain: Work
    rewritten: Work
    choices: dict[str, Chosen]
    samples: dict[str, list[float]]

    def seconds(self, way: str) -> float:
        """Median time."""
        return statistics.median(self.samples[way])

    def work(self, way: str) -> Work:
        """What is computed in a way."""
        return self.plain if way == NAIVE else self.rewritten

    def precision(self, way: str) -> Precision:
        """What a way computes in."""
        return "fp32" if way == NAIVE else self.choices[way].precision

    def least_seconds(self, way: str, limits: MachineLimits) -> float | None:
        """Work divided by the convolution peak of the way's precision; ``None`` where that was not measured."""
        return limits.seconds(self.work(way).flops, self.precision(way))

    def share_of_peak(self, way: str, limits: MachineLimits) -> float | None:
        """The share of the time that would do at the convolution peak."""
        least = self.least_seconds(way, limits)
        return None if least is None else least / self.seconds(way)

    def share_of_bandwidth(self, way: str, limits: MachineLimits) -> float:
        """The share of the time that would do to move what has to move, even with all else fused."""
        moved = self.work(way).values * BYTES[self.precision(way)]
        return moved / limits.bandwidth / self.seconds(way)


def measure_members(
    ensemble: Ensemble, fast: Mapping[str, Ensemble], images: Tensor, rounds: int, say: Callable[[str], None]
) -> list[MemberCost]:
    """The cost of every member, all of them and all ways in turn: weights are not in the caches from the call before.

    Args:
        ensemble: as it was trained.
        fast: the same one, by name of the way, tuned for images like these.
        images: ``(B, C, H, W)`` in [0, 1].
        rounds: see :func:`interleaved`.
        say: told of work that cannot be counted.
    """
    ways: dict[str, Ensemble] = {NAIVE: ensemble, **fast}
    runs: dict[tuple[str, str], nn.Module] = {
        (name, way): member for way, one in ways.items() for name, member in one.named_members()
    }
    samples = interleaved(runs, images, rounds)
    chosen = {way: _chosen(one) for way, one in fast.items()}
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
                {way: own[name] for way, own in chosen.items()},
                {way: samples[name, way] for way in ways},
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
