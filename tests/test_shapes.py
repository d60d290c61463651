"""Sizes: parsing, formatting, and sizes of arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densemble.errors import UsageError
from densemble.shapes import format_size, parse_size, size_of


@given(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)))
def test_parse_size_inverts_format_size(size: tuple[int, int]) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "240", "240x", "0x5", "-1x5", "240*320", "2.5x3", "1x2x3"])
def test_invalid_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="240x320"):
        parse_size(text)


def test_size_of_uses_the_last_two_axes() -> None:
    assert size_of(torch.zeros(2, 3, 5, 7)) == size_of(np.zeros((5, 7))) == (5, 7)
