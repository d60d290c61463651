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
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module of the user's, in the folder where the program runs."""
    name = f"own_nets_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    return name


def test_cuts_and_training_and_artifact(own: str, scenes: Path, tmp_path: Path, densemble: Callable[..., Any]) -> None:
    backbone = f"{own}:make"
    done = densemble("cuts", backbone, "--size", "96x128", "--json")
    found = json.loads(done.stdout)
    assert [(cut["channels"], cut["height"], cut["width"]) for cut in found["cuts"]] == [
        *[(8, 48, 64)] * 3,
        *[(16, 24, 32)] * 2,
    ]
    values = {**SMALL_RUN, "members": [{"backbone": backbone, "name": "mine"}]}
    (outcome,) = train_members(de.FolderData(scenes, "saliency"), make_config(values), tmp_path / "run")
    assert outcome.state == "done", outcome.error
    run = de.Run(tmp_path / "run", functions=[backbone])
    path = de.save(run.assemble("all"), tmp_path / "mine.safetensors")

    module = __import__(own)
    module.calls.clear()
    with pytest.raises(ArtifactError, match=rf"calling {backbone}, code that is not in it.*--function {backbone}"):
        de.load(path)
    assert module.calls == []
    ensemble = de.load(path, functions=[backbone])
    with torch.no_grad():
        assert ensemble(torch.rand(1, 3, 48, 64)).shape == (1, 1, 12, 16)
    image = next((scenes / "val" / "images").iterdir())
    refused = densemble("predict", path, image, "-o", tmp_path / "out")
    assert refused.returncode == 4 and "--function" in refused.stderr
    assert densemble("predict", path, image, "-o", tmp_path / "out", "--function", backbone).returncode == 0


def test_no_file_can_call_what_it_likes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that names a function of the standard library: nothing is imported, nothing called."""
    from densemble.storage import artifact

    ensemble = de.Ensemble([de.DenseModel("resdeconv", out_size=(12, 16), min_size=(3, 4))])
    (member,) = ensemble.members.values()
    object.__setattr__(member.spec, "backbone", "antigravity:geohash")  # opens a browser when it is imported
    path = artifact.save(ensemble, tmp_path / "evil.safetensors")
    monkeypatch.setattr("densemble.nets.backbones.import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(ArtifactError, match="antigravity:geohash, code that is not in it"):
        de.load(path)


def named_by_a_run(folder: Path, in_settings: str, in_record: str) -> Path:
    """A run folder whose only member is trained, and called so in run.yaml and in its record."""
    settings = {**SMALL_RUN, "members": [{"backbone": in_settings, "name": "one"}]}
    run = RunFolder(folder)
    run.member(0, "one").path.mkdir(parents=True)
    run.config.write_text(make_config(settings).to_yaml())
    run.state.write_text(json.dumps({"data": str(folder), "task": {"name": "saliency"}, "val": ["a"] * 4}))
    spec = de.DenseModel("resdeconv", out_size=(12, 16), min_size=(3, 4)).spec.as_dict() | {"backbone": in_record}
    facts = {"state": "done", "val": {"cc": 0.5}, "parameters": 1, "epochs": 1, "seconds": 1.0}
    run.member(0, "one").record.write_text(json.dumps({"name": "one", "spec": spec, **facts}))
    return folder


def test_no_file_of_settings_can_call_what_it_likes(
    own: str, scenes: Path, tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    """On every route that reads a backbone's name from a file: named nowhere else, it is not even imported."""
    evil, loaded = f"{own}:number", sys.path.copy()
    run = named_by_a_run(tmp_path / "run", evil, evil)
    other = named_by_a_run(tmp_path / "other", "resdeconv", evil)
    config = tmp_path / "somebodys.yaml"
    for members in ([evil], [{"backbone": evil}], [{"backbone": "resdeconv"}, f"{evil}*2"]):
        config.write_text(yaml.safe_dump({**SMALL_RUN, "members": members}))
        done = densemble("train", scenes, "--config", config, "-o", tmp_path / "new")
        assert done.returncode == 4 and f"--function {evil}" in done.stderr, done.stderr
    for arguments in (
        ("train", scenes, "-o", run, "--resume"),
        ("train", scenes, "-o", run, "--resume", "--function", f"{own}:make"),
        ("assemble", run, "-o", tmp_path / "a.safetensors"),
        ("assemble", other, "-o", tmp_path / "a.safetensors"),
    ):
        done = densemble(*arguments)
        assert done.returncode == 4 and f"--function {evil}" in done.stderr, done.stderr
    for make in ("assemble", "add_snapshots", "add_soups"):
        with pytest.raises(ArtifactError, match=f"calling {evil}, code that is not in it"):
            getattr(de.Run(other), make)()
    with pytest.raises(ArtifactError, match=f"calling {evil}, code that is not in it"):
        de.Run(other).add_views(["hflip"])
    assert own not in sys.modules and sys.path == loaded

    # Named on the command line it is called: what it gives is no network.
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
def test_functions_that_make_no_network(own: str, function: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        de.cuts(f"{own}:{function}")
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
    found = de.cuts(Own(), (40, 60))
    first, second = 3 * 4 * 9, 4 * 8 * 9
    assert [(c.node, c.channels, c.size, c.parameters, c.macs) for c in found] == [
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


def test_a_module_keeps_its_weights_and_is_left_as_it_was() -> None:
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
