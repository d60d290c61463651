"""Prediction runs in eval mode and restores the mode of every part."""

from collections.abc import Callable

import pytest
import torch
from small_networks import small_dense
from torch import Tensor, nn

import densemble as de
from densemble.ensemble.ensemble import Ensemble
from densemble.nets.modes import eval_mode

IMAGES = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(0))
ROUTES: dict[str, Callable[[Ensemble], Tensor]] = {
    "predict": lambda ensemble: ensemble.predict(IMAGES).mean,
    "predict_members": lambda ensemble: ensemble.predict_members(IMAGES).mean,
    "de.predict": lambda ensemble: torch.stack([p.mean for p in de.predict(ensemble, IMAGES)]),
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_prediction_in_train_mode_is_that_of_eval_mode(route: str) -> None:
    ensemble = Ensemble([small_dense(0), small_dense(1)])
    expected = ROUTES[route](ensemble.eval())
    ensemble.train()
    frozen = next(module for module in ensemble.modules() if isinstance(module, nn.BatchNorm2d)).eval()
    modes = [module.training for module in ensemble.modules()]
    state = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    torch.testing.assert_close(ROUTES[route](ensemble), expected, rtol=0, atol=0)
    assert [module.training for module in ensemble.modules()] == modes and not frozen.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in ensemble.state_dict().items())
    trained = ensemble(IMAGES)
    assert trained.requires_grad and not torch.equal(trained, ROUTES["predict"](ensemble))  # gradients work again


def test_the_mode_is_restored_after_an_error() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2).eval())
    with pytest.raises(KeyError), eval_mode(network):
        assert not network[0].training
        raise KeyError
    assert [module.training for module in network.modules()] == [True, True, False]
