"""Benchmark results as plain values: medians and raw samples."""

from dataclasses import asdict
from typing import Any

from densemble.evaluation.benchmark.execution_modes import NAIVE
from densemble.evaluation.benchmark.fresh_process import FreshProcess
from densemble.evaluation.benchmark.machine_limits import MachineLimits
from densemble.evaluation.benchmark.measure_ensemble import BatchCost, MethodCost
from densemble.evaluation.benchmark.member_timing import MemberCost
from densemble.evaluation.benchmark.split_scores import MethodScore


def batch_values(cost: BatchCost) -> dict[str, Any]:
    """Return ``{"limits", "members": [...], "ways": {name: ...}}``; times in seconds, rates per second."""
    return {
        "limits": asdict(cost.limits),
        "members": [_member(member, cost.limits) for member in cost.members],
        "ways": {name: _method(method) for name, method in cost.methods.items()},
    }


def _method(cost: MethodCost) -> dict[str, Any]:
    least = cost.least_seconds
    return {
        "median_seconds": cost.seconds,
        "times_as_fast": cost.times_as_fast,
        "relative_error": cost.relative_error,
        "least_seconds": least,
        "times_the_least": None if least is None else cost.seconds / least,
        "samples": cost.samples,
    }


def _member(cost: MemberCost, limits: MachineLimits) -> dict[str, Any]:
    return {
        "name": cost.name,
        "flops": cost.plain.flops,
        "flops_rewritten": cost.rewritten.flops,
        "not_counted": cost.plain.light,
        "unknown": cost.plain.unknown,
        "ways": {method: _member_in(method, cost, limits) for method in cost.samples},
    }


def _member_in(method: str, cost: MemberCost, limits: MachineLimits) -> dict[str, Any]:
    return {
        "median_seconds": cost.seconds(method),
        "backend": "eager" if method == NAIVE else cost.choices[method].backend,
        "precision": cost.precision(method),
        "share_of_peak": cost.share_of_peak(method, limits),
        "share_of_bandwidth": cost.share_of_bandwidth(method, limits),
        "samples": cost.samples[method],
    }


def process_values(processes: dict[str, FreshProcess]) -> dict[str, Any]:
    """Return seconds to the first map, seconds of each step, and peak memory in MiB, by name of the process."""
    return {name: {"cold_start_seconds": process.cold_start, **asdict(process)} for name, process in processes.items()}


def score_values(methods: dict[str, MethodScore], primary: str, higher_is_better: bool) -> dict[str, Any]:
    """Return the scores and time of each method by name.

    ``kept`` is the primary score as a share of the naive loop's primary score, ``lost`` is the difference.
    """
    naive = methods[NAIVE]
    full = naive.scores[primary]
    rows = {}
    for name, method in methods.items():
        score = method.scores[primary]
        rows[name] = {
            **{key: value for key, value in method.scores.items() if isinstance(value, float)},
            "kept": (score / full if higher_is_better else full / score) if score and full else None,
            "lost": full - score if higher_is_better else score - full,
            "seconds": sum(method.seconds),
            "times_as_fast": method.times_as_fast(naive),
            "samples": method.seconds,
        }
    return rows
