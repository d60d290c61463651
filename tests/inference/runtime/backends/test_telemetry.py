"""Runtimes send no usage data when densemble uses them: no DNS look-up, no file in the home folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import densemble

pytest.importorskip("openvino")
pytest.importorskip("onnxruntime")

SOURCE = Path(densemble.__file__).parents[1]
LIBRARIES = Path(densemble.__file__).parent / "inference" / "runtime" / "backends" / "libraries.py"
WATCHED = """
import os, socket
def noted(name):
    real = getattr(socket, name)
    def note(*arguments, **more):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{name} {arguments}\\n")
        raise OSError("no network")
    return note
socket.getaddrinfo, socket.gethostbyname = noted("getaddrinfo"), noted("gethostbyname")
"""
USE = """
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("libraries", sys.argv[1])
libraries = module_from_spec(spec)
spec.loader.exec_module(libraries)
if sys.argv[2] == "ours":
    libraries.load_openvino(), libraries.load_onnxruntime()
else:
    import openvino, onnxruntime
import onnx, onnxruntime, openvino
from onnx import TensorProto, helper
image = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", image[:1], image[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
"""
EVERY_BACKEND = """
import torch
import densemble as de
from densemble.inference.runtime.backends import BACKENDS
torch.set_num_threads(1)
network = torch.nn.Conv2d(3, 2, 3)
image = torch.rand(1, 3, 16, 16)
for name in ("onnxruntime", "openvino"):
    backend = BACKENDS[name]
    assert backend.missing(image.device) is None
    for precision in backend.precisions(image.device):
        backend.compile(network, image, precision, [image])(image)
"""
DNS = """
import pathlib, socket, subprocess, sys, threading
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
pathlib.Path(sys.argv[2]).write_text("nameserver 127.0.0.1\\n")
subprocess.run(["mount", "--bind", sys.argv[2], "/etc/resolv.conf"], check=True)
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
def answer():
    while True:
        question, who = server.recvfrom(512)
        with open(sys.argv[1], "ab") as file:
            file.write(question[12:] + b"\\n")
        server.sendto(question[:2] + b"\\x81\\x83" + question[4:], who)
threading.Thread(target=answer, daemon=True).start()
sys.exit(subprocess.run([sys.executable, "-c", *sys.argv[3:]]).returncode)
"""


def environment(folder: Path, **more: str) -> dict[str, str]:
    unset = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST") and name not in unset}
    (folder / "home").mkdir()
    places = {"HOME": str(folder / "home"), "DENSEMBLE_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder)}
    return kept | places | more


def left_at_home(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "home").rglob("*"))


@pytest.mark.parametrize("by", ["ours", pytest.param("plain import", marks=pytest.mark.slow)])
def test_importing_a_runtime_asks_for_no_host_and_leaves_nothing_at_home(tmp_path: Path, by: str) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(WATCHED)
    asked = tmp_path / "asked"
    given = environment(tmp_path, PYTHONPATH=str(tmp_path / "path"), ASKED=str(asked))
    subprocess.run([sys.executable, "-c", USE, str(LIBRARIES), by], env=given, check=True, capture_output=True)
    if by == "ours":
        assert not asked.exists() and left_at_home(tmp_path) == []
    else:  # the runtimes themselves report: what the case above sees is not blind
        assert "google-analytics" in asked.read_text() and "openvino_ga_cid" in left_at_home(tmp_path)


def namespace() -> bool:
    """Whether this machine lets anyone make a network of their own."""
    try:
        made = subprocess.run(["unshare", "-rnm", "ip", "link", "set", "lo", "up"], capture_output=True)
    except OSError:
        return False
    return made.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "looked_up"),
    [
        pytest.param(EVERY_BACKEND, False, id="every backend"),
        pytest.param("import openvino, time; time.sleep(1)", True, id="plain import"),
    ],
)
def test_a_name_server_is_asked_nothing(tmp_path: Path, code: str, looked_up: bool) -> None:
    """In a network of its own, where every question for a host is seen, whichever library asks."""
    if not namespace():
        pytest.skip("no network namespaces: unshare -rnm is not allowed here")
    asked, resolver = tmp_path / "asked", tmp_path / "resolv.conf"
    command = ["unshare", "-rnm", sys.executable, "-c", DNS, str(asked), str(resolver), code]
    subprocess.run(command, env=environment(tmp_path, PYTHONPATH=str(SOURCE)), check=True, capture_output=True)
    assert asked.exists() == looked_up
    assert (left_at_home(tmp_path) != []) == looked_up
