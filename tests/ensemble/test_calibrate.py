"""Calibrations against scipy on stacked data, torch's derivatives, and targets with known solutions."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from densemble.ensemble.calibrate import (
    CALIBRATIONS,
    Temperature,
    VarianceScaling,
    VectorScaling,
    fit_temperature,
    fit_variance_scaling,
    fit_vector_scaling,
    make_calibration,
    temper,
)
from densemble.ensemble.calibrate.pixel_log_odds import read_known_pixels
from densemble.ensemble.calibrate.temperature import _derivatives
from densemble.ensemble.calibrate.vector import _measure
from densemble.errors import ArtifactError, DataError, UsageError
from densemble.tasks import Distribution

K, VOID = 4, 9
Sets = list[tuple[Tensor, ...]]


def labelled(sureness: float = 2.0, bias: Tensor | None = None) -> Sets:
    """Images of several sizes whose labels follow the logits; the logits are scaled by ``sureness``."""
    result = []
    for height in (30, 17, 41):
        logits = 1.5 * torch.randn(K, height, 20)
        labels = torch.distributions.Categorical(logits=logits.movedim(0, -1)).sample()
        labels[torch.rand(labels.shape) < 0.1] = VOID
        shifted = logits if bias is None else logits + bias[:, None, None]
        result.append((torch.softmax(sureness * shifted, 0), labels.to(torch.uint8)))
    return result


def masked(sureness: float = 2.0) -> Sets:
    result = []
    for height in (30, 17, 41):
        logits = torch.randn(K, height, 20) - 1
        masks = (torch.rand(K, height, 20) < torch.sigmoid(logits)).to(torch.uint8)
        masks[torch.rand(masks.shape) < 0.1] = 255
        result.append((torch.sigmoid(sureness * logits), masks))
    return result


def stream(images: Sets) -> Callable[[], Iterator[Any]]:
    return lambda: iter(images)


def log_loss(images: Sets, calibrate: Callable[[Tensor], Tensor], distribution: Distribution) -> float:
    """Mean negative log-likelihood of everything stacked, by torch's losses in float64."""
    total, count = 0.0, 0
    for maps, target in images:
        p = calibrate(maps[None].double())
        if distribution == "categorical":
            total += float(F.nll_loss(p.log(), target[None].long(), ignore_index=VOID, reduction="sum"))
            count += int((target != VOID).sum())
        else:
            known = target != 255
            total += float(F.binary_cross_entropy(p[0][known], target[known].double(), reduction="sum"))
            count += int(known.sum())
    return total / count


CASES: list[tuple[Distribution, Callable[..., Sets], int]] = [
    ("categorical", labelled, VOID),
    ("bernoulli", masked, 255),
]
both = pytest.mark.parametrize(("distribution", "make", "ignored"), CASES, ids=["labels", "masks"])


@both
@pytest.mark.parametrize("sureness", [0.4, 1.0, 3.0])
def test_temperature_is_scipys(
    distribution: Distribution, make: Callable[..., Sets], ignored: int, sureness: float
) -> None:
    images = make(sureness)
    result = fit_temperature(stream(images), distribution, ignored)
    reference = minimize_scalar(
        lambda t: log_loss(images, lambda p: temper(p, t, distribution), distribution), bounds=(0.2, 5)
    )
    assert result == pytest.approx(reference.x, rel=1e-3)
    assert result == pytest.approx(sureness, rel=0.15)  # the scale of the logits


def linear_loss(images: Sets, distribution: Distribution, ignored: int) -> Callable[[Tensor], Tensor]:
    """Mean negative log-likelihood as a function of scales and biases, by torch's losses in float64."""
    kept = []
    for maps, target in images:
        p = maps.double().flatten(1)
        if distribution == "categorical":
            known = target.flatten() != ignored
            kept.append((p.log()[:, known], target.flatten()[known].long()))
        else:
            kept.append((torch.logit(p), torch.where(target == ignored, torch.nan, target.double()).flatten(1)))
    scores, ideal = (torch.cat([pair[i] for pair in kept], -1) for i in (0, 1))

    def loss(position: Tensor) -> Tensor:
        scale, bias = position.view(2, -1, 1)
        logits = scores * scale + bias
        if distribution == "categorical":
            return F.cross_entropy(logits.T, ideal)
        known = ideal.isfinite()
        return F.binary_cross_entropy_with_logits(logits[known], ideal[known])

    return loss


