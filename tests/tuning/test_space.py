"""The search space, and the settings that follow from searched values."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from densemble.cli import app
from densemble.config import RunConfig, make_config
from densemble.engines.plan import fit_settings, member_cut
from densemble.errors import ConfigError, UsageError
from densemble.nets.cuts import cuts
from densemble.nets.dense import DenseModel
from densemble.nets.heads import HEADS
from densemble.shapes import parse_size
from densemble.tuning.space import (
    AUGMENTATIONS,
    NAMES,
    LogRange,
    initial_values,
    make_space,
    tried_cuts,
    with_values,
)

AUTOMATIC = [
    ("resnet18", "upsample", "96x128", "24x32", {}),
    ("resnet18", None, "96x128", "24x32", {}),
    ("resnet18", "upsample", "96x128", "3x4", {}),
    ("resnet18", "smp-unet", "64x96", None, {"max_stride": 8.0}),
    ("alexnet", "aspp", "240x320", "48x64", {}),
    ("alexnet", "skip", "112x80", None, {"max_macs": 1e8}),
    ("resdeconv", None, "96x128", "24x32", {}),
    ("squeezenet1_1", "deconv", "225x301", "60x80", {"min_size": "12x16"}),
]
"""Backbone, head, size, out_size and limits of an automatic cut."""


def settings(backbone: str = "resnet18", weights: str | None = "DEFAULT", **member: Any) -> RunConfig:
    members = [{"backbone": backbone, "weights": weights, **member}]
    return make_config({"task": "saliency", "input_size": [96, 128], "out_size": [24, 32], "members": members})


@pytest.mark.parametrize("backbone", ["resnet18", "alexnet", "vgg19_bn", "resdeconv"])
def test_tried_cuts_separate_and_have_strides_in_range(backbone: str) -> None:
    tried = tried_cuts(settings(backbone))
    known = {cut.node: cut for cut in cuts(backbone, (96, 128))}
    assert 0 < len(tried) <= 12
    for cut in tried:
        assert known[cut.node].separates and 3.6 <= min(cut.stride) <= max(cut.stride) <= 35
    sizes = [cut.size for cut in tried]
    assert max(sizes.count(size) for size in sizes) <= 3
    deepest = {cut.size: cut.node for cut in known.values() if cut.size in sizes}
    assert set(deepest.values()) <= {cut.node for cut in tried}, "the deepest of each size is tried"


@pytest.mark.slow
def test_every_tried_cut_and_head_builds_a_network() -> None:
    config = settings("resdeconv")
    space = make_space(config)
    for cut in space["cut"]:
        for head in space["head"]:
            DenseModel("resdeconv", out_size=(24, 32), cut=cut, head=head, weights=None, input_size=(96, 128))
    assert set(space["head"]) == {name for name in HEADS if not name.startswith("smp-")}


@pytest.mark.parametrize(("backbone", "head", "size", "out_size", "limits"), AUTOMATIC)
def test_model_engine_tuner_and_command_cut_at_the_same_node(
    backbone: str, head: str | None, size: str, out_size: str | None, limits: dict[str, Any]
) -> None:
    member = {"backbone": backbone, "head": head, "weights": None, **limits}
    config = make_config({"task": "depth", "input_size": size, "out_size": out_size, "members": [member]})
    model = DenseModel(input_size=parse_size(size), out_size=config.out_size, **member)
    arguments = {"head": head, "size": size, "out-size": out_size} | {k.replace("_", "-"): v for k, v in limits.items()}
    options = [text for key, value in arguments.items() if value for text in (f"--{key}", str(value))]
    output = CliRunner().invoke(app, ["cuts", backbone, "--json", *options])
    assert initial_values(config, {"cut": (model.cut.node,)}) == {"cut": model.cut.node}
    assert member_cut(config, config.members[0]) == model.cut
    assert json.loads(output.stdout)["auto"] == json.loads(json.dumps(model.cut.as_dict()))


@pytest.mark.parametrize(("head", "node"), [("upsample", "layer3"), ("fpn", "layer4")])
def test_the_tuner_starts_at_the_cut_of_the_head(head: str, node: str) -> None:
    """At 96x128 resnet18's layer3 has a stride of 16, layer4 one of 32."""
    assert initial_values(settings(head=head), make_space(settings(head=head)))["cut"] == node


