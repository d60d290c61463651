"""User networks: a module, and module:function from the command line to the artifact."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from small_run import SMALL_RUN
from torch import nn

import densemble as de
from densemble.config import make_config
from densemble.engines.local import train_members
from densemble.errors import ArtifactError, UsageError
from densemble.storage.runs import RunFolder

CODE = """
import torch
from torch import nn

calls = []


def make():
    calls.append(1)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def broken():
    raise RuntimeError("no such luck")


def number():
    return 7
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Name of a module of the user in the current folder."""
    name = f"own_nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    return name


def test_cuts_and_training_and_artifact(
    user_module: str, scenes: Path, tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    backbone = f"{user_module}:make"
    done = densemble("cuts", backbone, "--size", "96x128", "--json")
    result = json.loads(done.stdout)
    assert [(cut["channels"], cut["height"], cut["width"]) for cut in result["cuts"]] == [
        *[(8, 48, 64)] * 3,
        *[(16, 24, 32)] * 2,
    ]
    values = {**SMALL_RUN, "members": [{"backbone": backbone, "name": "mine"}]}
    (outcome,) = train_members(de.FolderData(scenes, "saliency"), make_config(values), tmp_path / "run")
    assert outcome.state == "done", outcome.error
    run = de.Run(tmp_path / "run", functions=[backbone])
    path = de.save(run.assemble("all"), tmp_path / "mine.safetensors")

    module = __import__(user_module)
    module.calls.clear()
    with pytest.raises(ArtifactError, match=rf"calling {backbone}, code that .*only names.*--function {backbone}"):
        de.load(path)
    assert module.calls == []
    ensemble = de.load(path, functions=[backbone])
    with torch.no_grad():
        assert ensemble(torch.rand(1, 3, 48, 64)).shape == (1, 1, 12, 16)
    image = next((scenes / "val" / "images").iterdir())
    refused = densemble("predict", path, image, "-o", tmp_path / "out")
    assert refused.returncode == 4 and "--function" in refused.stderr
    assert densemble("predict", path, image, "-o", tmp_path / "out", "--function", backbone).returncode == 0


def test_no_artifact_can_call_arbitrary_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact that names a function of the standard library: nothing is imported or called."""
    from densemble.storage import artifact

    ensemble = de.Ensemble([de.DenseModel("resdeconv", out_size=(12, 16), min_size=(3, 4))])
    (member,) = ensemble.members.values()
    object.__setattr__(member.spec, "backbone", "antigravity:geohash")  # opens a browser when it is imported
    path = artifact.save(ensemble, tmp_path / "evil.safetensors")
    monkeypatch.setattr("densemble.user_code.import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(ArtifactError, match="antigravity:geohash, code that this file only names"):
        de.load(path)


def named_by_a_run(folder: Path, in_settings: str, in_record: str) -> Path:
    """A run folder with one trained member, with the given names in run.yaml and in its member.json."""
    settings = {**SMALL_RUN, "members": [{"backbone": in_settings, "name": "one"}]}
    run = RunFolder(folder)
    run.member(0, "one").path.mkdir(parents=True)
    run.config.write_text(make_config(settings).to_yaml())
    run.state.write_text(json.dumps({"data": str(folder), "task": {"name": "saliency"}, "val": ["a"] * 4}))
    spec = de.DenseModel("resdeconv", out_size=(12, 16), min_size=(3, 4)).spec.as_dict() | {"backbone": in_record}
    facts = {"state": "done", "val": {"cc": 0.5}, "parameters": 1, "epochs": 1, "seconds": 1.0}
    run.member(0, "one").record.write_text(json.dumps({"name": "one", "spec": spec, **facts}))
    return folder


def test_no_run_file_can_call_arbitrary_functions(
    user_module: str, scenes: Path, tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    """A backbone name that stands only in a file is not imported, by any command."""
    evil, loaded = f"{user_module}:number", sys.path.copy()
    run = named_by_a_run(tmp_path / "run", evil, evil)
    other = named_by_a_run(tmp_path / "other", "resdeconv", evil)
    config = tmp_path / "somebodys.yaml"
    for members in ([evil], [{"backbone": evil}], [{"backbone": "resdeconv"}, f"{evil}*2"]):
        config.write_text(yaml.safe_dump({**SMALL_RUN, "members": members}))
        done = densemble("train", scenes, "--config", config, "-o", tmp_path / "new")
        assert done.returncode == 4 and f"--function {evil}" in done.stderr, done.stderr
    for arguments in (
        ("train", scenes, "-o", run, "--resume"),
        ("train", scenes, "-o", run, "--resume", "--function", f"{user_module}:make"),
        ("assemble", run, "-o", tmp_path / "a.safetensors"),
        ("assemble", other, "-o", tmp_path / "a.safetensors"),
    ):
        done = densemble(*arguments)
        assert done.returncode == 4 and f"--function {evil}" in done.stderr, done.stderr
    for make in ("assemble", "add_snapshots", "add_soups"):
        with pytest.raises(ArtifactError, match=f"calling {evil}, code that this file only names"):
            getattr(de.Run(other), make)()
    with pytest.raises(ArtifactError, match=f"calling {evil}, code that this file only names"):
        de.Run(other).add_views(["hflip"])
    assert user_module not in sys.modules and sys.path == loaded

    # A function named on the command line is called; it does not return a network.
    for arguments in (
        ("train", scenes, "--config", config, "-o", tmp_path / "new", "--function", evil),
        ("train", scenes, "--task", "saliency", "--members", evil, "-o", tmp_path / "new"),
        ("train", scenes, "-o", run, "--resume", "--function", evil),
    ):
        done = densemble(*arguments)
        assert done.returncode == 2 and "returned a int, not a torch.nn.Module" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("broken", r"calling broken\(\) of module .* failed with RuntimeError: no such luck"),
        ("number", "returned a int, not a torch.nn.Module"),
        ("absent", "failed with AttributeError"),
    ],
)
def test_functions_that_return_no_network(user_module: str, function: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        de.cuts(f"{user_module}:{function}")
    with pytest.raises(UsageError, match="ModuleNotFoundError"):
        de.cuts("no_such_module_anywhere:make")


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU())
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.body(x).mean((2, 3)))


