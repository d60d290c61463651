"""Options for pretrained backbones: learning rates by hand, frozen parameters, cached against computed features."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sampled import sampled
from small_run import SMALL_RUN
from torch import Tensor
from torchvision.models import squeezenet1_1

import densemble as de
from densemble.config import make_config
from densemble.engines.local import train_members
from densemble.errors import ConfigError
from densemble.nets.blocks import block_of, blocks
from densemble.tasks import SaliencyTask
from densemble.training.module import FitSettings, MemberModule, backbone_rates


def train_one(scenes: Path, out: Path, member: dict[str, Any], **training: Any) -> dict[str, Tensor]:
    """Train one member and return the weights of its last epoch."""
    values = {**SMALL_RUN, "members": [member], "training": {**SMALL_RUN["training"], **training}}
    (outcome,) = train_members(de.FolderData(scenes, "saliency"), make_config(values), out)
    assert outcome.state == "done", outcome.error
    (folder,) = (out / "members").iterdir()
    last = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return {key.removeprefix("model."): value for key, value in last.items()}


@pytest.fixture
def pretrained(tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(3)
    save_file(squeezenet1_1(weights=None).state_dict(), tmp_path / "w.safetensors")
    return {"backbone": "squeezenet1_1", "weights": str(tmp_path / "w.safetensors")}


def test_layer_decay_by_hand() -> None:
    model = de.DenseModel("resnet18", weights=None, out_size=(12, 16), min_size=(6, 8), input_size=(96, 128))
    names = list(blocks(model.backbone.network))
    assert names == ["conv1", "bn1", "layer1.0", "layer1.1", "layer2.0", "layer2.1", "layer3.0", "layer3.1"]
    rates = backbone_rates(model.backbone.network, 1e-3, 0.5)
    assert [rate for _, rate in rates] == [1e-3 * 0.5**n for n in range(7, -1, -1)]
    ((_, rate),) = backbone_rates(model.backbone.network, 1e-3, 1.0)
    assert rate == 1e-3


def test_the_optimizer_has_every_parameter_once_at_its_rate() -> None:
    model = de.DenseModel("resnet18", weights=None, in_channels=4, input_size=(96, 128))
    settings = FitSettings(backbone_share=0.1, layer_decay=0.5)
    groups = MemberModule(model, SaliencyTask(), settings, 10, 1e-2).configure_optimizers()["optimizer"].param_groups
    rate_of = {id(p): group["initial_lr"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rate_of) == len(list(model.parameters()))
    assert {rate_of[id(p)] for p in model.head.parameters()} == {1e-2}
    first, last = rate_of[id(model.backbone.network.conv1.weight)], max(r for r in rate_of.values() if r < 1e-2)
    assert last == 1e-3 and first < last


@pytest.mark.parametrize("freeze_epochs", sampled([0, 1, 2], [1]))
def test_a_frozen_backbone_learns_from_its_epoch_on(
    scenes: Path, tmp_path: Path, pretrained: dict[str, Any], freeze_epochs: int
) -> None:
    last = train_one(scenes, tmp_path / "run", pretrained, epochs=2, freeze_epochs=freeze_epochs)
    before = load_file(pretrained["weights"])
    prefix = "backbone.network."
    moved = {
        block_of(key.removeprefix(prefix))
        for key, value in last.items()
        if key.startswith(prefix) and not torch.equal(value, before[key.removeprefix(prefix)])
    }
    assert bool(moved) == (freeze_epochs < 2)


@pytest.mark.parametrize("freeze", sampled([True, False], [False]))
def test_freeze_statistics_keeps_the_batch_statistics(scenes: Path, tmp_path: Path, freeze: bool) -> None:
    member = {"backbone": "timm/tf_efficientnet_lite0", "weights": None}
    last = train_one(scenes, tmp_path / "run", member, epochs=1, freeze_statistics=freeze)
    means = [v for key, v in last.items() if key.startswith("backbone") and key.endswith("running_mean")]
    heads = [v for key, v in last.items() if key.startswith("head") and key.endswith("running_mean")]
    assert means and all(bool(mean.abs().max() > 0) != freeze for mean in means)
    assert heads and all(bool(mean.abs().max() > 0) for mean in heads)


@pytest.mark.slow
def test_cached_features_train_like_computed_ones(scenes: Path, tmp_path: Path, pretrained: dict[str, Any]) -> None:
    frozen = {"epochs": 2, "freeze_epochs": 2, "augment": "none"}
    computed = train_one(scenes, tmp_path / "computed", pretrained, **frozen)
    kept = train_one(scenes, tmp_path / "kept", pretrained, cache_features=True, **frozen)
    for key, value in computed.items():
        torch.testing.assert_close(kept[key], value, rtol=1e-3, atol=1e-4)
    (train, val) = sorted((tmp_path / "kept").rglob("features-*"), key=lambda p: -len(np.load(p / "0.npy")))
    assert (len(np.load(train / "0.npy")), len(np.load(val / "0.npy"))) == (24, 8)
    assert not list((tmp_path / "computed").rglob("features-*"))


def test_members_with_the_same_backbone_share_its_features(
    scenes: Path, tmp_path: Path, pretrained: dict[str, Any]
) -> None:
    members = [{**pretrained, "head": head, "name": head} for head in ("upsample", "deconv")]
    frozen = {"epochs": 1, "freeze_epochs": 1, "augment": "none", "cache_features": True}
    values = {**SMALL_RUN, "members": members, "training": {**SMALL_RUN["training"], **frozen}}
    outcomes = train_members(de.FolderData(scenes, "saliency"), make_config(values), tmp_path / "run")
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert len(list((tmp_path / "run").rglob("features-*"))) == 2  # train and val, for both heads


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"epochs": 3, "freeze_epochs": 2, "augment": "none"}, r"set freeze_epochs to epochs \(3\)"),
        ({"epochs": 3, "freeze_epochs": 3}, "set augment to none"),
        ({"epochs": 3}, r"set freeze_epochs to epochs \(3\) and images without augmentation: set augment to none"),
    ],
)
def test_changing_features_are_not_cached(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config({**SMALL_RUN, "training": {**training, "cache_features": True}})


@pytest.mark.slow
def test_checkpointing_and_memory_format_train_the_same_network(
    scenes: Path, tmp_path: Path, pretrained: dict[str, Any]
) -> None:
    plain = train_one(scenes, tmp_path / "plain", pretrained, epochs=1, channels_last=False)
    other = train_one(scenes, tmp_path / "other", pretrained, epochs=1, gradient_checkpointing=True)
    assert plain.keys() == other.keys()
    for key, value in plain.items():
        torch.testing.assert_close(other[key], value, rtol=1e-2, atol=2e-3)


def test_cut_limits_in_the_settings_apply_to_the_member(scenes: Path, tmp_path: Path) -> None:
    member = {"backbone": "squeezenet1_1", "weights": None, "max_stride": 2}
    train_one(scenes, tmp_path / "run", member, epochs=1)
    (record,) = (tmp_path / "run").rglob("member.json")
    assert json.loads(record.read_text())["spec"]["node"] == "features.1"  # the pooling after it halves again