@both
def test_derivatives_are_autograds(distribution: Distribution, make: Callable[..., Sets], ignored: int) -> None:
    images = make(1.3)
    loss = linear_loss(images, distribution, ignored)
    position = torch.cat([torch.linspace(0.7, 1.2, K), torch.linspace(-0.3, 0.4, K)]).double()
    result = _measure(stream(images), distribution, ignored, position)
    assert result.loss == pytest.approx(float(loss(position)), rel=1e-5)
    assert torch.allclose(result.gradient, torch.func.grad(loss)(position), atol=1e-5)
    assert torch.allclose(result.hessian, torch.func.hessian(loss)(position), atol=1e-5)
    # One temperature moves all scales together.
    even = torch.cat([torch.full((K,), 0.8), torch.zeros(K)]).double()
    whole = [read_known_pixels(maps, target, distribution, ignored) for maps, target in images]
    sums = torch.tensor([_derivatives(pixels, 0.8) for pixels in whole], dtype=torch.float64).sum(0)
    value, slope, bend = (sums / sum(pixels.size for pixels in whole)).tolist()
    assert value == pytest.approx(float(loss(even)), rel=1e-5)
    assert slope == pytest.approx(float(torch.func.grad(loss)(even)[:K].sum()), abs=1e-5)
    assert bend == pytest.approx(float(torch.func.hessian(loss)(even)[:K, :K].sum()), abs=1e-5)


def test_soft_heat_is_a_valid_target() -> None:
    target = torch.sigmoid(torch.randn(2, 40, 40))
    maps = torch.sigmoid(1.5 * torch.logit(target))
    assert fit_temperature(stream([(maps, target)]), "bernoulli") == pytest.approx(1.5, rel=1e-3)


@both
@pytest.mark.parametrize(("sureness", "bound"), [(20.0, 5.0), (0.05, 0.2)])
def test_a_temperature_at_a_bound_is_reported(
    distribution: Distribution, make: Callable[..., Sets], ignored: int, sureness: float, bound: float
) -> None:
    message: list[str] = []
    result = fit_temperature(stream(make(sureness)), distribution, ignored, message.append)
    assert result == pytest.approx(bound)
    assert len(message) == 1
    assert f"{bound:g} or beyond" in message[0]
    message.clear()
    fit_temperature(stream(make(1.5)), distribution, ignored, message.append)
    assert message == []


@both
def test_without_known_pixels_nothing_changes(
    distribution: Distribution, make: Callable[..., Sets], ignored: int
) -> None:
    blank = [(maps, torch.full_like(target, ignored)) for maps, target in make()]
    assert fit_temperature(stream(blank), distribution, ignored) == 1
    scaling = fit_vector_scaling(stream(blank), distribution, ignored)
    assert (scaling.scales, scaling.biases) == ((1.0,) * K, (0.0,) * K)


def test_probabilities_that_were_rounded_to_one_are_not_certain() -> None:
    logits = torch.where(torch.rand(1, 100, 100) < 0.5, 4.5, -4.5) + 0.3 * torch.randn(1, 100, 100)
    target = (torch.rand(logits.shape) < torch.sigmoid(logits)).to(torch.uint8)
    maps = torch.sigmoid(2 * logits)
    rounded = maps.half().float()
    assert (rounded == 1).any()
    exact = fit_temperature(stream([(maps.clamp(max=0.9997), target)]), "bernoulli")
    assert fit_temperature(stream([(rounded, target)]), "bernoulli") == pytest.approx(exact, rel=0.1)


