"""Calibration: makes probabilities match observed frequencies, and variances match squared errors.

Calibrations are fitted on all pixels of held-out images, read one after the other, and consist of plain numbers.
"""

from collections.abc import Callable
from typing import Any

from densemble.ensemble.calibrate.temperature import HIGHEST, LOWEST, Temperature, fit_temperature, temper
from densemble.ensemble.calibrate.variance import VarianceScaling, fit_variance_scaling
from densemble.ensemble.calibrate.vector import VectorScaling, fit_vector_scaling
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
    "temperature": Temperature.described,
    "vector": VectorScaling.described,
    "variance": VarianceScaling.described,
}
"""Calibrations by name; called with the plain values of ``describe``."""


def make_calibration(values: dict[str, Any]) -> Calibration:
    """Build a calibration from its plain description.

    Raises:
        ArtifactError: the name is unknown, or values are missing or have the wrong type.
        UsageError: the calibration rejects the numbers.
    """
    name = str(values.get("kind"))
    if name not in CALIBRATIONS:
        raise ArtifactError(
            f"no calibration is named '{name}'; there are: {', '.join(CALIBRATIONS)}; the file is damaged, or "
            "written by a newer densemble"
        )
    try:
        return CALIBRATIONS[name](values)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"the {name} calibration {values} is damaged ({error!r}); copy the file again") from error
