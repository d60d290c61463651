"""Calls that run at once against what they return one after the other."""

import threading
import time

import pytest
import torch
from torch import nn

from densemble.inference.side_by_side import side_by_side


def test_results_come_in_the_order_of_the_calls() -> None:
    network, images = nn.Conv2d(3, 4, 3), torch.randn(5, 2, 3, 16, 16)
    with torch.no_grad():
        found = side_by_side([lambda image=image: network(image) for image in images], 2)  # type: ignore[misc]
        torch.testing.assert_close(torch.stack(found), torch.stack([network(image) for image in images]))


def test_as_many_run_at_a_time_as_there_are_threads_and_these_stay() -> None:
    together = threading.Barrier(3, timeout=20)  # broken unless three wait at once

    def call() -> int:
        together.wait()
        return threading.get_ident()

    first = set(side_by_side([call] * 3, 3))
    assert len(first) == 3 and threading.get_ident() not in first
    assert set(side_by_side([call] * 3, 3)) == first


def test_each_has_one_thread_and_the_callers_are_left() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert side_by_side([torch.get_num_threads] * 4, 4) == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_calls_see_the_callers_gradient_mode() -> None:
    def modes() -> tuple[bool, bool]:
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    assert side_by_side([modes] * 2, 2) == [(True, False)] * 2
    with torch.no_grad():
        assert side_by_side([modes] * 2, 2) == [(False, False)] * 2
    with torch.inference_mode():
        assert side_by_side([modes] * 2, 2) == [(False, True)] * 2


def test_the_first_error_is_raised_when_all_have_ended() -> None:
    ended: list[int] = []

    def slow() -> None:
        time.sleep(0.2)
        ended.append(1)

    def wrong() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        side_by_side([wrong, slow], 2)
    assert ended == [1]
