"""All parts of an ensemble are restored from its file: rules, views, calibration, guarantees."""

import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sampled import sampled
from torch import Tensor

from densemble.ensemble.calibrate import Temperature, VarianceScaling, VectorScaling
from densemble.ensemble.combine import COMBINE, rules_for
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet, RiskControl
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import ArtifactError, UsageError
from densemble.inference.predict import prepared
from densemble.nets.dense import DenseModel
from densemble.storage.artifact import describe, load, metadata, save
from densemble.tasks import DepthTask, MultilabelTask, SaliencyTask, SegmentationTask, Task

TASKS: dict[str, Task] = {
    "saliency": SaliencyTask(),
    "segmentation": SegmentationTask(("a", "b", "c")),
    "multilabel": MultilabelTask(("a", "b")),
    "depth": DepthTask(scale=2.0),
}
PAIRS = [(name, rule) for name, task in TASKS.items() for rule in rules_for(task)]
WEIGHTS = [3.0, 2.0, 1.0]
IMAGES = torch.rand(2, 3, 30, 44, generator=torch.Generator().manual_seed(0))

PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "temperature": ("segmentation", {"calibration": Temperature(1.7, "categorical")}),
    "vector": ("segmentation", {"calibration": VectorScaling((0.5, 1.0, 2.0), (0.1, 0.0, -0.3), "categorical")}),
    "vector of masks": ("multilabel", {"calibration": VectorScaling((0.5, 1.1), (0.1, -0.3), "bernoulli")}),
    "variance": ("depth", {"calibration": VarianceScaling(2.5, 0.125)}),
    "set": ("segmentation", {"guarantee": ConformalSet(0.25, 0.1, 40)}),
    "risk of labels": ("segmentation", {"guarantee": RiskControl(0.3, 0.1, 0.95, 60, "categorical")}),
    "risk of masks": ("multilabel", {"guarantee": RiskControl(0.3, 0.1, 0.95, 60, "bernoulli")}),
    "interval": ("depth", {"guarantee": ConformalInterval(0.75, None, 0.1, 40)}),
    "wide interval": (
        "depth",
        {"calibration": VarianceScaling(2.5, 0.125), "guarantee": ConformalInterval(1.5, 0.05, 0.1, 40)},
    ),
    "temperatures": ("segmentation", {"temperatures": {"one": 0.5, "two": 1.7, "three": 3.1}}),
}


def net(channels: int, seed: int) -> DenseModel:
    torch.manual_seed(seed)
    options = {"cut": "stages.0", "head": "upsample", "weights": None, "input_size": (48, 64)}
    model = DenseModel("resdeconv", out_channels=channels, out_size=(12, 16), **options)
    torch.nn.init.normal_(model.head.logits.weight, std=0.5)
    return model.eval()


@pytest.fixture(scope="module")
def networks() -> dict[int, dict[str, DenseModel]]:
    return {k: {name: net(k, seed) for seed, name in enumerate(("one", "two", "three"))} for k in (1, 2, 3)}


def fit(rule: str, task: Task) -> dict[str, Tensor]:
    """What a rule learns of made-up images."""
    learn = COMBINE[rule].fit
    if learn is None:
        return {}
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(3, task.out_channels, 6, 8, generator=generator)
    if task.distribution == "categorical":
        maps = maps / maps.sum(1, keepdim=True)
    target = torch.rand(task.out_channels, 6, 8, generator=generator)
    targets = {"labels": (target[0] * 3).long(), "masks": (target > 0.5).long()}
    pair = (maps, targets.get(task.target_kind, target[0]))

    def images() -> Iterable[tuple[Tensor, Tensor]]:
        return [pair]

    return learn(images, WEIGHTS, task)


def require_equal(result: Ensemble, expected: Ensemble, tolerance: float = 0.0) -> None:
    """The same in every field of a prediction, and as a module."""
    one, two = result.predict(IMAGES), expected.predict(IMAGES)
    assert one.__dict__.keys() == two.__dict__.keys()
    for name, value in one.__dict__.items():
        other = two.__dict__[name]
        assert (value is None) == (other is None), name
        if value is not None:
            torch.testing.assert_close(value, other, rtol=tolerance, atol=tolerance, msg=lambda t, n=name: f"{n}: {t}")
    with torch.no_grad():
        torch.testing.assert_close(result(IMAGES), expected(IMAGES), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("name", "rule"), sampled(PAIRS, PAIRS[::3]))
