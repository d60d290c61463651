"""Parts of the user: head, loss, combination rule, data set and callbacks, as in docs/how-to/own-parts.md."""

import csv
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning.pytorch.callbacks import EarlyStopping
from PIL import Image
from small_networks import SMALL
from torch import Tensor, nn

import densemble as de
from densemble.config import make_config
from densemble.engines.configure import user_functions
from densemble.errors import ArtifactError, ConfigError, DataError, UsageError
from densemble.tasks import make_task
from densemble.training.user_callbacks import UserCallbacks

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "own-parts.md"
SEGMENTATION = {"name": "segmentation", "classes": ["a", "b"]}
IMAGES = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The parts of the page as a module ``my_parts`` in the current folder, and the text of its example."""
    *parts, example = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    folder = tmp_path_factory.mktemp("page")
    (folder / "my_parts.py").write_text("\n".join(parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        yield SimpleNamespace(folder=folder, example=example, module=__import__("my_parts"))
        sys.modules.pop("my_parts")


@pytest.fixture(scope="module")
def page(parts: SimpleNamespace) -> dict[str, Any]:
    """The variables of the example of the page, run with fewer images and a smaller backbone."""
    example = parts.example.replace('"resnet18"', f'"{SMALL}", "name": "small"').replace("range(32)", "range(24, 32)")
    example = example.replace("functions=[", f'functions=["{SMALL}", ')
    example = example.replace("    out=", '    training={"epochs": 2},\n    out=').replace("StopAt(0.9)", "StopAt(0.0)")
    values: dict[str, Any] = {}
    exec(compile(example, str(PAGE), "exec"), values)
    return values


def test_page_trains_with_all_parts(page: dict[str, Any], parts: SimpleNamespace) -> None:
    run = page["run"]
    assert list(run.trained()) == ["small", "small-2"] and run.config.loss == "my_parts:smooth_loss"
    for index, name in enumerate(run.trained()):
        (row,) = csv.DictReader((run.folder.member(index, name).metrics).open())  # StopAt ended it after one epoch
        assert row["epoch"] == "1"
    assert run.data_path.name == "data" and len(run.open_data().train) == 8


def test_page_combines_saves_and_loads(
    page: dict[str, Any], parts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = page["ens"]
    assert ensemble.combine == "my_parts:sharp_mean" and ensemble.task.loss_name == ""
    with torch.no_grad():
        maps = [m(IMAGES).div(ensemble.temperatures[n]).softmax(1) for n, m in ensemble.named_members()]
        expected = torch.stack(maps).mean(0).square()
        combined = ensemble.combination.combine(ensemble.member_maps(IMAGES))
    expected = ensemble.combination.calibrate(expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(combined, expected)
    monkeypatch.setattr("densemble.user_code.import_module", lambda name: pytest.fail(f"imported {name}"))
    for functions in ([SMALL], [SMALL, "my_parts:SmallHead"], [SMALL, "my_parts:sharp_mean"]):
        with pytest.raises(ArtifactError, match=r"calling my_parts:\w+, code that .*only names.*--function my_parts:"):
            de.load("squares.safetensors", functions=functions)
    with pytest.raises(ArtifactError, match="calling my_parts:SmallHead"):
        de.Run("runs/squares", functions=[SMALL]).assemble("all")


def test_evaluation_of_a_data_set_equals_that_of_its_folder(page: dict[str, Any], parts: SimpleNamespace) -> None:
    pairs = parts.module.Squares(range(40, 44))
    folder = de.store_dataset({"test": pairs}, parts.folder / "stored", "segmentation", classes=["0", "1"])
    assert de.evaluate(page["ens"], pairs) == de.evaluate(page["ens"], folder)
    with torch.no_grad():
        labels = torch.stack([page["ens"](pairs[i][0][None]).argmax(1)[0] for i in range(4)])
    targets = torch.stack([pairs[i][1] for i in range(4)])
    assert de.evaluate(page["ens"], pairs)["pixel_accuracy"] == pytest.approx(float((labels == targets).float().mean()))


# --- heads ------------------------------------------------------------------------------------------------------------


class Deepest(nn.Conv2d):
    """A 1x1 convolution of the deepest map."""

    def __init__(self, channels: tuple[int, ...], out_channels: int) -> None:
        super().__init__(channels[0], out_channels, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:  # type: ignore[override]
        (deepest,) = maps
        return super().forward(deepest)


def test_head_is_the_module_resized(tmp_path: Path) -> None:
    net = de.DenseModel(SMALL, head=Deepest, out_channels=2, out_size=(12, 16)).eval()
    assert net.spec.head == f"{__name__}:Deepest" and len(net.spec.skip_nodes) == 0
    with torch.no_grad():
        logits = F.conv2d(net.features(IMAGES)[0], net.head.module.weight, net.head.module.bias)  # type: ignore[union-attr, arg-type]
        resized = F.interpolate(logits, (12, 16), mode="bilinear", align_corners=False)
        torch.testing.assert_close(net(IMAGES), resized)
        loaded = de.load(de.save(net, tmp_path / "net.safetensors"), functions=[SMALL, net.spec.head])
        (member,) = loaded.members.values()
        assert torch.equal(member(IMAGES), net(IMAGES))


def test_head_with_all_levels_by_name(parts: SimpleNamespace) -> None:
    net = de.DenseModel(SMALL, head="my_parts:SmallHead", out_channels=2)
    assert isinstance(net.head.module, parts.module.SmallHead) and len(net.spec.skip_nodes) > 0


def test_local_head_works_but_cannot_be_stored(tmp_path: Path) -> None:
    class Local(Deepest):
        pass

    net = de.DenseModel(SMALL, head=Local)
    assert net(IMAGES).shape == (2, 1, 48, 64)
    with pytest.raises(
        UsageError, match=r"member 'small_networks:SmallClassifier' has the head .*Local, which has no name"
    ):
        de.save(net, tmp_path / "net.safetensors")
    with pytest.raises(ConfigError, match=r"head.*cannot be imported by this name.*my_parts:NAME"):
        make_config({"task": "saliency", "members": [{"backbone": "resdeconv", "head": Local}]})


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("my_parts:Absent", "head 'my_parts:Absent': the import failed with AttributeError"),
        ("absent_module:Head", "the import failed with ModuleNotFoundError"),
        (lambda channels, out_channels: nn.Linear, "returned a type, not a torch.nn.Module"),
        (lambda channels: None, "failed with TypeError"),
        (nn.Conv2d(1, 1, 1), "a Conv2d object has no name"),
    ],
)
def test_unusable_head(parts: SimpleNamespace, head: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        de.DenseModel(SMALL, head=head)


def test_head_with_a_wrong_number_of_channels() -> None:
    net = de.DenseModel(SMALL, head=lambda channels, out_channels: Deepest(channels, 5), out_channels=2)
    with pytest.raises(UsageError, match=r"must return logits \(B, 2, h, w\), got \(2, 5,"):
        net(IMAGES)


# --- losses -----------------------------------------------------------------------------------------------------------


def squared(values: Tensor, target: Tensor) -> Tensor:
    known = target.isfinite()
    return (values[:, 0] - target)[known].square().mean()


def vector(logits: Tensor, target: Tensor) -> Tensor:
    return logits.flatten(1).mean(1)


def test_loss_of_logits_and_its_place_in_a_sum(parts: SimpleNamespace) -> None:
    logits, target = torch.randn(2, 2, 6, 8), torch.randint(2, (2, 6, 8))
    target[0, :2] = 255
    smooth = F.cross_entropy(logits, target, ignore_index=255, label_smoothing=0.1)
    task = make_task(SEGMENTATION)
    own = de.TASKS["segmentation"](classes=("a", "b"), loss_name="my_parts:smooth_loss")  # type: ignore[call-arg]
    torch.testing.assert_close(own.loss(logits, target), smooth)
    mixed = de.TASKS["segmentation"](classes=("a", "b"), loss_name="cross_entropy+0.5*my_parts:smooth_loss")  # type: ignore[call-arg]
    torch.testing.assert_close(mixed.loss(logits, target), task.loss(logits, target) + 0.5 * smooth)
    assert make_task(own.describe()) == task
    with pytest.raises(UsageError, match="not for the maps of an ensemble"):
        own.soft_loss(logits, logits.softmax(1), torch.ones(2, 6, 8))


def test_loss_of_values_gets_units_and_nan_for_invalid_targets() -> None:
    name = f"{__name__}:squared"
    task = de.TASKS["depth"](scale=2.0, loss_name=name)  # type: ignore[call-arg]
    logits, target = torch.randn(2, 1, 6, 8), torch.rand(2, 6, 8) + 1
    target[1] = 0  # a sensor writes 0 where it measures nothing
    expected = (2 * F.softplus(logits[0, 0]) - target[0]).square().mean()
    torch.testing.assert_close(task.loss(logits, target), expected)


def test_files_cannot_name_a_loss_and_a_loss_must_be_a_number() -> None:
    with pytest.raises(UsageError, match="must not name a loss"):
        make_task({**SEGMENTATION, "loss_name": f"{__name__}:squared"})
    task = de.TASKS["segmentation"](classes=("a", "b"), loss_name=f"{__name__}:vector")  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"must return a scalar tensor, got a tensor \(2,\)"):
        task.loss(torch.randn(2, 2, 6, 8), torch.zeros(2, 6, 8))


def test_settings_store_names() -> None:
    members = [{"backbone": "resdeconv", "head": Deepest}, {"backbone": "pkg:net", "head": "fpn"}]
    config = make_config({"task": "depth", "loss": squared, "members": members})
    assert config.loss == f"{__name__}:squared" and config.members[0].head == f"{__name__}:Deepest"
    assert user_functions(config) == [f"{__name__}:Deepest", "pkg:net", f"{__name__}:squared"]
    assert make_config(yaml.safe_load(config.to_yaml())) == config
    for loss in (lambda logits, target: logits.mean(), nn.L1Loss()):
        with pytest.raises(ConfigError, match="my_parts:NAME"):
            make_config({"task": "depth", "loss": loss})


# --- combination rules ------------------------------------------------------------------------------------------------


def power(maps: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("m,mbkhw->bkhw", weights, maps.square()).sqrt()


class Largest:
    """The largest value of the members, as an accumulator."""

    def __init__(self) -> None:
        self.maps = torch.zeros(())

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        self.maps = torch.maximum(self.maps, maps)

    def result(self) -> Tensor:
        return self.maps


largest_in_image = de.CombinationRule(lambda task, fitted: Largest(), whole_image=True)


def first_channel(maps: Tensor, weights: Tensor) -> Tensor:
    return maps[0, :, 0]


@pytest.fixture(scope="module")
def pair() -> list[de.DenseModel]:
    return [de.DenseModel(SMALL, out_size=(12, 16)) for _ in range(2)]


def test_rules_compute_their_formula(pair: list[de.DenseModel], tmp_path: Path) -> None:
    by_function = de.Ensemble(pair, weights=[3, 1], combine=power).eval()
    with torch.no_grad():
        a, b = (member(IMAGES).sigmoid() for member in pair)
        torch.testing.assert_close(by_function(IMAGES), (0.75 * a**2 + 0.25 * b**2).sqrt())
        for rule in (Largest, f"{__name__}:Largest", f"{__name__}:largest_in_image"):
            torch.testing.assert_close(de.Ensemble(pair, combine=rule).eval()(IMAGES), torch.maximum(a, b))
        program = torch.export.export(by_function, (IMAGES,))
        torch.testing.assert_close(program.module()(IMAGES), by_function(IMAGES))
        path = de.save(by_function, tmp_path / "power.safetensors")
        with pytest.raises(ArtifactError, match=rf"the combination rule is built by calling {__name__}:power"):
            de.load(path, functions=[SMALL])
        assert torch.equal(de.load(path, functions=[SMALL, f"{__name__}:power"])(IMAGES), by_function(IMAGES))


def test_state_does_not_bring_a_rule(pair: list[de.DenseModel]) -> None:
    state = de.Ensemble(pair, combine=power).state_dict()
    with pytest.raises(UsageError, match=rf"combination rule {__name__}:power, which is code that is not in it"):
        de.Ensemble(pair).load_state_dict(state)
    de.Ensemble(pair, combine=power).load_state_dict(state)


def test_unusable_rules(pair: list[de.DenseModel]) -> None:
    with pytest.raises(UsageError, match=r"must return maps \(2, 1, 12, 16\), got \(2, 12, 16\)"):
        de.Ensemble(pair, combine=first_channel).eval()(IMAGES)
    with pytest.raises(UsageError, match="cannot be imported by this name"):
        de.Ensemble(pair, combine=lambda maps, weights: maps[0])
    with pytest.raises(UsageError, match=r"the combination rule .* is a int"):
        de.Ensemble(pair, combine=f"{__name__}:NUMBER")


NUMBER = 3

# --- data sets --------------------------------------------------------------------------------------------------------

RANDOM = np.random.default_rng(0)
UINT8 = RANDOM.integers(0, 256, (3, 16, 24), dtype=np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        torch.from_numpy(UINT8),
        np.moveaxis(UINT8, 0, -1),
        Image.fromarray(np.moveaxis(UINT8, 0, -1)),
        torch.from_numpy(UINT8) / 255,
        torch.rand(3, 16, 24),
        torch.rand(5, 16, 24),
        torch.rand(2, 16, 24),
        RANDOM.integers(0, 65536, (16, 24, 3), dtype=np.uint16),
        RANDOM.integers(0, 256, (4, 16, 24), dtype=np.uint8).transpose(1, 2, 0),
    ],
    ids=["tensor", "array", "pil", "to-tensor", "float", "bands", "two-bands", "uint16", "four"],
)
def test_images_keep_their_values(tmp_path: Path, image: Any) -> None:
    data = de.store_dataset([(image, np.zeros((16, 24)))] * 3, tmp_path, "depth", val_fraction=0.4)
    stored = data.read_image(data.train[0])
    values = np.asarray(image.permute(1, 2, 0) if isinstance(image, Tensor) else image)
    scale = 255 if stored.dtype == np.uint8 and values.dtype.kind == "f" else 1
    np.testing.assert_array_equal(stored.astype(np.float32) / np.float32(scale), values.astype(np.float32))
    assert stored.dtype == (np.uint8 if scale == 255 else values.dtype)


@pytest.mark.parametrize(
    ("task", "target", "options"),
    [
        ("segmentation", torch.randint(0, 3, (16, 24)), {"classes": ["a", "b", "c"]}),
        ("segmentation", torch.randint(0, 300, (1, 16, 24)), {"classes": [f"{i}" for i in range(300)]}),
        ("multilabel", torch.randint(0, 2, (4, 16, 24)).bool(), {"classes": ["a", "b", "c", "d"]}),
        ("saliency", torch.rand(16, 24) / 2, {}),
        ("heatmap", torch.rand(2, 16, 24), {"classes": ["left", "right"]}),
        ("depth", torch.where(torch.rand(16, 24) > 0.5, torch.rand(16, 24) * 80, torch.nan), {}),
        ("regression", torch.randn(16, 24), {}),
        ("image", torch.rand(3, 16, 24), {}),
    ],
    ids=["labels", "many-labels", "masks", "saliency", "heat", "depth", "regression", "image"],
)
def test_targets_keep_their_values(tmp_path: Path, task: str, target: Tensor, options: dict[str, Any]) -> None:
    pairs = [(torch.full((3, 16, 24), number / 8), target) for number in range(4)]
    data = de.store_dataset({"train": pairs, "val": pairs[:1]}, tmp_path, task, **options)
    read = data.read_target(data.val[0]).astype(np.float32)
    np.testing.assert_array_equal(read.squeeze(), target.float().numpy().squeeze())
    assert len(data.train) == 4


class Shaky:
    """A data set with a random transform."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.rand(3, 16, 24), torch.zeros(16, 24)


