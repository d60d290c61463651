"""Guarantees: sets and intervals that hold what is true as often as promised, on images like the held-out ones."""

from collections.abc import Callable
from typing import Any

from densemble.ensemble.guarantee.held_out_images import Images
from densemble.ensemble.guarantee.intervals import ConformalInterval, fit_interval, make_interval
from densemble.ensemble.guarantee.sets import (
    ConformalSet,
    RiskControl,
    fit_risk_control,
    fit_set,
    make_risk_control,
    make_set,
)
from densemble.ensemble.guarantee.verify import Coverage, Guarantee, binomial_interval, coverage
from densemble.errors import UsageError

__all__ = [
    "GUARANTEES",
    "ConformalInterval",
    "ConformalSet",
    "Coverage",
    "Guarantee",
    "Images",
    "RiskControl",
    "binomial_interval",
    "coverage",
    "fit_interval",
    "fit_risk_control",
    "fit_set",
    "make_guarantee",
]

GUARANTEES: dict[str, Callable[[dict[str, Any]], Guarantee]] = {
    "conformal_set": make_set,
    "conformal_interval": make_interval,
    "risk_control": make_risk_control,
}
"""Guarantee by kind: called with the plain values of its ``describe``."""


def make_guarantee(values: dict[str, Any]) -> Guarantee:
    """A guarantee from its plain description.

    Raises:
        UsageError: unknown kind.
    """
    kind = str(values.get("kind"))
    if kind not in GUARANTEES:
        raise UsageError(f"no guarantee is named '{kind}'; there are: {', '.join(GUARANTEES)}")
    return GUARANTEES[kind](values)
