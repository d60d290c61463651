"""Defaults: the levels of guarantees, and class weights near their initial values."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from densemble.ensemble.combine import COMBINE
from densemble.ensemble.guarantee import fit_interval, fit_risk_control, fit_set
from densemble.tasks import MultilabelTask, RegressionTask, SegmentationTask

IMAGES = 60


def labelled() -> Iterator[tuple[Tensor, Tensor]]:
    for seed in range(IMAGES):
        random = torch.Generator().manual_seed(seed)
        p = torch.softmax(2 * torch.randn(3, 6, 8, generator=random), 0)
        yield p, torch.multinomial(p.flatten(1).T, 1, generator=random).view(6, 8).to(torch.uint8)


def masked() -> Iterator[tuple[Tensor, Tensor]]:
    for p, _ in labelled():
        yield p, (p > 0.3).to(torch.uint8)


def valued() -> Iterator[tuple[Tensor, Tensor]]:
    for p, _ in labelled():
        yield p[:1], p[0] + 0.1 * p[1]


def test_the_default_level_of_guarantees_is_90_percent() -> None:
    assert fit_set(labelled, SegmentationTask(("a", "b", "c"))).miscoverage == 0.1
    assert fit_interval(valued, RegressionTask()).miscoverage == 0.1
    control = fit_risk_control(masked, MultilabelTask(("a", "b", "c")))
    assert (control.risk, control.confidence) == (0.1, 0.95)


def test_class_weights_equal_scipys_penalized_fit() -> None:
    """The reference is the penalised log-loss in float64, with a pull of 1e-3."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(3, 12, 16))
    members = np.stack([logits * 2, logits * 0.3 + 0.3 * random.normal(size=logits.shape)])
    p = np.exp(members) / np.exp(members).sum(1, keepdims=True)
    labels = (p[0].cumsum(0) < random.random((12, 16))).sum(0).clip(max=2)
    start = np.repeat(np.log([2 / 3, 1 / 3])[:, None], 3, 1)

    def loss(flat: np.ndarray) -> float:
        logarithms = flat.reshape(2, 3)
        w = np.exp(logarithms) / np.exp(logarithms).sum(0)
        mixed = np.einsum("mkhw,mk->khw", p, w)
        true = np.take_along_axis(mixed / mixed.sum(0), labels[None], 0)
        return float(-np.log(true).mean() + 1e-3 * np.square(logarithms - start).sum())

    expected = minimize(loss, start.ravel(), method="BFGS").x.reshape(2, 3)
    expected = np.exp(expected) / np.exp(expected).sum(0)
    learn = COMBINE["class_weights"].fit
    assert learn is not None
    maps, target = torch.from_numpy(p).float(), torch.from_numpy(labels.astype(np.uint8))
    result = learn(lambda: iter([(maps, target)]), [2.0, 1.0], SegmentationTask(("a", "b", "c")))["class_weights"]
    assert result.numpy() == pytest.approx(expected, abs=0.01)
