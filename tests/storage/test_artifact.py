"""The artifact equals the ensemble bit for bit, also in another process and folder; damage is detected."""

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import densemble as de
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ArtifactError, ResourceError, UsageError
from densemble.nets.dense import DenseModel
from densemble.storage.artifact import describe, load, metadata, save

FRESH = """
import socket, sys
import numpy as np, torch
def cut(*args, **kwargs): raise OSError("the network is cut off")
socket.socket.connect = socket.getaddrinfo = cut
import builtins, pickle
def refuse(*args, **kwargs): raise AssertionError("pickle was used")
pickle.load = pickle.loads = refuse
torch.set_num_threads(int(sys.argv[3]))
import densemble as de
ensemble = de.load(sys.argv[1])
np.save(sys.argv[2] + ".out.npy", ensemble(torch.from_numpy(np.load(sys.argv[2]))).detach().numpy())
"""


def build() -> Ensemble:
    torch.manual_seed(0)
    options = {"out_size": (12, 16), "weights": None, "input_size": (48, 64)}
    members = {
        "small": DenseModel("squeezenet1_1", **options),
        "own": DenseModel("resdeconv", **options),
        "timm": DenseModel("timm/tf_efficientnet_lite0", **options),
        "left_out": DenseModel("alexnet", **options, min_size=(2, 2)),
    }
    for member in members.values():
        member.train()
        with torch.no_grad():
            member(torch.rand(4, 3, 48, 64))  # running statistics that differ from the fresh ones
    return Ensemble(members, [2, 1, 1, 0], metrics={"val": {"cc": 0.5, "bad": float("nan")}}).eval()


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    return build()


@pytest.fixture
def artifact(ensemble: Ensemble, tmp_path: Path) -> Path:
    return save(ensemble, tmp_path / "e.safetensors")


def test_equals_the_ensemble_bit_for_bit(ensemble: Ensemble, artifact: Path) -> None:
    again = load(artifact)
    x = torch.rand(2, 3, 60, 80)
    with torch.no_grad():
        assert torch.equal(again(x), ensemble(x))
    assert not again.training
    assert again.weights == ensemble.weights == {"small": 0.5, "own": 0.25, "timm": 0.25}
    assert again.metrics == {"val": {"cc": 0.5, "bad": None}}


@pytest.mark.slow
def test_a_fresh_process_elsewhere_without_network_and_pickle_gives_the_same_bits(
    ensemble: Ensemble, artifact: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = artifact.rename(elsewhere / "moved.safetensors")
    x = np.random.default_rng(0).random((1, 3, 60, 80), dtype=np.float32)
    np.save(elsewhere / "x.npy", x)
    arguments = [str(moved), str(elsewhere / "x.npy"), str(torch.get_num_threads())]
    subprocess.run([sys.executable, "-c", FRESH, *arguments], cwd=elsewhere, check=True, timeout=120)
    with torch.no_grad():
        expected = ensemble(torch.from_numpy(x)).numpy()
    assert np.array_equal(np.load(elsewhere / "x.npy.out.npy"), expected)


def test_others_may_read_the_file_as_any_other(artifact: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("")
    assert artifact.stat().st_mode == plain.stat().st_mode


def test_members_outside_the_subset_are_not_in_the_file(artifact: Path) -> None:
    with safe_open(artifact, framework="pt") as file:
        names = set(file.keys())
    assert {name.split("/")[0] for name in names} == {"small", "own", "timm"}
    values = describe(artifact)
    assert set(values["sha256"]) == names
    assert {"schema", "task", "members", "combine", "temperatures", "metrics", "versions", "licence"} <= set(values)


def test_every_flipped_byte_is_noticed(artifact: Path) -> None:
    whole = artifact.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    random = np.random.default_rng(0)
    places = [*range(0, 12), *random.integers(8, header, 12), header, *random.integers(header, len(whole), 4)]
    for place in [*places, len(whole) - 1]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        artifact.write_bytes(bytes(damaged))
        with pytest.raises(ArtifactError):
            load(artifact)
            pytest.fail(f"a flipped bit in byte {place} was not noticed")
    artifact.write_bytes(whole)
    load(artifact)


def test_truncated_foreign_absent_and_newer_files_are_refused(artifact: Path, tmp_path: Path) -> None:
    whole = artifact.read_bytes()
    for part in (b"", whole[:4], whole[:200], whole[:-1]):
        (tmp_path / "part.safetensors").write_bytes(part)
        with pytest.raises(ArtifactError, match="damaged"):
            load(tmp_path / "part.safetensors")
    with pytest.raises(ArtifactError, match="no artifact at"):
        load(tmp_path / "absent.safetensors")
    (tmp_path / "net.onnx").write_bytes(b"another format")
    with pytest.raises(ArtifactError, match="an artifact is named NAME"):
        load(tmp_path / "net.onnx")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ArtifactError, match="not a densemble artifact"):
        load(tmp_path / "foreign.safetensors")
    values = describe(artifact) | {"schema": 99}
    save_file({"a": torch.zeros(1)}, tmp_path / "newer.safetensors", metadata=metadata(values))
    with pytest.raises(ArtifactError, match=r"schema 99.*update"):
        load(tmp_path / "newer.safetensors")


def test_a_tensor_that_is_missing_is_noticed(artifact: Path, tmp_path: Path) -> None:
    with safe_open(artifact, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        unchanged = file.metadata()
    del tensors["small/head.logits.weight"]
    save_file(tensors, tmp_path / "less.safetensors", metadata=unchanged)
    with pytest.raises(ArtifactError):
        load(tmp_path / "less.safetensors")


def test_what_cannot_be_saved(ensemble: Ensemble, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"NAME\.safetensors"):
        save(ensemble, tmp_path / "e.pth")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        save(ensemble, tmp_path / "file" / "e.safetensors")
    own = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2, padding=1), torch.nn.ReLU())
    foreign = Ensemble([DenseModel(own, out_size=(12, 16), input_size=(24, 32))])
    with pytest.raises(UsageError, match="no file can rebuild"):
        save(foreign, tmp_path / "e.safetensors")


def test_a_failed_save_leaves_the_old_file_whole(
    ensemble: Ensemble, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = artifact.read_bytes()

    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("densemble.storage.weight_files.save_file", full)
    with pytest.raises(ResourceError, match="No space left"):
        save(ensemble, artifact)
    assert artifact.read_bytes() == before
    assert [path.name for path in artifact.parent.iterdir()] == ["e.safetensors"]


def test_a_single_network_is_saved_as_an_ensemble_of_one(tmp_path: Path) -> None:
    net = de.DenseModel("resdeconv").eval()
    again = de.load(de.save(net, tmp_path / "one.safetensors"))
    x = torch.rand(1, 3, 64, 80)
    with torch.no_grad():
        assert list(again.members) == ["resdeconv"]
        torch.testing.assert_close(again(x), torch.sigmoid(net(x)), rtol=0, atol=0)
    (prediction,) = de.predict(net, torch.rand(3, 64, 80))
    assert prediction.mean.shape == (1, 64, 80)
