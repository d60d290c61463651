"""Interleaved rounds: order and inputs of the calls, and ratios that do not depend on the speed of the machine."""

import pytest
import torch
from torch import Tensor

from densemble.evaluation.benchmark.interleave import interleaved, times_as_fast


def test_every_round_begins_with_the_next_method_after_a_warm_up() -> None:
    seen: list[str] = []
    methods = {name: lambda images, name=name: seen.append(name) or images for name in "abc"}
    samples = interleaved(methods, torch.rand(1, 3, 4, 4), 3)
    assert "".join(seen) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 3, "b": 3, "c": 3}


def test_every_call_receives_a_new_tensor() -> None:
    images, got = torch.rand(1, 3, 4, 4), []

    def method(given: Tensor) -> Tensor:
        got.append(given)
        assert torch.equal(given, images)
        return given

    interleaved({"a": method, "b": method}, images, 2)
    assert len({tensor.data_ptr() for tensor in [images, *got]}) == 7


def test_a_slow_round_does_not_change_the_ratio() -> None:
    assert times_as_fast([1.0, 1.0, 10.0], [3.0, 3.0, 30.0]) == pytest.approx(3)


def test_no_round_begins_after_the_time() -> None:
    calls: list[int] = []

    def method(images: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return images

    images = torch.rand(1, 3, 4, 4)
    assert len(interleaved({"a": method}, images, 5, most_seconds=0)["a"]) == 1
    assert len(interleaved({"a": method}, images, 5, most_seconds=600)["a"]) == 5
    assert len(calls) == 1 + 1 + 1 + 5  # each has a warm-up
