"""Long parametrizations: tests run a sample of them; ``make stress`` runs all."""

from collections.abc import Collection, Sequence
from typing import Any

import pytest


def sampled(values: Sequence[Any], with_every_change: Collection[Any]) -> list[Any]:
    """The values; those that are not named in ``with_every_change`` are left to ``make stress``."""
    assert all(value in values for value in with_every_change), "named, but not among the values"
    parts_of = [value if isinstance(value, tuple) else (value,) for value in values]
    return [
        value if value in with_every_change else pytest.param(*parts, marks=pytest.mark.stress)
        for value, parts in zip(values, parts_of, strict=True)
    ]
