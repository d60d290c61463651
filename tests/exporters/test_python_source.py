"""The written module computes the maps of the ensemble bit for bit, for every part that an ensemble can have."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sampled import sampled
from small_networks import SMALL
from torch import Tensor

import densemble as de
from densemble.ensemble.calibrate import Temperature, VarianceScaling, VectorScaling
from densemble.ensemble.combine import COMBINE, rules_for
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet, RiskControl
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import ExportError, UsageError
from densemble.exporters import python_source as package
from densemble.exporters.python_source.code import class_names
from densemble.exporters.python_source.source import python_source
from densemble.exporters.python_source.verify import verify
from densemble.nets.dense import DenseModel
from densemble.nets.heads import HEADS
from densemble.storage.artifact import describe, holds, load, metadata, save
from densemble.tasks import make_task

ROOT = Path(__file__).resolve().parents[2]
WRITTEN_HEADS = [name for name in HEADS if not name.startswith("smp-")]
TASKS = {
    "saliency": make_task({"name": "saliency"}),
    "segmentation": make_task({"name": "segmentation", "classes": ["sky", "road", "car"]}),
    "multilabel": make_task({"name": "multilabel", "classes": ["a", "b", "c"]}),
    "depth": make_task({"name": "depth", "scale": 2.5}),
    "image": make_task({"name": "image", "classes": ["red", "green", "blue"]}),
    "density": make_task({"name": "heatmap", "classes": ["cell"], "mode": "density", "scale": 12.0}),
}


def member(head: str = "deconv", seed: int = 0, **options: Any) -> DenseModel:
    """Network of few layers with random weights, also of its normalization layers, so that maps vary."""
    torch.manual_seed(seed)
    arguments = {"cut": "features.2", "out_size": (12, 16), "weights": None, "backbone": "squeezenet1_1", **options}
    model = DenseModel(arguments.pop("backbone"), head=head, **arguments).eval()
    for name, tensor in model.named_buffers():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.2)
    return model


@cache
def three(channels: int) -> dict[str, DenseModel]:
    return {f"net-{seed}": member(seed=seed, out_channels=channels) for seed in range(3)}


def ensemble_of(task: str, **options: Any) -> Ensemble:
    chosen = TASKS[task]
    return Ensemble(three(chosen.out_channels), weights=[5, 2, 3], task=chosen, **options).eval()


def written(ensemble: Ensemble, folder: Path) -> Any:
    """Module of the ensemble's source, imported from a folder."""
    path = folder / "written.py"
    path.write_text(python_source(ensemble, "written"), encoding="utf-8")
    save(ensemble, folder / "written.safetensors")
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def images_of(height: int, width: int, channels: int = 3, batch: int = 2) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(height))


def assert_equal(ensemble: Ensemble, folder: Path, sizes: tuple[tuple[int, int], ...] = ((32, 48), (37, 55))) -> Any:
    module = written(ensemble, folder)
    model, ensemble = module.Ensemble().eval(), load(folder / "written.safetensors")
    for size in sizes:
        images = images_of(*size, ensemble.in_channels)
        expected, computed = ensemble.predict(images).maps(), model.predict(images)._asdict()
        assert set(computed) == set(expected)
        assert [name for name in expected if not torch.equal(computed[name], expected[name])] == []
        assert torch.equal(model(images), ensemble(images))
    return module


@pytest.mark.parametrize("out_size", [(12, 16), pytest.param(None, marks=pytest.mark.slow)])
def test_every_head(tmp_path: Path, out_size: tuple[int, int] | None) -> None:
    members = {head: member(head, out_size=out_size, input_size=None) for head in WRITTEN_HEADS}
    assert_equal(Ensemble(members).eval(), tmp_path)


FITTED = {
    "class_weights": lambda k: {"class_weights": torch.linspace(0.1, 0.9, 3 * k).view(3, k)},
    "inverse_variance": lambda k: {"precisions": torch.tensor([0.2, 0.5, 0.4])},
    "stacking": lambda k: {"kernel": torch.full((3, k, k), 0.3) + torch.eye(k), "bias": torch.linspace(0, 1, k)},
}


def fitted_for(rule: str, task: str) -> dict[str, Tensor]:
    channels = TASKS[task].out_channels
    if rule == "stacking" and TASKS[task].distribution == "none":
        return {"kernel": torch.linspace(0.1, 0.6, 3 * channels).view(3, channels)}
    make: Callable[[int], dict[str, Tensor]] = FITTED.get(rule, lambda k: {})
    return make(channels)


