"""Risk-coverage figures against scikit-learn, and against sorting all pixels."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from densemble.metrics import relative_bins
from densemble.metrics.selective import RiskCoverage

ALL = torch.tensor(True)


def pixels(number: int, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    """Uncertainties over many magnitudes, and errors that are more likely where it is large."""
    uncertainty = torch.exp(spread * torch.randn(number))
    return uncertainty, (torch.rand(number) < uncertainty / (uncertainty + 3)).float()


def accumulated(uncertainty: Tensor, error: Tensor, images: int = 1) -> RiskCoverage:
    metric = RiskCoverage()
    for u, e in zip(uncertainty.chunk(images), error.chunk(images), strict=True):
        metric.update(u, e, torch.ones_like(u, dtype=torch.bool))
    return metric


def sorted_risks(uncertainty: Tensor, error: Tensor) -> np.ndarray:
    """Mean error of the i most certain pixels, for every i."""
    errors = error[uncertainty.argsort(stable=True)].double().numpy()
    return errors.cumsum() / np.arange(1, len(errors) + 1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_all_figures_agree_with_sorting_all_pixels(scale: float) -> None:
    uncertainty, error = pixels(40_000)
    result = accumulated(scale * uncertainty, error, images=7).compute()
    risks = sorted_risks(uncertainty, error)
    best = sorted_risks(error, error)
    # 0.1 % wide bins order neighbours at random, which moves an area by less than their share of the pixels.
    assert result["risk"] == pytest.approx(error.mean().item())
    assert result["aurc"] == pytest.approx(risks.mean(), abs=1e-4)
    assert result["excess_aurc"] == pytest.approx(risks.mean() - best.mean(), abs=1e-4)
    assert result["error_auroc"] == pytest.approx(roc_auc_score(error, uncertainty), abs=1e-4)
    curve = accumulated(uncertainty, error).curve()
    assert [coverage for coverage, _ in curve][:3] == [0.01, 0.05, 0.1] and curve[-1][0] == 1
    for coverage, risk in curve:
        assert risk == pytest.approx(risks[round(coverage * 40_000) - 1], abs=2e-3)
    assert curve[0][1] < curve[10][1] < curve[-1][1] == pytest.approx(error.mean().item())


def test_ties_are_counted_as_the_mean_over_all_orders() -> None:
    uncertainty = torch.randint(0, 4, (3_000,)).float()  # 0 is one of the values
    error = (torch.rand(3_000) < 0.1 + 0.2 * uncertainty).float()
    result = accumulated(uncertainty, error).compute()
    assert result["error_auroc"] == pytest.approx(roc_auc_score(error, uncertainty), abs=1e-12)
    orders = [torch.randperm(3_000) for _ in range(400)]
    areas = [sorted_risks(uncertainty[order], error[order]).mean() for order in orders]
    assert result["aurc"] == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / 20)


def test_by_hand() -> None:
    uncertainty, error = torch.tensor([[0.1, 0.2, 0.3, 0.4]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    metric = RiskCoverage()
    metric.update(uncertainty, error, torch.tensor([[True, True, True, False]]))  # the last one is not counted
    assert metric.curve((0.5, 1.0)) == [(0.5, pytest.approx(0.5 / 1.5)), (1.0, pytest.approx(1 / 3))]
    assert metric.compute() == {
        "risk": pytest.approx(1 / 3),
        "aurc": pytest.approx((0 + 1 / 2 + 1 / 3) / 3),
        "excess_aurc": pytest.approx((1 / 2 + 1 / 3) / 3 - (1 / 3) / 3),
        "error_auroc": pytest.approx(0.5),
    }


def test_a_perfect_order_leaves_no_excess_and_a_useless_one_the_risk() -> None:
    _, error = pixels(5_000)
    perfect = accumulated(error + 0.5, error).compute()
    assert perfect["excess_aurc"] == pytest.approx(0, abs=1e-12) and perfect["error_auroc"] == 1
    useless = accumulated(torch.ones(5_000), error).compute()
    assert useless["aurc"] == pytest.approx(error.mean().item()) and useless["error_auroc"] == 0.5


def test_absolute_errors_have_an_area_but_no_detection() -> None:
    uncertainty, _ = pixels(20_000)
    error = uncertainty * torch.rand(20_000)
    result = accumulated(uncertainty, error).compute()
    assert result["aurc"] == pytest.approx(sorted_risks(uncertainty, error).mean(), rel=1e-3)
    assert result["excess_aurc"] is result["error_auroc"] is None


def test_nothing_valid_or_nothing_wrong() -> None:
    assert RiskCoverage().curve() == []
    assert set(RiskCoverage().compute().values()) == {None}
    result = accumulated(torch.rand(50), torch.zeros(50)).compute()
    assert result == {"risk": 0, "aurc": 0, "excess_aurc": 0, "error_auroc": None}


@pytest.mark.parametrize("bad", [-1e-9, float("nan")])
def test_what_is_no_uncertainty_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="negative"):
        RiskCoverage().update(torch.tensor([bad]), torch.zeros(1), torch.ones(1, dtype=torch.bool))


def test_bins_hold_their_edges_and_are_a_thousandth_wide() -> None:
    values = torch.cat([torch.tensor([0.0, -0.0, 1.0, torch.inf]), 10 ** torch.empty(2_000).uniform_(-37, 38)])
    for value, number in zip(values.tolist(), relative_bins.bin_index(values).tolist(), strict=True):
        low, high = relative_bins.lowest(number), relative_bins.highest(number)
        assert low <= value <= high <= low * (1 + 2**-10) or (low == 0 and value == 0)
        assert relative_bins.bin_index(torch.tensor([low, high])).tolist() == [number, number]
