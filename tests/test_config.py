"""run.yaml: defaults, overrides, and helpful errors."""

import re
from pathlib import Path

import pytest
import yaml

from densemble.commands.overrides import with_settings
from densemble.config import make_config, read_config
from densemble.errors import ConfigError


def test_default_members_are_the_seven_networks_of_all7models() -> None:
    config = make_config({"task": "saliency"})
    assert config.member_names() == [
        "alexnet", "densenet201", "inception_v3", "resnet152", "squeezenet1_1", "vgg19_bn", "resdeconv",
    ]  # fmt: skip


def test_a_member_overrides_the_common_training() -> None:
    config = make_config(
        {
            "task": "saliency",
            "training": {"epochs": 3, "seed": 1},
            "members": ["alexnet", {"backbone": "vgg16", "epochs": 9}],
        }
    )
    first, second = (member.training(config.training) for member in config.members)
    assert (first.epochs, first.seed, second.epochs, second.seed) == (3, 1, 9, 1)


def test_round_trip_through_yaml(tmp_path: Path) -> None:
    config = make_config({"task": "saliency", "input_size": "96x128", "members": ["alexnet", "alexnet"]})
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    assert make_config(read_config(tmp_path / "run.yaml")) == config
    assert config.member_names() == ["alexnet", "alexnet-2"]


