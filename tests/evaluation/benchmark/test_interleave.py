"""Interleaved rounds: order and inputs of the calls, and ratios that do not depend on the speed of the machine."""

import pytest
import torch
from torch import Tensor

from densemble.evaluation.benchmark.interleave import interleaved, times_as_fast


def test_every_round_begins_with_another_way_and_the_first_is_not_kept() -> None:
    seen: list[str] = []
    ways = {name: lambda images, name=name: seen.append(name) or images for name in "abc"}
    samples = interleaved(ways, torch.rand(1, 3, 4, 4), 3)
    assert "".join(seen) == "abc" + "bca" + "cab" + "abc"
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 3, "b": 3, "c": 3}


def test_every_call_gets_a_tensor_of_its_own() -> None:
    images, got = torch.rand(1, 3, 4, 4), []

    def way(given: Tensor) -> Tensor:
        got.append(given)
        assert torch.equal(given, images)
        return given

    interleaved({"a": way, "b": way}, images, 2)
    assert len({tensor.data_ptr() for tensor in [images, *got]}) == 7


def test_a_round_in_which_all_is_slow_changes_no_ratio() -> None:
    assert times_as_fast([1.0, 1.0, 10.0], [3.0, 3.0, 30.0]) == pytest.approx(3)