@both
def test_vector_scaling_is_scipys(distribution: Distribution, make: Callable[..., Sets], ignored: int) -> None:
    images = labelled(2.0, torch.tensor([0.5, -0.5, 0.2, 0.0])) if distribution == "categorical" else make(2.0)
    result = fit_vector_scaling(stream(images), distribution, ignored)
    loss = linear_loss(images, distribution, ignored)
    reference = minimize(
        lambda position: float(loss(torch.tensor(position))), np.repeat([1.0, 0.0], K), method="BFGS",
        jac=lambda position: torch.func.grad(loss)(torch.tensor(position)).numpy(),
    )  # fmt: skip
    fitted_loss = log_loss(images, result.apply, distribution)
    assert fitted_loss == pytest.approx(reference.fun, abs=2e-5)  # the difference is due to the penalty
    warm = Temperature(fit_temperature(stream(images), distribution, ignored), distribution)
    assert fitted_loss <= log_loss(images, warm.apply, distribution)


def test_a_class_without_pixels_keeps_the_temperature() -> None:
    images = [(maps, torch.where(labels == 2, VOID, labels)) for maps, labels in labelled(2.0)]
    temperature = fit_temperature(stream(images), "categorical", VOID)
    result = fit_vector_scaling(stream(images), "categorical", VOID)
    assert result.scales[2] == pytest.approx(1 / temperature)
    assert result.biases[2] == 0
    assert abs(result.biases[1]) > 0
    masks = [(maps, torch.stack([m[0], m[1] * 0, m[2] * 0 + 255, m[3]])) for maps, m in masked(2.0)]
    platt = fit_vector_scaling(stream(masks), "bernoulli")
    assert platt.biases[1:3] == (0, 0)
    assert platt.scales[1] == platt.scales[2] == pytest.approx(1 / fit_temperature(stream(masks), "bernoulli"))


def test_fits_refuse_invalid_input() -> None:
    with pytest.raises(DataError, match=r"label 7 is outside the 4 classes"):
        fit_temperature(stream([(torch.rand(K, 2, 2), torch.full((2, 2), 7))]), "categorical")
    with pytest.raises(UsageError, match="not 'none'"):
        fit_temperature(stream(labelled()), "none")
    with pytest.raises(ValueError, match="different size"):
        fit_temperature(stream([(torch.rand(K, 2, 2), torch.zeros(3, 2))]), "categorical")
    with pytest.raises(DataError, match="no held-out image"):
        fit_vector_scaling(stream([]), "categorical")
    with pytest.raises(DataError, match="no held-out pixel is valid"):
        fit_variance_scaling(stream([(torch.ones(1, 2, 2), torch.ones(1, 2, 2), torch.full((2, 2), torch.nan))]))


def estimates(scale: float, floor: float) -> Sets:
    """Errors whose variance is ``scale`` times the members' variance, plus a floor."""
    result = []
    for height in (60, 35, 80):
        variance = torch.distributions.Gamma(2.0, 1.0).sample((1, height, 40))
        target = 10 + torch.randn(height, 40)
        mean = target[None] + (scale * variance + floor).sqrt() * torch.randn(1, height, 40)
        target[torch.rand(target.shape) < 0.1] = torch.nan
        target[torch.rand(target.shape) < 0.1] = -1.0
        result.append((mean, variance, target))
    return result