def test_settings_override_every_section() -> None:
    values = with_settings(
        {"task": "saliency", "members": ["alexnet", {"backbone": "vgg16"}]},
        [
            "training.epochs=2",
            "weights_dir=some/folder",
            "members.1.epochs=5",
            "out_size=[24, 32]",
            "training.learning_rate=1e-4",
        ],
    )
    config = make_config(values)
    assert (config.training.epochs, config.weights_dir, config.members[1].epochs) == (2, "some/folder", 5)
    assert config.out_size == (24, 32) and config.training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"task": "saliency", "trainin": {}}, ["'trainin'", "'training'"]),
        ({"task": "saliency", "training": {"epoch": 3}}, ["'training.epoch'", "'epochs'"]),
        ({"task": "saliency", "members": [{"backbon": "alexnet"}]}, ["backbon", "'backbone'"]),
        ({"task": "saliency", "training": {"epochs": 0}}, ["training.epochs", "greater than 0"]),
        ({"task": "saliency", "members": []}, ["members is empty"]),
        ({"task": "saliency", "input_size": "big"}, ["240x320"]),
        ({}, ["'task' is missing"]),
        (
            {"task": "saliency", "members": [{"backbone": "a", "name": "x"}, {"backbone": "b", "name": "x"}]},
            ["two members", "'x'"],
        ),
    ],
)
def test_errors_name_the_key_and_the_fix(values: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_config(values)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("setting", ["epochs", "=3", "members.9.epochs=1", "task.x=1"])
def test_invalid_settings(setting: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        with_settings({"task": "saliency", "members": ["alexnet"]}, [setting])


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "absent.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        read_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="no keys"):
        read_config(tmp_path / "list.yaml")


def test_a_setting_applies_to_a_member_given_by_name() -> None:
    values = with_settings({"task": "saliency", "members": ["alexnet", "resnet18"]}, ["members.1.weights=null"])
    assert values["members"] == ["alexnet", {"backbone": "resnet18", "weights": None}]


def test_settings_keep_the_order_of_classes() -> None:
    values = {"task": "segmentation", "data": {"color_map": {"road": [1, 2, 3], "car": [4, 5, 6]}}}
    changed = with_settings(values, ["training.epochs=3"])
    assert list(changed["data"]["color_map"]) == ["road", "car"]
    assert changed["training"] == {"epochs": 3} and "training" not in values


def test_a_setting_selects_a_member_by_name_or_backbone() -> None:
    values = {"task": "saliency", "members": ["alexnet", {"backbone": "resdeconv", "name": "own"}]}
    changed = with_settings(values, ["members.alexnet.weights=null", "members.own.epochs=3"])
    assert changed["members"][0] == {"backbone": "alexnet", "weights": None}
    assert changed["members"][1]["epochs"] == 3
    with pytest.raises(ConfigError, match="member by its name or its number"):
        with_settings(values, ["members.nobody.epochs=3"])


def test_a_repeated_setting_is_rejected() -> None:
    with pytest.raises(ConfigError, match="given twice"):
        with_settings({"task": "saliency"}, ["data.leave_out=[a]", "data.leave_out=[b]"])


def test_copies_have_different_seeds_and_names(tmp_path: Path) -> None:
    values = {
        "task": "saliency",
        "training": {"seed": 4},
        "members": ["resnet18*3", {"backbone": "vgg16", "copies": 2, "name": "own", "seed": 7}, "alexnet", "resnet18"],
    }
    config = make_config(values)
    assert config.member_names() == [
        "resnet18", "resnet18-2", "resnet18-3", "own", "own-2", "alexnet", "resnet18-4",
    ]  # fmt: skip
    assert [member.backbone for member in config.members] == [*["resnet18"] * 3, *["vgg16"] * 2, "alexnet", "resnet18"]
    assert [member.training(config.training).seed for member in config.members] == [4, 5, 6, 7, 8, 4, 4]
    (tmp_path / "run.yaml").write_text(config.to_yaml())
    again = make_config(read_config(tmp_path / "run.yaml"))
    assert again == config == make_config(values), "a resumed run has the same settings"


def test_copies_differ_only_in_seed_and_name() -> None:
    member = {"backbone": "resnet18", "epochs": 3, "head": "ppm", "snapshots": 2}
    copies = make_config({"task": "saliency", "members": [{**member, "copies": 2}]}).members
    (alone,) = make_config({"task": "saliency", "members": [member]}).members
    assert [copy.model_dump() | {"seed": None} for copy in copies] == [alone.model_dump()] * 2


@pytest.mark.parametrize("path", ["members.0.epochs", "members.resnet18.epochs", "members.resnet18*2.epochs"])
def test_a_setting_applies_to_all_copies(path: str) -> None:
    config = make_config(with_settings({"task": "saliency", "members": ["resnet18*2"]}, [f"{path}=3"]))
    assert [(member.backbone, member.epochs) for member in config.members] == [("resnet18", 3)] * 2


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ("resnet18*0", "copies.*greater than 0"),
        ({"backbone": "resnet18*2", "copies": 3}, "'resnet18\\*2'.*keep one"),
        ({"backbone": "resnet18", "copies": "many"}, "copies.*valid integer"),
        ({"backbone": "resnet18", "snapshots": -1}, "snapshots.*greater than or equal to 0"),
    ],
)
def test_invalid_copies_and_snapshots_are_rejected(member: object, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_config({"task": "saliency", "members": [member]})


def test_copies_do_not_take_the_name_of_another_member() -> None:
    members = [{"backbone": "resnet18", "copies": 2, "name": "own"}, {"backbone": "alexnet", "name": "own-2"}]
    with pytest.raises(ConfigError, match="two members are named 'own-2'"):
        make_config({"task": "saliency", "members": members})


def test_errors_in_training_are_reported_with_copies() -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs"):
        make_config({"task": "saliency", "training": {"epochs": 0}, "members": ["resnet18*2"]})


@pytest.mark.parametrize(
    ("setting", "right"),
    [
        ("epochs=3", "'training.epochs'"),
        ("batchsize=4", "'training.batch_size'"),
        ("ignore_index=0", "'data.ignore_index'"),
        ("devices=2", "'trainer.devices'"),
        ("head=fpn", "'members.0.head'"),
        ("seed=1", "'training.seed' or 'data.seed'"),
        ("training.input_size=48x64", "'input_size'"),
        ("data.epochs=3", "'training.epochs'"),
        ("training.epoch=3", "'epochs'"),
        ("taskk=depth", "'task'"),
    ],
)
def test_errors_suggest_the_section_of_a_key(setting: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean {re.escape(right)}\?$"):
        make_config(with_settings({"task": "saliency"}, [setting]))


def test_a_member_keeps_explicit_values_equal_to_the_default() -> None:
    members = ["alexnet", {"backbone": "alexnet", "epochs": 12, "patience": None}]
    config = make_config({"task": "saliency", "training": {"epochs": 3, "patience": 2}, "members": members})
    again = make_config(yaml.safe_load(config.to_yaml()))
    for equal_config in (config, again):
        trained = [member.training(equal_config.training) for member in equal_config.members]
        assert [(t.epochs, t.patience) for t in trained] == [(3, 2), (12, 2)]
    assert [member["epochs"] for member in config.model_dump()["members"]] == [None, 12]
