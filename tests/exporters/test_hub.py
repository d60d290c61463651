"""Push to and load from a stand-in of the hub: equal predictions, and an error for each thing that can be wrong."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

import pytest
import torch
from exporters.hub_server import TOKEN, HubServer
from huggingface_hub import ModelCard, constants, file_download
from huggingface_hub.utils import _http as http
from small_networks import small_dense

import densemble as de
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ArtifactError, DensembleError, ResourceError, UsageError
from densemble.storage.hub_download import HubAddress, hub_address

NAME = "user/gaze"


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    torch.manual_seed(0)
    options = {"out_size": (12, 16), "input_size": (48, 64), "weights": None, "head": "upsample"}
    members = {name: de.DenseModel("timm/test_resnet", **options) for name in ("first", "second")}
    return Ensemble(members, [2, 1], metrics={"val": {"cc": 0.5, "kld": float("nan")}}).eval()


@pytest.fixture(scope="module")
def artifact(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return de.save(ensemble, tmp_path_factory.mktemp("artifact") / "gaze.safetensors")


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)  # 0.30
    new_sessions()


def new_sessions() -> None:
    """huggingface-hub 0.30 asks once per session whether it is offline."""
    getattr(http, "reset_sessions", lambda: None)()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The stand-in; huggingface-hub, which reads its settings when it is imported, is pointed to it."""
    server = HubServer()
    point_to(server.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)  # not in huggingface-hub 0.30
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.close()
    new_sessions()


@pytest.fixture
def pushed(hub: HubServer, artifact: Path) -> HubServer:
    """The stand-in with the artifact in ``user/gaze``."""
    assert de.push_to_hub(artifact, NAME) == f"hf://{NAME}"
    return hub


def log_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")


def test_a_pushed_ensemble_predicts_bit_for_bit_the_same(pushed: HubServer, ensemble: Ensemble, artifact: Path) -> None:
    images = torch.rand(2, 3, 48, 64)
    expected = ensemble(images)
    for loaded in (de.load(f"hf://{NAME}"), de.load(f"hf://{NAME}@main/model.safetensors"), de.from_pretrained(NAME)):
        assert torch.equal(loaded(images), expected) and not loaded.training
    files = pushed.files(NAME)
    assert {"model.safetensors", "config.json", "README.md"} <= set(files)
    assert files["model.safetensors"] == artifact.read_bytes(), "the artifact itself"
    config = json.loads(files["config.json"])
    assert (config["library_name"], config["task"], config["members"]) == ("densemble", "saliency", ["first", "second"])
    assert not any("pickle" in name or name.endswith((".bin", ".pt", ".py")) for name in files)


def test_the_second_load_downloads_nothing(pushed: HubServer) -> None:
    de.load(f"hf://{NAME}")
    pushed.requests.clear()
    de.load(f"hf://{NAME}")
    assert not any(request.startswith("GET") for request in pushed.requests)


def test_an_ensemble_in_memory_and_a_branch(hub: HubServer, ensemble: Ensemble) -> None:
    assert de.push_to_hub(ensemble, NAME, revision="trial", private=True) == f"hf://{NAME}@trial"
    assert hub.repositories[NAME].private and "model.safetensors" not in hub.files(NAME)
    images = torch.rand(1, 3, 48, 64)
    assert torch.equal(de.load(f"hf://{NAME}@trial")(images), ensemble(images))
    assert torch.equal(de.from_pretrained(NAME, revision="trial")(images), ensemble(images))
    assert f"hf://{NAME}@trial" in hub.files(NAME, "trial")["README.md"].decode()
    with pytest.raises(ArtifactError, match=r"no file 'model\.safetensors'.*densemble push"):
        de.load(f"hf://{NAME}")


def test_save_pretrained_and_back(ensemble: Ensemble, tmp_path: Path) -> None:
    folder = de.save_pretrained(ensemble, tmp_path / "gaze")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    images = torch.rand(1, 3, 48, 64)
    for loaded in (de.from_pretrained(folder), de.load(folder), de.load(folder / "model.safetensors")):
        assert torch.equal(loaded(images), ensemble(images))
    before = (folder / "README.md").read_text()
    de.save_pretrained(folder, folder)  # of itself, over itself
    assert (folder / "README.md").read_text() == before
    assert ModelCard.load(folder / "README.md").data.library_name == "densemble"


