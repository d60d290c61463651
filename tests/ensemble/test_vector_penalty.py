"""The penalty of vector scaling against scipy on the penalised loss: a rare class stays near the temperature."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit

from densemble.ensemble.calibrate import fit_temperature, fit_vector_scaling

PENALTY = 1e-5


def test_the_penalty_keeps_a_separable_class_near_the_temperature() -> None:
    """Without it, the scale of a channel whose masks follow the sign of its logits would be infinite."""
    random = np.random.default_rng(0)
    z = random.normal(size=(2, 40, 50))
    masks = np.stack([random.random((40, 50)) < expit(0.5 * z[0]), z[1] > 0]).astype(np.uint8)
    maps = torch.from_numpy(expit(z)).float()

    def images() -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(maps, torch.from_numpy(masks))]

    centre = np.repeat([1 / fit_temperature(images, "bernoulli"), 0.0], 2)

    def penalised(position: np.ndarray, around: np.ndarray) -> float:
        logits = z * position[:2, None, None] + position[2:, None, None]
        loss = np.mean(np.logaddexp(0, logits) - masks * logits)
        return float(loss + PENALTY / 2 * np.sum((position - around) ** 2))

    expected = minimize(penalised, centre, (centre,), method="BFGS", options={"gtol": 1e-9}).x
    elsewhere = minimize(penalised, centre, (-centre,), method="BFGS", options={"gtol": 1e-9}).x
    result = fit_vector_scaling(images, "bernoulli")
    assert [*result.scales, *result.biases] == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert abs(elsewhere[1] / expected[1] - 1) > 0.01  # the centre of the penalty matters
