"""Guarantees: prediction sets and intervals with a guaranteed mean coverage of images like the held-out ones."""

from collections.abc import Callable
from typing import Any

from densemble.ensemble.guarantee.held_out_images import Images
from densemble.ensemble.guarantee.intervals import ConformalInterval, fit_interval
from densemble.ensemble.guarantee.sets import ConformalSet, RiskControl, fit_risk_control, fit_set
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
    "conformal_set": ConformalSet.described,
    "conformal_interval": ConformalInterval.described,
    "risk_control": RiskControl.described,
}
"""Guarantees by name; called with the plain values of ``describe``."""


def make_guarantee(values: dict[str, Any]) -> Guarantee:
    """Build a guarantee from its plain description.

    Raises:
        UsageError: the name is unknown.
    """
    name = str(values.get("kind"))
    if name not in GUARANTEES:
        raise UsageError(f"no guarantee is named '{name}'; there are: {', '.join(GUARANTEES)}")
    return GUARANTEES[name](values)