@pytest.mark.parametrize("task", sampled(list(TASKS), ["segmentation"]))
def test_every_rule(tmp_path: Path, task: str) -> None:
    rules = rules_for(TASKS[task])
    assert "mean" in rules and set(rules) <= set(COMBINE)
    for rule in rules:
        assert_equal(ensemble_of(task, combine=rule, fitted=fitted_for(rule, task)), tmp_path, sizes=((37, 55),))


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("saliency", {"calibration": Temperature(1.3, "bernoulli"), "temperatures": [1.0, 0.7, 1.5]}),
        ("segmentation", {"calibration": VectorScaling((0.9, 1.1, 1.2), (0.1, 0.0, -0.2), "categorical")}),
        ("segmentation", {"calibration": Temperature(0.8, "categorical"), "guarantee": ConformalSet(0.2, 0.1, 50)}),
        ("multilabel", {"guarantee": RiskControl(0.45, 0.1, 0.9, 50, "bernoulli")}),
        ("multilabel", {"calibration": VectorScaling((0.9, 1.1, 1.2), (0.1, 0.0, -0.2), "bernoulli")}),
        ("depth", {"calibration": VarianceScaling(2.0, 0.1), "guarantee": ConformalInterval(1.5, 0.01, 0.1, 50)}),
        ("depth", {"guarantee": ConformalInterval(0.7, None, 0.1, 50)}),
    ],
)
def test_calibrations_and_guarantees(tmp_path: Path, task: str, options: dict[str, Any]) -> None:
    assert_equal(ensemble_of(task, **options), tmp_path)


def test_many_classes_of_large_maps(tmp_path: Path) -> None:
    # The entropy of more than 2**18 values is computed in strips, and sums in another order round differently.
    task = make_task({"name": "segmentation", "classes": [f"class {number}" for number in range(40)]})
    members = [member(seed=seed, out_channels=40, out_size=None) for seed in (0, 1)]
    assert_equal(Ensemble(members, task=task).eval(), tmp_path, sizes=((97, 131),))


def test_members_of_other_sizes_and_channels(tmp_path: Path) -> None:
    members = {
        "fixed": member("upsample", in_channels=4, input_size=(40, 56)),
        "free": member("subpixel", in_channels=4, out_size=(20, 30)),
    }
    assert_equal(Ensemble(members).eval(), tmp_path)


@pytest.mark.parametrize("mixed", [True, False])
def test_densities_are_resized_with_their_sum(tmp_path: Path, mixed: bool) -> None:
    members = [member(out_size=(12, 16)), member(seed=1, out_size=(20, 30) if mixed else None)]
    assert_equal(Ensemble(members, task=TASKS["density"]).eval(), tmp_path)


def test_views_share_the_weights_of_their_member(tmp_path: Path) -> None:
    base = member(input_size=(32, 48))
    names = ("hflip", "vflip", "rot90", "rot180", "rot270", "scale75", "scale125")
    ensemble = Ensemble({"base": base} | {f"base-{name}": ViewedMember(base, name) for name in names}).eval()
    module = assert_equal(ensemble, tmp_path)
    assert list(module.Ensemble().members) == ["base"]


@pytest.mark.slow
def test_networks_of_torchvision_and_timm(tmp_path: Path) -> None:
    members = {
        "resdeconv": member("skip", backbone="resdeconv", cut="stages.1"),
        "resnet": member("fpn", backbone="timm/test_resnet", cut="auto"),
        "vit": member("upsample", backbone="timm/test_vit", cut="auto"),
    }
    assert_equal(Ensemble(members).eval(), tmp_path, sizes=((64, 80), (97, 131)))


def test_a_map_that_the_network_overwrites_later(tmp_path: Path) -> None:
    spec = member("fpn", backbone="squeezenet1_1", cut="features.3").spec
    spec = replace(spec, skip_nodes=("features.0",), skip_channels=(64,), layouts=("NCHW", "NCHW"))
    assert_equal(Ensemble([DenseModel.from_spec(spec)]).eval(), tmp_path)


