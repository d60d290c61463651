"""Sizes as text, and of maps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densemble.errors import UsageError
from densemble.shapes import format_size, parse_size, size_of


@given(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
def test_a_size_survives_being_written(size: tuple[int, int]) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "240", "240x", "0x5", "-1x5", "240*320", "2.5x3", "1x2x3"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="240x320"):
        parse_size(text)


def test_a_size_is_that_of_the_last_two_axes() -> None:
    assert size_of(torch.zeros(2, 3, 5, 7)) == size_of(np.zeros((5, 7))) == (5, 7)
