"""The state of an ensemble is restored completely, or an error says what is wrong."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import small_dense
from torch import Tensor, nn

from densemble.ensemble.calibrate import Temperature, VarianceScaling
from densemble.ensemble.cascade import Cascade, Check, Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import UsageError
from densemble.tasks import RegressionTask, SegmentationTask

IMAGES = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
POLICY = Policy(("b",), "entropy", 0.25, 0.5, 0.6, None, None)
CASCADE = Cascade("miou", True, 9, 0.7, {"a": 0.5, "b": 0.5}, (POLICY,), (Check("budget", 0.5, 0.4, 0.9),))
CLASS_WEIGHTS = torch.rand(2, 3, generator=torch.Generator().manual_seed(1))
SEGMENTATION: dict[str, Any] = {
    "weights": [3, 1], "task": SegmentationTask(("x", "y", "z")), "combine": "class_weights",
    "fitted": {"class_weights": CLASS_WEIGHTS}, "temperatures": {"a": 1.7}, "min_members": 1,
    "calibration": Temperature(0.6, "categorical"), "guarantee": ConformalSet(0.3, 0.1, 20), "cascade": CASCADE,
    "metrics": {"miou": float("nan")}, "reading": {"image_range": (0, 4095)},
}  # fmt: skip
DEPTH: dict[str, Any] = {
    "weights": [1, 2], "task": RegressionTask(scale=2.0), "combine": "median", "calibration": VarianceScaling(2.0, 0.1),
    "guarantee": ConformalInterval(1.5, 0.2, 0.1, 20),
}  # fmt: skip


def make(seed: int, channels: int = 3, names: str = "ab", **options: Any) -> Ensemble:
    members = {name: small_dense(seed + number, out_channels=channels) for number, name in enumerate(names)}
    for member in members.values():
        nn.init.normal_(member.head.logits.weight, std=2.0)
    return Ensemble(members, **options).eval()


@pytest.mark.parametrize("file", ["torch", "safetensors"])
@pytest.mark.parametrize(("channels", "options"), [(3, SEGMENTATION), (1, DEPTH)])
def test_a_new_ensemble_becomes_the_saved_one(
    channels: int, options: dict[str, Any], file: str, tmp_path: Path
) -> None:
    saved, fresh = make(0, channels, **options), make(5, channels, **({} if channels == 1 else {"task": "multilabel"}))
    handle = fresh.register_forward_hook(lambda *_: None)
    if file == "torch":
        torch.save(saved.state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
    else:
        save_file({name: tensor.clone() for name, tensor in saved.state_dict().items()}, tmp_path / "state.safetensors")
        state = load_file(tmp_path / "state.safetensors")
    assert str(fresh.load_state_dict(state)) == "<All keys matched successfully>"
    assert (fresh.weights, fresh.temperatures) == (saved.weights, saved.temperatures)
    assert (fresh.combine, fresh.task, fresh.calibration) == (saved.combine, saved.task, saved.calibration)
    assert (fresh.guarantee, fresh.cascade) == (saved.guarantee, saved.cascade)
    assert (fresh.reading, fresh.min_members) == (saved.reading, saved.min_members)
    result, expected = fresh.predict(IMAGES), saved.predict(IMAGES)
    assert torch.equal(result.mean, expected.mean) and torch.equal(result.spread(), expected.spread())
    for ours, theirs in ((result.included, expected.included), (result.upper, expected.upper)):
        assert (ours is None) == (theirs is None) and (ours is None or torch.equal(ours, theirs))  # type: ignore[arg-type]
    assert handle.id in fresh._forward_hooks and not fresh.training


def test_the_state_holds_tensors_only_also_inside_another_module() -> None:
    saved, outer = make(0, **SEGMENTATION), nn.ModuleDict({"inside": make(5)})
    assert all(isinstance(value, Tensor) for value in saved.state_dict().values())
    outer.load_state_dict(nn.ModuleDict({"inside": saved}).state_dict())
    assert torch.equal(outer["inside"](IMAGES), saved(IMAGES))
    assert torch.equal(copy.deepcopy(saved)(IMAGES), saved(IMAGES))


def test_members_in_another_order_keep_their_weights() -> None:
    saved = make(0, **SEGMENTATION)
    fresh = make(5, names="ba", task="segmentation")
    fresh.load_state_dict(saved.state_dict())
    torch.testing.assert_close(fresh(IMAGES), saved(IMAGES), rtol=0, atol=0)


def test_a_state_of_an_older_version_needs_strict_false() -> None:
    saved, fresh = make(0, weights=[3, 1]), make(5, weights=[1, 4])
    older = {name: tensor for name, tensor in saved.state_dict().items() if name != "_extra_state"}
    with pytest.raises(UsageError, match=r"of an older version.*strict=False to keep those of this ensemble"):
        fresh.load_state_dict(older)
    with pytest.raises(RuntimeError, match=r"inside\._extra_state"):
        nn.ModuleDict({"inside": fresh}).load_state_dict({f"inside.{key}": tensor for key, tensor in older.items()})
    fresh.load_state_dict(older, strict=False)
    assert fresh.weights == {"a": 0.2, "b": 0.8}
    assert all(torch.equal(tensor, older[name]) for name, tensor in fresh.members.state_dict(prefix="members.").items())


def test_a_state_of_other_members_is_refused_before_anything_is_loaded() -> None:
    saved = make(0, weights=[3, 1])
    member = small_dense(5, out_channels=3)
    others: dict[str, tuple[Ensemble, str]] = {
        "names": (make(5, names="ac"), "ensemble of a, b, this one has a, c"),
        "number": (make(5, names="abc"), "ensemble of a, b, this one has a, b, c"),
        "size": (Ensemble({"a": member, "b": small_dense(6, out_channels=3, input_size=None)}), "'b' .* input_size"),
        "view": (Ensemble({"a": member, "b": ViewedMember(member, "hflip")}), "'b' .* view = None, this one hflip"),
        "channels": (make(5, 2), "out_channels = 3, this one 2"),
    }
    for fresh, message in others.values():
        before = copy.deepcopy(fresh.state_dict())
        with pytest.raises(UsageError, match=message):
            fresh.load_state_dict(saved.state_dict())
        assert all(torch.equal(tensor, before[name]) for name, tensor in fresh.state_dict().items())


@pytest.mark.parametrize(
    "broken",
    [lambda state: state.half(), lambda state: state[:-3], lambda state: {"weights": 1}, lambda state: state + 1],
)
def test_a_changed_state_is_refused(broken: Any) -> None:
    state = make(0).state_dict()
    state["_extra_state"] = broken(state["_extra_state"])
    with pytest.raises(UsageError, match="extra state of the ensemble cannot be read"):
        make(5).load_state_dict(state)


def test_a_state_of_a_wrapped_ensemble_names_its_prefix() -> None:
    ensemble = Ensemble([small_dense()])
    with pytest.raises(UsageError, match=r"begin with 'module\.'.*remove the prefix"):
        Ensemble([small_dense()]).load_state_dict(nn.DataParallel(ensemble).state_dict())
