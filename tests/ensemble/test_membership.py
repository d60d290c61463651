"""A member with an unusable map: an error that names it, or the ensemble of the other members."""

import copy

import pytest
import torch
from ensemble.combining import combine
from small_networks import small_dense
from torch import Tensor

from densemble.ensemble.combine import COMBINE, rules_for
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.prediction import MAPS
from densemble.errors import ArtifactError, UsageError
from densemble.nets.dense import DenseModel
from densemble.tasks import RegressionTask, SaliencyTask, SegmentationTask, Task

TASKS: dict[str, Task] = {
    "saliency": SaliencyTask(),
    "segmentation": SegmentationTask(("a", "b", "c")),
    "regression": RegressionTask(),
}
PAIRS = [(name, rule) for name, task in TASKS.items() for rule in rules_for(task)]
WEIGHTS = {"one": 3.0, "two": 2.0, "three": 1.0}
IMAGES = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


def net(seed: int, channels: int) -> DenseModel:
    model = small_dense(seed, out_channels=channels)
    torch.nn.init.normal_(model.head.logits.weight, std=2.0)
    return model.eval()


@pytest.fixture(scope="module")
def networks() -> dict[int, dict[str, DenseModel]]:
    return {channels: {name: net(seed, channels) for seed, name in enumerate(WEIGHTS)} for channels in (1, 3)}


def damaged(network: DenseModel, value: float = torch.nan) -> DenseModel:
    """The same network with one weight of its head set to NaN or infinity."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.logits.bias[0] = value
    return other.eval()


def fitted_parameters(rule: str, task: Task, members: int) -> dict[str, Tensor]:
    fit = COMBINE[rule].fit
    if fit is None:
        return {}
    generator = torch.Generator().manual_seed(1)
    maps = torch.rand(members, task.out_channels, 6, 8, generator=generator)
    maps = maps / maps.sum(1, keepdim=True) if task.distribution == "categorical" else maps
    target = torch.rand(6, 8, generator=generator)
    labels = (target * 3).long() if task.target_kind == "labels" else target
    return fit(lambda: [(maps, labels)], list(WEIGHTS.values())[:members], task)


def build(members: dict[str, DenseModel], task: Task, rule: str = "mean", least: int | None = None) -> Ensemble:
    weights = [WEIGHTS[name] for name in members]
    return Ensemble(members, weights, task, rule, fitted=fitted_parameters(rule, task, 3), min_members=least).eval()


def test_by_default_an_unusable_member_is_an_error(networks: dict[int, dict[str, DenseModel]]) -> None:
    task, members = TASKS["segmentation"], networks[3]
    for value in (torch.nan, torch.inf, -torch.inf):
        ensemble = build({**members, "two": damaged(members["two"], value)}, task)
        for run in (ensemble, ensemble.predict):
            with pytest.raises(ArtifactError, match=r"'two' gives NaN or infinity.*2 usable of 3.*all are needed"):
                run(IMAGES)


@pytest.mark.parametrize(("name", "rule"), PAIRS)
@pytest.mark.parametrize("left_out", ["one", "three"])
def test_the_prediction_equals_that_of_the_other_members(
    name: str, rule: str, left_out: str, networks: dict[int, dict[str, DenseModel]]
) -> None:
    task = TASKS[name]
    members = networks[task.out_channels]
    ensemble = build({**members, left_out: damaged(members[left_out])}, task, rule, least=2)
    if COMBINE[rule].needs_all:
        with pytest.raises(ArtifactError, match=f"'{left_out}'.*'{rule}' was fitted for all members"):
            ensemble(IMAGES)
        return
    others = {key: member for key, member in members.items() if key != left_out}
    indices = [list(members).index(key) for key in others]
    fitted = {key: value[indices] for key, value in fitted_parameters(rule, task, 3).items()}
    reference = Ensemble(others, [WEIGHTS[key] for key in others], task, rule, fitted=fitted).eval()
    with pytest.warns(UserWarning, match=f"'{left_out}' gives NaN or infinity: left out of this prediction"):
        result = ensemble.predict(IMAGES)
    expected = reference.predict(IMAGES)
    for name in MAPS:
        torch.testing.assert_close(
            getattr(result, name), getattr(expected, name), msg=lambda text, at=name: f"{at}: {text}"
        )
    assert result.left_out == ({left_out: "gives NaN or infinity"},) * 2 and expected.left_out is None
    with pytest.warns(UserWarning), torch.no_grad():
        torch.testing.assert_close(ensemble(IMAGES), result.mean, rtol=0, atol=0)
        stacked = torch.stack([task.activation(member(IMAGES)) for member in others.values()])
    torch.testing.assert_close(result.mean, combine(stacked, [WEIGHTS[key] for key in others], rule, task, fitted))


def test_fewer_than_min_members_is_an_error(networks: dict[int, dict[str, DenseModel]]) -> None:
    task, members = TASKS["saliency"], networks[1]
    two_bad = {"one": damaged(members["one"]), "two": members["two"], "three": damaged(members["three"])}
    with pytest.warns(UserWarning), pytest.raises(ArtifactError, match=r"'three'.*1 usable of 3.*at least 2"):
        build(two_bad, task, least=2)(IMAGES)
    with pytest.warns(UserWarning):
        torch.testing.assert_close(build(two_bad, task, least=1)(IMAGES), torch.sigmoid(members["two"](IMAGES)))
    none_good = {name: damaged(network) for name, network in members.items()}
    with pytest.warns(UserWarning), pytest.raises(ArtifactError, match="0 usable of 3"):
        build(none_good, task, least=1)(IMAGES)
    with pytest.raises(ArtifactError, match="at least 3"):
        build({**members, "one": damaged(members["one"])}, task, least=3)(IMAGES)
    for least in (0, -1, 4):
        with pytest.raises(UsageError, match=f"min_members = {least} of 3 members; give 1 to 3"):
            build(members, task, least=least)


def test_a_map_of_a_wrong_shape_is_unusable(
    networks: dict[int, dict[str, DenseModel]], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = networks[1]
    members = {"one": good["one"], "two": damaged(good["two"], 0.0)}
    given = members["two"].forward
    monkeypatch.setattr(members["two"], "forward", lambda images: given(images)[:, 0])
    with pytest.raises(ArtifactError, match=r"'two' gives a map of shape \(2, \d+, \d+\) instead of \(2, 1, h, w\)"):
        build(members, TASKS["saliency"])(IMAGES)
    with pytest.warns(UserWarning):
        torch.testing.assert_close(
            build(members, TASKS["saliency"], least=1)(IMAGES), torch.sigmoid(good["one"](IMAGES))
        )


def test_replacing_networks_keeps_everything_else(networks: dict[int, dict[str, DenseModel]]) -> None:
    good = networks[3]
    ensemble = build(good, TASKS["segmentation"], "class_weights", least=2)
    again = ensemble.with_members({name: damaged(network, 0.0) for name, network in good.items()}).eval()
    assert (again.weights, again.min_members) == (ensemble.weights, 2)
    back = again.with_members(good).eval()
    torch.testing.assert_close(back(IMAGES), ensemble(IMAGES), rtol=0, atol=0)