def test_every_rule_comes_back_with_what_it_learnt(
    name: str, rule: str, networks: dict[int, dict[str, DenseModel]], tmp_path: Path
) -> None:
    task = TASKS[name]
    ensemble = Ensemble(networks[task.out_channels], WEIGHTS, task, rule, fitted=fit(rule, task)).eval()
    again = load(save(ensemble, tmp_path / "e.safetensors"))
    require_equal(again, ensemble)
    assert again.combine == rule and again.fitted.keys() == ensemble.fitted.keys()
    for key, tensor in ensemble.fitted.items():
        assert torch.equal(again.fitted[key], tensor)
    require_equal(prepared(ensemble), ensemble, tolerance=1e-4)


@pytest.mark.parametrize("part", list(PARTS))
def test_calibration_and_guarantee_come_back(
    part: str, networks: dict[int, dict[str, DenseModel]], tmp_path: Path
) -> None:
    name, options = PARTS[part]
    task = TASKS[name]
    members = networks[task.out_channels]
    ensemble, plain = Ensemble(members, WEIGHTS, task, **options).eval(), Ensemble(members, WEIGHTS, task).eval()
    again = load(save(ensemble, tmp_path / "e.safetensors"))
    require_equal(again, ensemble)
    assert (again.calibration, again.guarantee) == (ensemble.calibration, ensemble.guarantee)
    assert again.temperatures == ensemble.temperatures
    lean = prepared(ensemble)
    assert (lean.calibration, lean.guarantee) == (ensemble.calibration, ensemble.guarantee)
    torch.testing.assert_close(lean(IMAGES), ensemble(IMAGES), rtol=1e-4, atol=1e-5)
    with pytest.raises(AssertionError):
        require_equal(again, plain)


def test_a_view_shares_the_tensors_of_its_network(tmp_path: Path) -> None:
    one, two = net(1, 0), net(1, 1)
    members = {"one": one, "one@hflip": ViewedMember(one, "hflip"), "two@rot90": ViewedMember(two, "rot90")}
    ensemble = Ensemble(members, WEIGHTS).eval()
    path = save(ensemble, tmp_path / "e.safetensors")
    assert {name.split("/")[0] for name in describe(path)["sha256"]} == {"one", "two@rot90"}
    alone = save(Ensemble([one, two]), tmp_path / "plain.safetensors")
    assert path.stat().st_size < alone.stat().st_size * 1.05
    again = load(path)
    require_equal(again, ensemble)
    viewed = again.members["one@hflip"]
    assert isinstance(viewed, ViewedMember) and viewed.member is again.members["one"]
    lean = prepared(again)
    assert lean.members["one@hflip"].member is lean.members["one"]
    require_equal(lean, ensemble, tolerance=1e-4)