def test_limits_of_the_member_bound_its_cuts() -> None:
    assert all(max(cut.stride) <= 8 * 1.3 for cut in tried_cuts(settings(max_stride=8)))
    cheap = tried_cuts(settings(max_macs=3e8))
    assert 0 < len(cheap) < len(tried_cuts(settings())) and all(cut.macs <= 3e8 for cut in cheap)
    with pytest.raises(UsageError, match="no cut with a stride from 4 to 32"):
        make_space(settings(max_macs=10))


def test_parameters_that_do_not_apply_are_not_searched() -> None:
    assert tuple(make_space(settings())) == NAMES
    assert tuple(make_space(settings(weights=None))) == ("cut", "head", "learning_rate", "augment")
    frozen = {"freeze_epochs": 3, "epochs": 3, "augment": "none", "cache_features": True}
    assert tuple(make_space(settings(**frozen))) == ("cut", "head", "learning_rate")
    assert tuple(make_space(settings(), ["learning_rate", "head"])) == ("head", "learning_rate")


@pytest.mark.parametrize(
    ("names", "message"), [(["cuts"], "cannot search 'cuts'; did you mean 'cut'"), ([], "cannot search ''")]
)
def test_misspelt_names(names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_space(settings(), names)


def test_backbone_share_needs_a_learning_rate() -> None:
    with pytest.raises(UsageError, match="search learning_rate too"):
        make_space(settings(learning_rate="auto"), ["backbone_share"])
    assert list(make_space(settings(learning_rate="auto"), ["learning_rate", "backbone_share"]))


def test_a_search_starts_with_the_settings() -> None:
    config = settings(backbone_learning_rate=1e-4)
    values = initial_values(config, make_space(config))
    model = DenseModel("resnet18", out_size=(24, 32), weights=None, input_size=(96, 128))
    assert values == {
        "cut": model.cut.node, "head": model.spec.head, "learning_rate": 1e-3, "backbone_share": 0.1, "augment": "light"
    }  # fmt: skip
    requested = settings(head="smp-unet")
    assert initial_values(requested, make_space(requested))["head"] == "smp-unet", "the requested head is tried, too"
    assert "learning_rate" not in initial_values(settings(learning_rate=1.0), make_space(settings()))


def test_values_become_settings_of_the_member() -> None:
    config = settings(name="mine", epochs=7)
    values = {"cut": "layer2", "head": "aspp", "learning_rate": 4e-3, "backbone_share": 0.25, "augment": "none"}
    changed = with_values(config, values)
    (member,) = changed.members
    assert (member.cut, member.head, member.name, member.epochs) == ("layer2", "aspp", "mine", 7)
    fitted = fit_settings(changed, member, None)
    assert (fitted.learning_rate, fitted.backbone_share, fitted.augment) == (4e-3, 0.25, "none")
    assert changed.model_copy(update={"members": config.members}) == config, "nothing else changes"
    alone = with_values(config, {"backbone_share": 0.5}).members[0]
    assert alone.backbone_learning_rate == 0.5e-3 and "learning_rate" not in alone.model_fields_set


def test_values_that_contradict_the_settings_are_rejected() -> None:
    frozen = {"freeze_epochs": 3, "epochs": 3, "augment": "none", "cache_features": True}
    with pytest.raises(ConfigError, match="set augment to none"):
        with_values(settings(**frozen), {"augment": "strong"})


def test_ranges() -> None:
    space = make_space(settings())
    assert space["learning_rate"] == LogRange(1e-4, 1e-2) and space["backbone_share"] == LogRange(0.02, 1.0)
    assert space["augment"] == AUGMENTATIONS