@pytest.mark.parametrize(("scale", "floor"), [(0.5, 2.0), (3.0, 0.1), (0.0, 1.0), (2.0, 0.0)])
def test_variance_scaling_is_scipys(scale: float, floor: float) -> None:
    images = estimates(scale, floor)
    result = fit_variance_scaling(stream(images), invalid_below=0.0)
    m, v, t = (torch.cat([image[i].flatten() for image in images]).double() for i in range(3))
    m, v, t = m[t > 0], v[t > 0], t[t > 0]

    def loss(position: np.ndarray[Any, Any]) -> float:
        return float(F.gaussian_nll_loss(m, t, v * abs(position[0]) + abs(position[1]), eps=1e-12))

    reference = minimize(loss, [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    assert loss(np.array([result.scale, result.floor])) == pytest.approx(reference.fun, abs=1e-6)
    assert (result.scale, result.floor) == pytest.approx(tuple(abs(reference.x)), abs=0.02)
    assert (result.scale, result.floor) == pytest.approx((scale, floor), abs=0.3)


def test_an_ensemble_of_one_has_its_mean_squared_error() -> None:
    images = [(mean, torch.zeros_like(variance), target) for mean, variance, target in estimates(1.0, 1.0)]
    result = fit_variance_scaling(stream(images), invalid_below=0.0)
    squares = torch.cat([(mean[0] - target)[target > 0] for mean, _, target in images]).square()
    assert result.apply(torch.zeros(1, 1, 2, 2)) == pytest.approx(torch.full((1, 1, 2, 2), float(squares.mean())))


FITTED = [
    Temperature(1.7, "categorical"),
    Temperature(0.6, "bernoulli"),
    VectorScaling((0.9, 1.1, 2.0), (0.1, -0.2, 0.0), "categorical"),
    VectorScaling((0.9, 1.1, 2.0), (0.1, -0.2, 0.0), "bernoulli"),
    VarianceScaling(2.0, 0.25),
]


@pytest.mark.parametrize("calibration", FITTED, ids=lambda calibration: calibration.describe()["kind"])
def test_a_description_builds_the_same(calibration: Any) -> None:
    assert make_calibration(json.loads(json.dumps(calibration.describe(), allow_nan=False))) == calibration
    maps = torch.softmax(torch.randn(2, 3, 5, 4), 1)
    assert calibration.apply(maps).shape == maps.shape


def test_every_kind_is_described() -> None:
    assert {calibration.describe()["kind"] for calibration in FITTED} == set(CALIBRATIONS)


def test_applied_by_hand() -> None:
    p = torch.tensor([0.6, 0.3, 0.1])
    square_root = Temperature(2.0, "categorical").apply(p.view(1, 3, 1, 1)).flatten()
    assert torch.allclose(square_root, p.sqrt() / p.sqrt().sum())
    scaled = VectorScaling((2.0, 1.0, 1.0), (0.0, float(np.log(3)), 0.0), "categorical").apply(p.view(1, 3, 1, 1))
    raw = torch.tensor([0.36, 0.9, 0.1])
    assert torch.allclose(scaled.flatten(), raw / raw.sum())
    odds = VectorScaling((2.0,), (float(np.log(3)),), "bernoulli").apply(torch.tensor([0.6]).view(1, 1, 1, 1))
    assert float(odds) == pytest.approx(3 * 1.5**2 / (1 + 3 * 1.5**2))
    assert VarianceScaling(2.0, 0.5).apply(torch.tensor([0.0, 1.0])).tolist() == [0.5, 2.5]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"kind": "isotonic"}, ArtifactError),
        ({}, ArtifactError),
        ({"kind": ["temperature"]}, ArtifactError),
        ({"kind": "temperature", "distribution": "categorical"}, ArtifactError),
        ({"kind": "temperature", "value": "hot", "distribution": "categorical"}, ArtifactError),
        ({"kind": "vector", "scales": 1.0, "biases": [0.0], "distribution": "categorical"}, ArtifactError),
        ({"kind": "temperature", "value": 0.0, "distribution": "categorical"}, UsageError),
        ({"kind": "temperature", "value": float("nan"), "distribution": "categorical"}, UsageError),
        ({"kind": "temperature", "value": 1.0, "distribution": "none"}, UsageError),
        ({"kind": "vector", "scales": [1.0], "biases": [], "distribution": "categorical"}, UsageError),
        ({"kind": "vector", "scales": [float("inf")], "biases": [0.0], "distribution": "bernoulli"}, UsageError),
        ({"kind": "variance", "scale": -1.0, "floor": 0.0}, UsageError),
    ],
)
def test_damaged_descriptions_are_refused(values: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make_calibration(values)


def test_maps_of_other_classes_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 classes cannot be applied to 4"):
        FITTED[2].apply(torch.rand(1, 4, 2, 2))