def test_a_view_whose_plain_network_has_no_weight_keeps_its_tensors(tmp_path: Path) -> None:
    one = net(1, 0)
    members = {"one": one, "one@vflip": ViewedMember(one, "vflip"), "one@scale125": ViewedMember(one, "scale125")}
    ensemble = Ensemble(members, [0, 1, 1]).eval()
    path = save(ensemble, tmp_path / "e.safetensors")
    assert {name.split("/")[0] for name in describe(path)["sha256"]} == {"one@vflip"}
    require_equal(load(path), ensemble)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same file with other metadata, its checksum right."""
    values = describe(path)
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(values)
    other = path.with_name("other.safetensors")
    save_file(tensors, other, metadata=metadata(values))
    return other


def test_a_file_from_before_there_were_such_parts_loads(
    networks: dict[int, dict[str, DenseModel]], tmp_path: Path
) -> None:
    ensemble = Ensemble(networks[3], WEIGHTS, TASKS["segmentation"]).eval()

    def forget(values: dict[str, Any]) -> None:
        for key in ("calibration", "guarantee", "reading"):
            del values[key]

    require_equal(load(rewritten(save(ensemble, tmp_path / "e.safetensors"), forget)), ensemble)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"calibration": {"kind": "magic"}}, "no calibration is named 'magic'"),
        ({"calibration": {"kind": "temperature"}}, "damaged metadata .calibration.value: Field required"),
        ({"guarantee": {"kind": "magic"}}, "no guarantee is named 'magic'"),
        ({"guarantee": {"kind": "conformal_set"}}, "damaged"),
        ({"combine": "magic"}, "no combination rule is named 'magic'"),
        ({"combine": "stacking"}, "'kernel'"),
    ],
)
def test_parts_that_nobody_knows_are_refused(
    change: dict[str, Any], message: str, networks: dict[int, dict[str, DenseModel]], tmp_path: Path
) -> None:
    ensemble = Ensemble(networks[3], WEIGHTS, TASKS["segmentation"]).eval()
    path = rewritten(save(ensemble, tmp_path / "e.safetensors"), lambda values: values.update(change))
    with pytest.raises(ArtifactError, match=message):
        load(path)


def damaged(path: Path, *members: str) -> Path:
    """One bit turned over in a tensor of each of these members."""
    whole = bytearray(path.read_bytes())
    length = struct.unpack("<Q", whole[:8])[0]
    places = json.loads(whole[8 : 8 + length])
    for member in members:
        name = next(key for key in places if key.startswith(f"{member}/"))
        whole[8 + length + places[name]["data_offsets"][0]] ^= 1
    path.write_bytes(bytes(whole))
    return path


@pytest.mark.parametrize(("name", "rule"), [("depth", "inverse_variance"), ("multilabel", "class_weights")])
def test_a_damaged_member_can_be_done_without(
    name: str, rule: str, networks: dict[int, dict[str, DenseModel]], tmp_path: Path
) -> None:
    task = TASKS[name]
    members, fitted = networks[task.out_channels], fit(rule, task)
    path = save(Ensemble(members, WEIGHTS, task, rule, fitted=fitted), tmp_path / "e.safetensors")
    damaged(path, "two")
    with pytest.raises(ArtifactError, match=r"tensor 'two/.*differs from its checksum"):
        load(path)
    with pytest.warns(UserWarning, match="member 'two' is left out.*differs from its checksum"):
        result = load(path, min_members=2)
    assert result.weights == pytest.approx({"one": 0.75, "three": 0.25}) and result.min_members == 2
    assert list(result.left_out) == ["two"] and "differs from its checksum" in result.left_out["two"]
    others = {key: members[key] for key in ("one", "three")}
    left = {key: tensor[[0, 2]] for key, tensor in fitted.items()}
    require_equal(result, Ensemble(others, [3, 1], task, rule, fitted=left).eval())
    with pytest.warns(UserWarning), pytest.raises(ArtifactError, match=r"2 of 3 members.*at least 3 are needed.*two/"):
        load(path, min_members=3)


def test_a_guarantee_is_not_saved_again_without_a_member(
    networks: dict[int, dict[str, DenseModel]], tmp_path: Path
) -> None:
    guarantee = ConformalSet(0.3, 0.1, 20)
    path = save(Ensemble(networks[3], task=TASKS["segmentation"], guarantee=guarantee), tmp_path / "e.safetensors")
    assert load(path).predict(IMAGES).included is not None
    with pytest.warns(UserWarning, match="member 'two' is left out"):
        rest = load(damaged(path, "two"), min_members=1)
    again = load(save(rest, tmp_path / "rest.safetensors"))
    for ensemble in (rest, again):
        assert ensemble.guarantee is None and ensemble.predict(IMAGES).included is None


def test_what_cannot_be_done_without(networks: dict[int, dict[str, DenseModel]], tmp_path: Path) -> None:
    task = TASKS["segmentation"]
    plain = damaged(save(Ensemble(networks[3], task=task), tmp_path / "e.safetensors"), "one", "two", "three")
    with pytest.warns(UserWarning), pytest.raises(ArtifactError, match="0 of 3 members can be used"):
        load(plain, min_members=1)
    stacked = Ensemble(networks[3], WEIGHTS, task, "stacking", fitted=fit("stacking", task))
    with (
        pytest.warns(UserWarning),
        pytest.raises(ArtifactError, match=r"'stacking' was fitted for all members.*--combine mean"),
    ):
        load(damaged(save(stacked, tmp_path / "s.safetensors"), "one"), min_members=1)
    weighted = Ensemble(networks[3], WEIGHTS, task, "class_weights", fitted=fit("class_weights", task))
    with pytest.raises(ArtifactError, match=r"combine\.fitted/class_weights"):
        load(damaged(save(weighted, tmp_path / "w.safetensors"), "combine.fitted"), min_members=1)
    whole = save(Ensemble(networks[3], task=task), tmp_path / "whole.safetensors")
    with pytest.raises(UsageError, match="min_members = 0"):
        load(whole, min_members=0)
    with pytest.raises(ArtifactError, match="3 of 3 members can be used and at least 4"):
        load(whole, min_members=4)


def test_views_of_a_damaged_network_go_with_it(tmp_path: Path) -> None:
    one, two = net(1, 0), net(1, 1)
    members = {"one": one, "one@hflip": ViewedMember(one, "hflip"), "two": two}
    path = damaged(save(Ensemble(members), tmp_path / "e.safetensors"), "one")
    with pytest.warns(UserWarning) as said:
        result = load(path, min_members=1)
    assert list(result.members) == ["two"] and len(said) == 2
    require_equal(result, Ensemble({"two": two}).eval())
