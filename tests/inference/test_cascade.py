"""Running a cascade against ensembles of the members that ran for each image."""

from dataclasses import fields
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import Temperature, VarianceScaling
from densemble.ensemble.cascade import Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.prediction import Prediction
from densemble.errors import ArtifactError, UsageError
from densemble.inference.cascade_runner import CascadePrediction, predict_cascade
from densemble.nets.dense import DenseModel
from densemble.tasks import RegressionTask, SaliencyTask, SegmentationTask, Task

NAMES = ("a", "b", "c")
TASKS: list[Task] = [SaliencyTask(), SegmentationTask(("x", "y", "z")), RegressionTask(scale=2.0)]


class Counted(DenseModel):
    """A member that remembers how many images it was given each time."""

    batches: list[int]

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return super().forward(images)


@cache
def net(seed: int, channels: int) -> Counted:
    torch.manual_seed(seed)
    model = Counted("squeezenet1_1", out_channels=channels, out_size=(12, 16), weights=None, input_size=(48, 64))
    nn.init.normal_(model.head.logits.weight, std=0.2)  # members that disagree, and are not sure of everything
    model.batches = []
    return model.eval()


def make(task: Task, combine: str = "mean", **arguments: object) -> Ensemble:
    members = {name: net(seed, task.out_channels) for seed, name in enumerate(NAMES)}
    temperatures = {"b": 1.5} if task.distribution != "none" else {}
    return Ensemble(members, [2, 1, 1], task=task, combine=combine, temperatures=temperatures, **arguments).eval()  # type: ignore[arg-type]


def policy(members: str, measure: str = "entropy", threshold: float = 0.0) -> Policy:
    return Policy(tuple(members.split()), measure, threshold, 1.0, 0.5, 1.0, 1.0)


def images(count: int = 6) -> Tensor:
    """From even grey to noise, so that members are surer of some than of others."""
    torch.manual_seed(9)
    return 0.5 + (torch.rand(count, 3, 48, 64) - 0.5) * torch.linspace(0, 1, count).view(-1, 1, 1, 1)


def splitting(ensemble: Ensemble, order: str, measure: str) -> Policy:
    """A policy by which some images stop early and others do not."""
    trial, x = policy(order, measure), images()
    first = 1 if measure == "entropy" else 2
    some = ensemble_of(ensemble, trial.members[:first])
    result = some.predict(x)
    maps = {
        "entropy": some_entropy(result),
        "mutual_information": result.mutual_information,
        "variance": result.variance,
    }
    values = maps[measure]
    assert values is not None
    means = values.flatten(1).mean(1).sort().values
    return policy(order, measure, float((means[2] + means[3]) / 2))


def some_entropy(result: Prediction) -> Tensor | None:
    return result.entropy


def ensemble_of(ensemble: Ensemble, names: tuple[str, ...], calibrated: bool = False) -> Ensemble:
    return Ensemble(
        {name: ensemble.members[name] for name in names},  # type: ignore[misc]
        [ensemble.weights[name] for name in names], task=ensemble.task, combine=ensemble.combine,
        temperatures={name: ensemble.temperatures[name] for name in names},
        calibration=ensemble.calibration if calibrated else None,
    ).eval()  # fmt: skip


def assert_same(got: Prediction, wanted: Prediction) -> None:
    for field in fields(Prediction):
        mine, theirs = getattr(got, field.name), getattr(wanted, field.name)
        assert (mine is None) == (theirs is None), field.name
        if theirs is not None:
            torch.testing.assert_close(
                mine, theirs, atol=1e-6, rtol=1e-5, msg=lambda text, of=field.name: f"{of}: {text}"
            )


def rows(prediction: Prediction, place: int) -> Prediction:
    values = {field.name: getattr(prediction, field.name) for field in fields(Prediction)}
    return Prediction(**{name: None if own is None else own[place : place + 1] for name, own in values.items()})


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("combine", ["mean", "median", "trimmed"])
def test_without_a_threshold_it_is_the_whole_ensemble(task: Task, combine: str) -> None:
    ensemble, x = make(task, combine), images(3)
    got = predict_cascade(ensemble, x, policy("c a b", "variance"), uncertainty=True)
    assert got.used.tolist() == [3, 3, 3]
    assert_same(got.prediction, ensemble.predict_members(x))


