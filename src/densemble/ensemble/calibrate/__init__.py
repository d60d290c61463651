"""Calibration: probabilities that say how often they are right, and variances that say how far off they are.

What is fitted here is fitted on all pixels of held-out images that come one by one, and is plain numbers.
"""

from collections.abc import Callable
from typing import Any

from densemble.ensemble.calibrate.temperature import (
    HIGHEST,
    LOWEST,
    Temperature,
    fit_temperature,
    make_temperature,
    temper,
)
from densemble.ensemble.calibrate.variance import VarianceScaling, fit_variance_scaling, make_variance_scaling
from densemble.ensemble.calibrate.vector import VectorScaling, fit_vector_scaling, make_vector_scaling
from densemble.errors import ArtifactError

__all__ = [
    "CALIBRATIONS",
    "HIGHEST",
    "LOWEST",
    "Calibration",
    "Temperature",
    "VarianceScaling",
    "VectorScaling",
    "fit_temperature",
    "fit_variance_scaling",
    "fit_vector_scaling",
    "make_calibration",
    "temper",
]

Calibration = Temperature | VectorScaling | VarianceScaling

CALIBRATIONS: dict[str, Callable[[dict[str, Any]], Calibration]] = {
    "temperature": make_temperature,
    "vector": make_vector_scaling,
    "variance": make_variance_scaling,
}
"""Calibration by its kind: called with the plain values of ``describe``."""


def make_calibration(values: dict[str, Any]) -> Calibration:
    """A calibration from its plain description.

    Raises:
        ArtifactError: an unknown kind, or values that are absent or of another type.
        UsageError: numbers that the calibration refuses.
    """
    kind = str(values.get("kind"))
    if kind not in CALIBRATIONS:
        raise ArtifactError(
            f"no calibration is of kind '{kind}'; there are: {', '.join(CALIBRATIONS)}; the file is damaged, or "
            "written by a newer densemble"
        )
    try:
        return CALIBRATIONS[kind](values)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"the {kind} calibration {values} is damaged ({error!r}); copy the file again") from error