ZEROS = torch.zeros(16, 24)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Shaky(), "it is another pair at each access: remove random transforms"),
        ([(torch.randn(3, 16, 24), ZEROS)], r"outside \[0, 1\]; leave out Normalize"),
        ([(torch.rand(3, 16, 25), ZEROS)], r"the image is 16x25 but the target 16x24"),
        ([(torch.rand(3, 16, 24), ZEROS, 1)], r"is a tuple of 3; return \(image, target\)"),
        ([torch.rand(3, 16, 24)], r"is a Tensor; return \(image, target\)"),
        ([(torch.rand(16), ZEROS)], r"the image is a Tensor \(16,\)"),
        ([(torch.rand(3, 16, 24), 1)], r"the target has the shape \(\)"),
        ([(torch.zeros(3, 16, 24).int(), ZEROS)], "the type int32; give uint8, uint16"),
        ({"training": [(torch.rand(3, 16, 24), ZEROS)]}, "no split is named 'training'"),
        (torch.utils.data.ChainDataset([]), "is a ChainDataset; give a data set with __len__"),
        (None, "is a NoneType; give a data set"),
    ],
)
def test_unusable_data_sets(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises((DataError, UsageError), match=message):
        de.store_dataset(data, tmp_path, "depth")


def test_a_stored_data_set_must_stay_the_same(tmp_path: Path) -> None:
    pairs = [(torch.rand(3, 16, 24), torch.rand(16, 24)) for _ in range(3)]
    de.store_dataset(pairs, tmp_path, "depth")
    times = {file: file.read_bytes() for file in tmp_path.rglob("*.tif")}
    de.store_dataset(pairs, tmp_path, "depth")
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.tif")} == times and len(times) == 6
    changed = [*pairs[:2], (pairs[2][0], pairs[2][1] + 1)]
    with pytest.raises(DataError, match=r"pair 2 of the data set differs from .*targets/000002.tif"):
        de.store_dataset(changed, tmp_path, "depth")
    with pytest.raises(DataError, match=r"holds 2 files that are not of this data set, such as '000002.tif'"):
        de.store_dataset(pairs[:2], tmp_path, "depth")
    data = de.store_dataset(changed[1:], tmp_path, "depth", replace=True)
    assert sum(len(samples) for samples in data.layout.splits.values()) == 2
    (tmp_path / "images" / "cat.jpg").write_bytes(b"of the user")
    with pytest.raises(DataError, match=r"holds 1 files that are not of this data set, such as 'cat.jpg'; choose"):
        de.store_dataset(pairs, tmp_path, "depth", replace=True)
    assert (tmp_path / "images" / "cat.jpg").exists() and len(list(tmp_path.rglob("*.tif"))) == 4


def test_train_needs_the_task_and_a_new_folder(page: dict[str, Any], parts: SimpleNamespace) -> None:
    with pytest.raises(UsageError, match="a torch data set needs task="):
        de.train([(torch.rand(3, 16, 24), ZEROS)], out=parts.folder / "other")
    with pytest.raises(UsageError, match="holds a run"):
        de.train([(torch.rand(3, 16, 24), ZEROS)], out=parts.folder / "runs" / "squares", task="segmentation")


@pytest.mark.parametrize(("classes", "ignored", "unknown"), [(12, 11, 255), (3, 0, 255), (300, 299, 65535)])
def test_losses_get_one_label_for_unknown_pixels(classes: int, ignored: int, unknown: int) -> None:
    names = [f"c{number}" for number in range(classes)]
    task = make_task({"name": "segmentation", "classes": names, "ignore_index": ignored})
    labels = torch.tensor([[[0, 1, ignored]]])
    expected = torch.where(labels == ignored, unknown, labels)
    assert torch.equal(task.target_for_user(labels).long(), expected)
    assert torch.equal(labels, torch.tensor([[[0, 1, ignored]]])), "the target itself is not changed"


def function_for_several_levels(channels: tuple[int, ...], out_channels: int) -> nn.Module:
    module = nn.Identity()
    module.multi_level = True  # type: ignore[assignment]
    return module


def test_levels_of_a_function_are_set_on_the_function() -> None:
    with pytest.raises(UsageError, match=r"multi_level=True, which is read before .* NAME.multi_level = True"):
        de.DenseModel(SMALL, head=function_for_several_levels)


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_each_member_starts_with_the_first_state_of_a_callback() -> None:
    stopping = EarlyStopping("val_cc", patience=2)
    callbacks = UserCallbacks.of([stopping])
    assert callbacks.for_member() == (stopping,)
    stopping.wait_count, stopping.best_score = 2, torch.tensor(0.9)
    callbacks.for_member()
    assert stopping.wait_count == 0 and stopping.best_score == float("inf")
    with pytest.raises(UsageError, match=r"is no lightning.pytorch.callbacks.Callback"):
        UserCallbacks.of([print])  # type: ignore[list-item]


# --- command line -----------------------------------------------------------------------------------------------------


def test_code_in_a_settings_file_needs_permission(
    parts: SimpleNamespace, page: dict[str, Any], tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    config = tmp_path / "run.yaml"
    for values, name, commands in (
        ({"members": [{"backbone": "resdeconv", "head": "trap:Head"}]}, "trap:Head", ("train", "tune")),
        ({"loss": "dice+0.5*trap:loss"}, "trap:loss", ("train", "tune", "train --members resdeconv")),
    ):
        config.write_text(yaml.safe_dump({"task": "segmentation", **values}))
        for command in commands:
            backbone = ["--backbone", "resdeconv"] if command == "tune" else []
            data = parts.folder / "runs/squares/data"
            done = densemble(*command.split(), *backbone, data, "--config", config, "-o", tmp_path / "out")
            assert done.returncode == 4 and f"--function {name}" in done.stderr, done.stderr