def test_classes_can_be_trained_and_built_alone(tmp_path: Path) -> None:
    module = written(ensemble_of("saliency"), tmp_path)
    model = module.Ensemble().train()
    model(images_of(32, 48)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert module.Net_0().eval()(images_of(32, 48)).shape == (2, 1, 12, 16)
    random = module.Ensemble(weights=None).members["net-0"].head.logits.weight
    assert not torch.equal(random, model.members["net-0"].head.logits.weight)


def test_source_is_deterministic_and_clean(tmp_path: Path) -> None:
    ensembles = [
        ensemble_of(task, combine=rule, fitted=fitted_for(rule, task))
        for task in ("saliency", "segmentation", "depth")
        for rule in rules_for(TASKS[task])
    ]
    ensembles.append(Ensemble({head: member(head) for head in WRITTEN_HEADS}, temperatures=[2.0] * len(WRITTEN_HEADS)))
    for number, ensemble in enumerate(ensembles):
        text = python_source(ensemble, "written")
        assert text == python_source(ensemble, "written")
        assert "densemble." not in text.replace("densemble 0", "")
        (tmp_path / f"written{number}.py").write_text(text, encoding="utf-8")
    ruff = shutil.which("ruff", path=Path(sys.executable).parent)
    if ruff is None:
        pytest.skip("ruff is not installed")
    for command in (["check"], ["format", "--check"]):
        arguments = [ruff, *command, "--no-cache", "--config", ROOT / "pyproject.toml", tmp_path]
        result = subprocess.run(arguments, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout


# Each of the next two tests takes seconds: a process imports PyTorch.
@pytest.mark.slow
def test_files_are_verified_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = de.export(ensemble_of("segmentation"), "gaze.py")  # relative, as on the command line
    assert module.name == "gaze.py"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gaze.py", "gaze.safetensors"]


@pytest.mark.slow
def test_one_changed_number_is_found(tmp_path: Path) -> None:
    module = tmp_path / "gaze.py"
    module.write_text(python_source(ensemble_of("segmentation"), "gaze"))
    ensemble = load(save(ensemble_of("segmentation"), tmp_path / "gaze.safetensors"))
    # The largest share comes first in the file.
    module.write_text(module.read_text().replace('"net-0": 0.5', '"net-0": 0.50001'))
    with pytest.raises(ExportError, match="computes other maps than the ensemble"):
        verify(module, ensemble, sizes=((32, 48),), batches=(1,))


def test_no_file_stays_if_the_maps_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(*_: object) -> None:
        raise ExportError("differs")

    monkeypatch.setattr(package, "verify", differ)
    with pytest.raises(ExportError):
        de.export(ensemble_of("saliency"), tmp_path / "gaze.py")
    assert list(tmp_path.iterdir()) == []
    assert ExportError.exit_code == 8


def test_another_artifact_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "verify", lambda *_: None)
    save(ensemble_of("depth"), tmp_path / "gaze.safetensors")
    before = (tmp_path / "gaze.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"gaze.py reads its weights from '.*gaze.safetensors', .* another artifact"):
        de.export(ensemble_of("saliency"), tmp_path / "gaze.py")
    assert (tmp_path / "gaze.safetensors").read_bytes() == before
    assert not (tmp_path / "gaze.py").exists()


def test_the_artifact_that_is_exported_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "verify", lambda *_: None)
    source = save(ensemble_of("saliency"), tmp_path / "gaze.safetensors")
    description = describe(source)
    old = {"task": description.pop("task"), **description, "versions": {"densemble": "0.0.1"}}
    old["members"] = [{key: value for key, value in entry.items() if key != "stem"} for entry in old["members"]]
    save_file(load_file(source), source, metadata(old))
    before = source.read_bytes()
    de.export(load(source), tmp_path / "gaze.py")
    assert source.read_bytes() == before and (tmp_path / "gaze.py").is_file()
    assert not holds(source, ensemble_of("depth"))


def test_roundings_do_not_depend_on_the_header_of_the_artifact(tmp_path: Path) -> None:
    images = torch.rand(1, 3, 37, 55)
    maps = []
    for length in range(0, 64, 9):
        ensemble = ensemble_of("saliency", metrics={"note": "x" * length})
        maps.append(load(save(ensemble, tmp_path / "net.safetensors"))(images))
    assert all(torch.equal(other, maps[0]) for other in maps)


@pytest.mark.parametrize("name", ["gaze.txt", "my-gaze.py", "class.py", "torch.py", "json.py"])
def test_names_that_cannot_be_imported_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=name.partition(".")[0]):
        de.export(ensemble_of("saliency"), tmp_path / name, "python")


def test_code_of_the_user_is_refused() -> None:
    model = DenseModel(SMALL, out_size=(12, 16), input_size=(48, 64), head="upsample", weights=None)
    with pytest.raises(UsageError, match=r"'mine'.*code of the user.*another format"):
        python_source(Ensemble({"mine": model}), "gaze")


def test_heads_of_another_library_are_refused() -> None:
    pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(UsageError, match=r"'smp-fpn'.*needs segmentation-models-pytorch"):
        python_source(Ensemble([member("smp-fpn")]), "gaze")


def test_names_of_classes() -> None:
    members = ["inception_v3", "squeezenet1_1", "vgg19_bn", "lite0-aspp", "lite0_aspp", "ensemble", "3d"]
    assert class_names(members, ["Ensemble"]) == {
        "inception_v3": "InceptionV3",
        "squeezenet1_1": "SqueezeNet1_1",
        "vgg19_bn": "VGG19BN",
        "lite0-aspp": "Lite0Aspp",
        "lite0_aspp": "Lite0AsppNo2",
        "ensemble": "EnsembleNo2",
        "3d": "Member3d",
    }