def test_a_private_repository_needs_a_token(hub: HubServer, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    de.push_to_hub(artifact, NAME, private=True)
    log_out(monkeypatch)
    with pytest.raises(ArtifactError, match=r"no repository 'user/gaze', or it is private.*hf auth login.*HF_TOKEN"):
        de.load(f"hf://{NAME}")
    assert de.from_pretrained(NAME, token=TOKEN).task.name == "saliency"


def test_pushing_without_a_token_or_to_another_account(
    hub: HubServer, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises((ResourceError, ArtifactError), match=r"other/gaze.*hf auth login"):
        de.push_to_hub(artifact, "other/gaze")
    log_out(monkeypatch)
    with pytest.raises((ResourceError, ArtifactError), match=r"user/gaze.*hf auth login"):
        de.push_to_hub(artifact, NAME)
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("hf://user/absent", ArtifactError, "no repository 'user/absent'"),
        ("hf://user/gaze@v9", ArtifactError, "no revision 'v9'"),
        ("hf://user/gaze/other.safetensors", ArtifactError, r"no file 'other\.safetensors'"),
        ("hf://gaze", UsageError, "hf://USER/NAME"),
        ("hf://user/gaze/config.json", UsageError, r"NAME\.safetensors"),
        ("hf://user/-bad-", UsageError, "no name of a repository"),
    ],
)
def test_a_wrong_address(pushed: HubServer, address: str, error: type[DensembleError], message: str) -> None:
    with pytest.raises(error, match=message):
        de.load(address)


