"""Long parametrizations: tests run a sample of the values; ``make slow`` runs all."""

from collections.abc import Collection, Sequence
from typing import Any

import pytest


def sampled(values: Sequence[Any], with_every_change: Collection[Any]) -> list[Any]:
    """Parameters for all values; those not in ``with_every_change`` run only with ``make slow``."""
    assert all(value in values for value in with_every_change), "with_every_change has a value that is not in values"
    arguments = [value if isinstance(value, tuple) else (value,) for value in values]
    return [
        value if value in with_every_change else pytest.param(*parts, marks=pytest.mark.slow)
        for value, parts in zip(values, arguments, strict=True)
    ]