def test_cuts_of_a_module_by_hand() -> None:
    result = de.cuts(Own(), (40, 60))
    first, second = 3 * 4 * 9, 4 * 8 * 9
    assert [(c.node, c.channels, c.size, c.parameters, c.macs) for c in result] == [
        ("body.0", 4, (20, 30), first + 4, first * 600),
        ("body.1", 4, (20, 30), first + 4, first * 600),
        ("body.2", 8, (10, 15), first + 4 + second + 8, first * 600 + second * 150),
        ("body.3", 8, (10, 15), first + 4 + second + 8, first * 600 + second * 150),
    ]


def test_a_module_that_cannot_be_traced_is_refused_with_the_reason() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError, match=r"Branching cannot be traced into a graph \(.*must not branch on values"):
        de.cuts(Branching())


def test_a_module_keeps_its_weights_and_is_not_changed() -> None:
    whole = Own().eval()
    x = torch.rand(2, 3, 40, 60)
    scores = whole(x)
    model = de.DenseModel(whole, out_size=None, cut="body.3", mean=(0.0,) * 3, std=(1.0,) * 3).eval()
    features, *_ = model.backbone(x)
    torch.testing.assert_close(features, whole.body(x), rtol=0, atol=0)
    torch.testing.assert_close(whole(x), scores, rtol=0, atol=0)
    assert model(x).shape == (2, 1, 40, 60) and model.loaded == "the module's own weights"
    with pytest.raises(UsageError, match="no file can rebuild it"):
        de.save(de.Ensemble([model]), "own.safetensors")