def test_offline_from_the_cache(pushed: HubServer, ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    de.load(f"hf://{NAME}")
    images = torch.rand(1, 3, 48, 64)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    new_sessions()
    pushed.requests.clear()
    assert torch.equal(de.load(f"hf://{NAME}")(images), ensemble(images))
    assert torch.equal(de.from_pretrained(NAME)(images), ensemble(images))
    assert pushed.requests == []
    with pytest.raises(ResourceError, match=r"HF_HUB_OFFLINE is set and the cache '.*' \(HF_HOME\) does not hold"):
        de.load("hf://user/never-loaded")
    with pytest.raises(ResourceError, match=r"cannot push to .*: HF_HUB_OFFLINE is set; unset it"):
        de.push_to_hub(ensemble, NAME)


def test_no_connection(pushed: HubServer, ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    de.load(f"hf://{NAME}")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client waits between its attempts
    point_to("http://127.0.0.1:9", monkeypatch)
    images = torch.rand(1, 3, 48, 64)
    assert torch.equal(de.load(f"hf://{NAME}")(images), ensemble(images))
    with pytest.raises(ResourceError, match=r"cannot be used .*the cache .* does not hold the file"):
        de.load("hf://user/never-loaded")
    with pytest.raises(ResourceError, match=r"cannot push .* cannot be used \(.*\); check the connection"):
        de.push_to_hub(ensemble, NAME)


def test_a_download_that_breaks_off_is_continued(pushed: HubServer, ensemble: Ensemble) -> None:
    pushed.break_off = 1
    images = torch.rand(1, 3, 48, 64)
    with suppress(ResourceError):  # "try again": huggingface-hub 1.0 does not continue by itself
        de.load(f"hf://{NAME}")
    assert pushed.break_off == 0
    assert torch.equal(de.load(f"hf://{NAME}")(images), ensemble(images))


def test_a_damaged_download_is_detected(pushed: HubServer, tmp_path: Path) -> None:
    pushed.flip = True
    with pytest.raises(ArtifactError, match=r"damaged.*remove the folder '.*models--user--gaze' and load it again"):
        de.load(f"hf://{NAME}")
    pushed.flip = False
    with pytest.raises(ArtifactError, match="damaged"):
        de.load(f"hf://{NAME}")
    cached = tmp_path / "cache" / "models--user--gaze"
    assert cached.is_dir()
    cached.rename(tmp_path / "removed")
    assert de.load(f"hf://{NAME}").task.name == "saliency"


def test_a_file_of_another_library_is_refused(pushed: HubServer) -> None:
    from safetensors.torch import save

    content = save({"weight": torch.zeros(2)})
    oid = pushed.repositories[NAME].branches["main"]
    pushed.repositories[NAME].commits[oid]["model.safetensors"] = content
    pushed.objects[hashlib.sha256(content).hexdigest()] = content
    with pytest.raises(ArtifactError, match="not a densemble artifact"):
        de.load(f"hf://{NAME}")


def test_what_cannot_be_saved_creates_no_repository(hub: HubServer) -> None:
    with pytest.raises(UsageError, match="made from a module"):
        de.push_to_hub(small_dense(), NAME)
    with pytest.raises(UsageError, match="write USER/NAME"):
        de.push_to_hub(small_dense(), "gaze")
    with pytest.raises(UsageError, match="branch as revision"):
        de.push_to_hub(small_dense(), "user/gaze@main")
    with pytest.raises(UsageError, match="'gaze' is neither a folder nor"):
        de.from_pretrained("gaze")
    assert hub.requests == []


def test_every_command_takes_an_address(
    pushed: HubServer, artifact: Path, scenes: Path, densemble: Callable[..., Any], tmp_path: Path
) -> None:
    image = next((scenes / "val" / "images").iterdir())
    for source, out in ((f"hf://{NAME}", "hub"), (artifact, "file")):
        assert densemble("predict", source, image, "-o", tmp_path / out, "--save", "npy").returncode == 0
    written = [next((tmp_path / out).glob("*.npy")).read_bytes() for out in ("hub", "file")]
    assert written[0] == written[1]
    remote, local = (densemble("evaluate", source, scenes, "--json") for source in (f"hf://{NAME}@main", artifact))
    assert json.loads(remote.stdout)["cc"] == json.loads(local.stdout)["cc"]
    absent = densemble("predict", "hf://user/absent", image, "-o", tmp_path / "none")
    assert absent.returncode == 4 and "no repository 'user/absent'" in absent.stderr
    assert "Traceback" not in absent.stderr and absent.stdout == ""


def test_the_command_push(hub: HubServer, artifact: Path, densemble: Callable[..., Any]) -> None:
    done = densemble("push", artifact, NAME, "--private", "--license", "apache-2.0")
    assert done.returncode == 0 and f"hf://{NAME}" in done.stderr and hub.repositories[NAME].private
    assert "license: apache-2.0" in hub.files(NAME)["README.md"].decode()
    refused = densemble("push", artifact, "other/gaze")
    assert refused.returncode in (4, 6) and "hf auth login" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow  # another process imports torch
def test_settings_in_the_environment(hub: HubServer, artifact: Path, tmp_path: Path) -> None:
    """In a fresh process, where huggingface-hub reads HF_ENDPOINT and HF_HOME itself."""
    code = (
        "import sys, densemble as de; de.push_to_hub(sys.argv[1], 'user/fresh'); "
        "print(len(de.load('hf://user/fresh').members))"
    )
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment = {**os.environ, **settings, "HF_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-c", code, artifact], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.split()) == (0, ["2"]), done.stderr
    assert list((tmp_path / "home" / "hub").glob("models--user--fresh"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://a/b", HubAddress("a/b")),
        (Path("hf://a/b"), HubAddress("a/b")),
        (PureWindowsPath("hf://a/b@v1"), HubAddress("a/b", "v1")),
        ("hf://a/b@v1", HubAddress("a/b", "v1")),
        ("hf://a/b@refs%2Fpr%2F1/x/y.safetensors", HubAddress("a/b", "refs/pr/1", "x/y.safetensors")),
        ("gaze.safetensors", None),
        ("runs/hf:/x", None),
    ],
)
def test_addresses(text: str | PurePath, expected: HubAddress | None) -> None:
    assert hub_address(text) == expected
    if expected is not None and expected.revision in (None, "v1"):
        assert hub_address(str(expected)) == expected
