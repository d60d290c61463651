"""Computations of the ensemble against stacked references and identities."""

import numpy as np
import pytest
import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.input_images import as_images
from densemble.ensemble.uncertainty import RunningUncertainty, entropy
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.tasks import RegressionTask, SaliencyTask, SegmentationTask, Task


def net(seed: int, channels: int = 1, out_size: tuple[int, int] | None = (12, 16)) -> DenseModel:
    torch.manual_seed(seed)
    model = DenseModel("squeezenet1_1", out_channels=channels, out_size=out_size, weights=None, input_size=(48, 64))
    torch.nn.init.normal_(model.head.logits.weight, std=2.0)  # members that disagree
    return model.eval()


def stacked(members: list[DenseModel], task: Task, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.stack([task.activation(member(x)) for member in members])


TASKS: list[Task] = [SaliencyTask(), SegmentationTask(("a", "b", "c")), RegressionTask(scale=2.0)]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_prediction_equals_its_definitions(task: Task) -> None:
    members = [net(seed, task.out_channels) for seed in range(3)]
    weights = torch.tensor([2.0, 1.0, 1.0]) / 4
    x = torch.rand(2, 3, 48, 64)
    p = stacked(members, task, x).double()
    mean = (weights.view(3, 1, 1, 1, 1) * p).sum(0)
    got = Ensemble(members, [2, 1, 1], task=task).eval().predict(x)
    torch.testing.assert_close(got.mean.double(), mean, atol=1e-6, rtol=1e-5)
    variance = (weights.view(3, 1, 1, 1, 1) * (p - mean) ** 2).sum(0)
    torch.testing.assert_close(got.variance.double(), variance, atol=1e-6, rtol=1e-4)
    if task.distribution == "none":
        assert got.entropy is None and got.mutual_information is None and got.label is None
        return
    if task.distribution == "categorical":
        h = lambda q: -torch.xlogy(q, q).sum(-3)  # noqa: E731
        assert got.label is not None and torch.equal(got.label, mean.argmax(1))
    else:
        h = lambda q: -(torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q)).mean(-3)  # noqa: E731
    expected = (weights.view(3, 1, 1, 1) * h(p)).sum(0)
    assert got.entropy is not None and got.mutual_information is not None
    torch.testing.assert_close(got.entropy.double(), h(mean), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.mutual_information.double(), h(mean) - expected, atol=1e-5, rtol=1e-4)
    assert (got.mutual_information >= 0).all() and got.mutual_information.max() > 1e-3


def test_an_ensemble_of_one_is_its_member() -> None:
    member, x = net(0), torch.rand(2, 3, 48, 64)
    with torch.no_grad():
        assert torch.equal(Ensemble([member]).eval()(x), torch.sigmoid(member(x)))
    prediction = Ensemble([member]).eval().predict(x)
    assert prediction.variance.max() == 0
    assert prediction.mutual_information is not None and prediction.mutual_information.max() < 1e-6


def test_order_and_scale_of_weights_do_not_matter() -> None:
    a, b, x = net(0), net(1), torch.rand(1, 3, 48, 64)
    one = Ensemble({"a": a, "b": b}, [3, 1]).eval()
    two = Ensemble({"b": b, "a": a}, [0.25, 0.75]).eval()
    torch.testing.assert_close(one(x), two(x), atol=1e-6, rtol=1e-6)


def test_a_member_of_weight_zero_is_neither_kept_nor_run() -> None:
    def explode(*args: object) -> None:
        raise AssertionError("the member was run")

    left_out = net(1)
    left_out.register_forward_pre_hook(explode)
    ensemble = Ensemble({"a": net(0), "b": left_out}, [1, 0]).eval()
    assert list(ensemble.members) == ["a"]
    assert not any("b." in name for name in ensemble.state_dict())
    ensemble(torch.rand(1, 3, 48, 64))


def test_is_a_plain_module() -> None:
    ensemble = Ensemble([net(0), net(1)])
    x = torch.rand(1, 3, 48, 64)
    before = ensemble.eval()(x)
    other = Ensemble([net(5), net(6)]).eval()
    assert not torch.allclose(other(x), before)
    other.load_state_dict(ensemble.state_dict())
    assert torch.equal(other(x), before)
    assert not ensemble.training and all(not m.training for m in ensemble.modules())


def test_members_with_other_map_sizes_are_resized_to_the_first() -> None:
    ensemble = Ensemble([net(0), net(1, out_size=(7, 9)), net(2, out_size=None)]).eval()
    assert ensemble(torch.rand(1, 3, 30, 44)).shape == (1, 1, 12, 16)


@pytest.mark.parametrize(
    ("weights", "word"), [([1], "1 weights"), ([1, -1], ">= 0"), ([0, 0], "not all 0"), ([1, float("nan")], "finite")]
)
def test_wrong_weights_are_refused(weights: list[float], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Ensemble([net(0), net(1)], weights)


def test_unequal_channels_are_refused() -> None:
    with pytest.raises(UsageError, match="channels"):
        Ensemble([net(0, 1), net(1, 2)])


def test_images_in_every_form_are_the_same_images() -> None:
    array = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    expected = torch.from_numpy(array).permute(0, 3, 1, 2).float() / 255
    for form in (array, expected, (array / 255).astype(np.float32), torch.from_numpy(array).permute(0, 3, 1, 2)):
        torch.testing.assert_close(as_images(form), expected)
    torch.testing.assert_close(as_images(array[0]), expected[:1])


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (np.zeros((4, 4)), r"\(H, W, 3\)"),
        (np.zeros((4, 4, 4)), "RGB"),
        (torch.zeros(1, 1, 4, 4), "RGB"),
        (torch.full((3, 4, 4), 200.0), "divide by 255"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "uint8"),
        (torch.full((3, 4, 4), float("nan")), r"\[0, 1\]"),
    ],
)
def test_wrong_images_are_refused(bad: object, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        as_images(bad)  # type: ignore[arg-type]


def test_a_batch_of_another_range_is_refused() -> None:
    ensemble, x = Ensemble([net(0)]).eval(), torch.rand(1, 3, 48, 64)
    (member,) = ensemble.members.values()
    assert torch.equal(ensemble(x * 1.1 - 0.05), member(x * 1.1 - 0.05).sigmoid())
    with pytest.raises(UsageError, match=r"got values from .* to 2\d\d.*; divide by 255"):
        ensemble(x * 255)
    with pytest.raises(UsageError, match="leave out Normalize"):
        ensemble((x - 0.45) / 0.225)


def test_entropy_is_zero_when_sure_and_largest_when_not() -> None:
    certain = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    even = torch.full((1, 3, 1, 1), 1 / 3)
    assert entropy(certain, "categorical").item() == pytest.approx(0, abs=1e-6)
    assert entropy(even, "categorical").item() == pytest.approx(np.log(3), abs=1e-6)
    assert entropy(torch.full((1, 1, 1, 1), 0.5), "bernoulli").item() == pytest.approx(np.log(2), abs=1e-6)


def test_variance_survives_a_large_mean() -> None:
    running = RunningUncertainty("none")
    for value in (10_000.0, 10_001.0, 10_002.0):
        running.add(torch.full((1, 1, 1, 1), value), 1.0)
    assert running.variance().item() == pytest.approx(2 / 3, rel=1e-3)


def test_a_task_can_be_given_by_name() -> None:
    ensemble = Ensemble([net(0, 3)], task="segmentation")
    assert ensemble.task == SegmentationTask(("0", "1", "2"))
    with pytest.raises(UsageError, match="'seg'"):
        Ensemble([net(0)], task="seg")
