"""Arguments of Ensemble: usual forms work, other forms raise an error that names the valid ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import SMALL, small_dense
from torch import nn

import densemble as de
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.storage.artifact import load, save
from densemble.tasks import SegmentationTask

IMAGES = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
A, B = small_dense(0).eval(), small_dense(1).eval()
NAMED = {"a": A, "b": B}


def test_weights_and_temperatures_by_name_and_in_a_row() -> None:
    expected = (3 * torch.sigmoid(A(IMAGES) / 2) + torch.sigmoid(B(IMAGES))) / 4
    for weights in ([3, 1], {"b": 1, "a": 3}, torch.tensor([3.0, 1.0]), (3.0, 1.0)):
        for temperatures in ([2, 1], {"a": 2.0}, torch.tensor([2, 1])):
            ensemble = Ensemble(NAMED, weights, temperatures=temperatures).eval()  # type: ignore[arg-type]
            torch.testing.assert_close(ensemble(IMAGES), expected, rtol=0, atol=1e-6)


def test_members_in_every_container() -> None:
    expected = Ensemble([A, B]).eval()(IMAGES)
    for members in (
        (A, B),
        (member for member in (A, B)),
        nn.ModuleList([A, B]),
        nn.ModuleDict(NAMED),
        Ensemble([A, B]).members,
    ):
        assert torch.equal(Ensemble(members).eval()(IMAGES), expected)  # type: ignore[arg-type]
    assert torch.equal(Ensemble(A).eval()(IMAGES), torch.sigmoid(A(IMAGES)))


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        (NAMED, {"weights": {"a": 1}}, "weights: there is none for member 'b'; the members are a, b"),
        (NAMED, {"weights": {"a": 1, "b": 1, "c": 1}}, "weights: no member is named 'c'"),
        (NAMED, {"weights": "31"}, "one number per member"),
        (NAMED, {"weights": 2.0}, "one number per member"),
        (NAMED, {"weights": ["x", None]}, "not all numbers"),
        (NAMED, {"temperatures": {"c": 2.0}}, "temperatures: no member is named 'c'"),
        (NAMED, {"temperatures": [1.0]}, "1 temperatures for 2 members"),
        (NAMED, {"temperatures": {"a": 0}}, "positive"),
        ([Ensemble([A]), B], {}, "member 0 is an Ensemble; give its members instead"),
        (Ensemble([A]), {}, "is an Ensemble; give its members instead"),
        ([nn.Conv2d(3, 1, 1)], {}, r"a Conv2d, not a dense model; convert it: DenseModel\(module"),
        (["alexnet"], {}, r"a name; build a network from it: DenseModel\('alexnet'"),
        ("alexnet", {}, r"DenseModel\('alexnet'"),
        (None, {}, "give dense models"),
        ({}, {}, "at least one member"),
        ([], {}, "at least one member"),
        ({"a.1": A}, {}, "write 'a_1'"),
        ({"": A}, {}, "not empty"),
        ({0: A}, {}, "give text, such as '0'"),
        ({"keys": A}, {}, "write 'keys_'"),
        (NAMED, {"min_members": "1"}, "min_members = '1' of 2 members"),
        (NAMED, {"min_members": True}, "min_members = True"),
        (NAMED, {"calibration": 2.0}, "calibration=2.0"),
        (NAMED, {"guarantee": "set"}, "guarantee='set'"),
        (NAMED, {"cascade": 0.5}, "give a Cascade"),
        (NAMED, {"combine": None}, "combine=None"),
        (NAMED, {"reading": [1]}, "reading="),
        (NAMED, {"fitted": {"x": "y"}}, "not all tensors"),
        (NAMED, {"task": 3}, "no task is named '3'"),
    ],
)
def test_invalid_arguments_are_refused(members: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Ensemble(members, **options)


def test_the_task_must_have_the_members_channels() -> None:
    with pytest.raises(UsageError, match=r"give 1 channels, the task segmentation has 2.*out_channels=2"):
        Ensemble(NAMED, task=SegmentationTask(("a", "b")))


@pytest.mark.parametrize("names", [("unet", "unet/fold1"), ("unet/fold1", "unet"), ("a/b/c", "a/b")])
def test_names_with_slashes_come_back_from_a_file(names: tuple[str, str], tmp_path: Path) -> None:
    options = {"weights": None, "out_size": (12, 16), "input_size": (48, 64), "head": "upsample"}
    members = {name: de.DenseModel(SMALL, **options) for name in names}  # type: ignore[arg-type]
    ensemble = Ensemble(members, [2, 1]).eval()
    loaded = load(save(ensemble, tmp_path / "e.safetensors"), functions=[SMALL])
    assert loaded.weights == ensemble.weights
    assert torch.equal(loaded(IMAGES), ensemble(IMAGES))
