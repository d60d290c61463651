"""An ensemble as nn.Module: hooks of its parts are called, and it exports with a dynamic batch size."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_networks import small_dense
from torch import Tensor, nn
from torch.export import Dim, export

import densemble as de
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.member_views import ViewedMember
from densemble.inference.predict import prepared
from densemble.inference.runtime.fast_ensemble import FastMember

IMAGES = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
ROUTES: dict[str, Callable[[Ensemble], Tensor]] = {
    "forward": lambda ensemble: ensemble(IMAGES),
    "predict": lambda ensemble: ensemble.predict(IMAGES).mean,
    "prepared": lambda ensemble: prepared(ensemble)(IMAGES),
    "de.predict": lambda ensemble: torch.stack([p.mean for p in de.predict(ensemble, IMAGES)]),
}


def test_export_with_a_dynamic_batch() -> None:
    ensemble = Ensemble([small_dense(seed, out_channels=3) for seed in (0, 1)], [2, 1], min_members=1).eval()
    program = export(ensemble, (IMAGES,), dynamic_shapes={"images": {0: Dim("batch", min=1)}}).module()
    for count in (1, 2, 5):
        images = torch.rand(count, 3, 48, 64)
        with torch.no_grad():
            torch.testing.assert_close(program(images), ensemble(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize("route", ROUTES)
def test_hooks_of_members_heads_and_backbones_are_called_and_can_change_the_maps(route: str) -> None:
    viewed = small_dense(1)
    ensemble = Ensemble(
        {"plain": small_dense(0), "viewed": ViewedMember(viewed, "hflip"), "other": small_dense(2)}
    ).eval()
    before = ROUTES[route](ensemble)
    calls: list[str] = []
    hooked = {"viewed": ensemble.members["viewed"], "inner": viewed, "head": viewed.head, "backbone": viewed.backbone}
    for name, module in hooked.items():

        def note(module: nn.Module, args: Any, output: Any, name: str = name) -> None:
            calls.append(name)

        module.register_forward_hook(note)
    unchanged = ROUTES[route](ensemble)
    torch.testing.assert_close(unchanged, before, rtol=0, atol=1e-5)
    times = 2 if route == "de.predict" else 1  # image by image
    assert calls == ["backbone", "head", "inner", "viewed"] * times
    viewed.head.register_forward_hook(lambda module, args, output: output + 5)
    assert (ROUTES[route](ensemble) > before + 0.05).all()


def test_members_without_hooks_still_run_fast(caplog: pytest.LogCaptureFixture) -> None:
    ensemble = Ensemble({"plain": small_dense(0), "hooked": small_dense(1)}).train()
    ensemble.members["hooked"].register_forward_pre_hook(lambda module, args: None)
    with caplog.at_level("INFO", "densemble"):
        lean = prepared(ensemble)
    assert isinstance(lean.members["plain"], FastMember) and lean.members["hooked"] is ensemble.members["hooked"]
    assert caplog.messages == ["hooked: runs unchanged, because it has forward hooks"]
    assert all(module.training for module in ensemble.modules())
    torch.testing.assert_close(lean.predict(IMAGES).mean, ensemble.predict(IMAGES).mean, rtol=0, atol=1e-5)