@pytest.mark.parametrize(
    ("task", "measure"),
    [(TASKS[0], "entropy"), (TASKS[0], "mutual_information"), (TASKS[1], "entropy"), (TASKS[1], "mutual_information"),
     (TASKS[2], "variance")],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
@pytest.mark.parametrize("combine", ["mean", "median"])
def test_each_image_is_combined_from_the_members_that_ran_on_it(task: Task, measure: str, combine: str) -> None:
    ensemble, x = make(task, combine), images()
    rule = splitting(ensemble, "b c a", measure)
    got = predict_cascade(ensemble, x, rule, uncertainty=True)
    used = got.used.tolist()
    assert len(set(used)) > 1 and max(used) > min(used) >= (1 if measure == "entropy" else 2)
    for place, members in enumerate(used):
        alone = ensemble_of(ensemble, rule.members[:members]).predict_members(x[place : place + 1])
        assert_same(rows(got.prediction, place), alone)


def test_images_stop_at_the_first_certain_member() -> None:
    """Stage by stage, from the ensembles' own entropies."""
    ensemble, x = make(TASKS[1]), images()
    rule = splitting(ensemble, "a b c", "entropy")
    expected = []
    for one in x:
        for stage in (1, 2, 3):
            result = ensemble_of(ensemble, rule.members[:stage]).predict(one).entropy
            assert result is not None
            if float(result.mean()) < rule.threshold:
                break
        expected.append(stage)
    assert predict_cascade(ensemble, x, rule).used.tolist() == expected


def test_members_get_only_the_images_that_go_on_in_dense_batches() -> None:
    ensemble, x = make(TASKS[0]), images()
    rule = splitting(ensemble, "a b c", "entropy")
    for _, member in ensemble.named_members():
        member.batches.clear()  # type: ignore[union-attr]
    used = predict_cascade(ensemble, x, rule).used
    given = [member.batches for _, member in ensemble.named_members()]  # type: ignore[union-attr]
    assert given[0] == [6]
    assert given[1] == [int((used > 1).sum())]
    assert given[2] == ([int((used > 2).sum())] if (used > 2).any() else [])


def test_batches_of_one_size_change_nothing() -> None:
    ensemble, x = make(TASKS[1]), images()
    rule = splitting(ensemble, "a b c", "entropy")
    plain = predict_cascade(ensemble, x, rule, uncertainty=True)
    for _, member in ensemble.named_members():
        member.batches.clear()  # type: ignore[union-attr]
    filled = predict_cascade(ensemble, x, rule, uncertainty=True, batch=4)
    assert filled.used.tolist() == plain.used.tolist()
    assert_same(filled.prediction, plain.prediction)
    given = [size for _, member in ensemble.named_members() for size in member.batches]  # type: ignore[union-attr]
    assert set(given) == {4} and len(given) >= 3


def test_truncation_runs_the_first_members_only() -> None:
    ensemble, x = make(TASKS[2]), images(2)
    got = predict_cascade(ensemble, x, policy("c a", "variance"))
    assert got.used.tolist() == [2, 2]
    torch.testing.assert_close(got.prediction.mean, ensemble_of(ensemble, ("a", "c"))(x))


def test_the_calibration_of_the_whole_is_applied() -> None:
    task = TASKS[1]
    ensemble, x = make(task, calibration=Temperature(2.0, task.distribution)), images(3)
    got = predict_cascade(ensemble, x, policy("a b"), uncertainty=True)
    wanted = ensemble_of(ensemble, ("a", "b"), calibrated=True)
    assert_same(got.prediction, wanted.predict_members(x))
    assert not torch.allclose(got.prediction.mean, ensemble_of(ensemble, ("a", "b"))(x), atol=1e-3)
    values = make(TASKS[2], calibration=VarianceScaling(3.0, 0.5))
    spread = predict_cascade(values, x, policy("a b c", "variance"), uncertainty=True).prediction.spread()
    torch.testing.assert_close(spread, values.predict_members(x).spread(), atol=1e-6, rtol=1e-5)


def test_a_guarantee_holds_for_all_members_only() -> None:
    ensemble, x = make(TASKS[2], guarantee=ConformalInterval(0.5, 0.2, 0.1, 30)), images(2)
    whole = predict_cascade(ensemble, x, policy("c b a", "variance")).prediction
    wanted = ensemble.predict_members(x)
    assert (
        whole.lower is not None
        and wanted.lower is not None
        and wanted.upper is not None
        and wanted.lower.ne(wanted.upper).any()
    )
    torch.testing.assert_close(whole.lower, wanted.lower)
    assert predict_cascade(ensemble, x, policy("c b", "variance")).prediction.lower is None


def test_without_uncertainty_there_are_only_maps() -> None:
    ensemble, x = make(TASKS[1]), images(2)
    got: CascadePrediction = predict_cascade(ensemble, x, policy("a b"))
    assert got.prediction.entropy is None and got.prediction.variance is None
    assert got.prediction.label is not None


def test_invalid_cascades_are_refused() -> None:
    ensemble, x = make(TASKS[0]), images(2)
    with pytest.raises(UsageError, match=r"'gone'.*without a budget"):
        predict_cascade(ensemble, x, policy("a gone"))
    with pytest.raises(UsageError, match="images must be"):
        predict_cascade(ensemble, x[:, :1], policy("a b"))
    with pytest.raises(UsageError, match="images must be"):
        predict_cascade(ensemble, x[:0], policy("a b"))
    x[1] = torch.nan
    with pytest.raises(ArtifactError, match="'b' gives NaN"):
        predict_cascade(ensemble, x, policy("b a"))
