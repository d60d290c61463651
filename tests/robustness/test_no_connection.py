"""Commands open no connection and ask no name server: watched with strace in a network namespace of their own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import densemble

SOURCE = Path(densemble.__file__).parents[1]
USAGE_FOLDERS = ("intel", "Microsoft", ".local/share/nncf")
"""Folders in the home folder where runtimes keep client numbers for their usage reports."""
RUN = """
import sys
from pathlib import Path
import densemble as de
from densemble.cli import main
from densemble.data.synthetic import make_scenes

de.save(de.DenseModel("squeezenet1_1", weights=None, out_size=(12, 16)), "untrained.safetensors")
make_scenes(Path("data"), train=8, val=4, size=(48, 64))
Path("run.yaml").write_text(
    "{task: saliency, input_size: [48, 64], out_size: [12, 16], training: {epochs: 1, batch_size: 4},"
    " members: [{backbone: resdeconv}, {backbone: squeezenet1_1, weights: null}]}"
)
for command in sys.argv[1:]:
    sys.argv = ["densemble", *command.split()]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
"""
TRAIN = "train data -o out --config run.yaml"
SHORT = ["predict untrained.safetensors data/val/images -o maps --backend openvino"]
LONG = [
    TRAIN,
    "predict out/ensemble.safetensors data/val/images -o maps-eager --backend eager",
    "predict out/ensemble.safetensors data/val/images -o maps-onnx --backend onnxruntime",
    "predict out/ensemble.safetensors data/val/images -o maps-openvino --backend openvino",
    "predict out/ensemble.safetensors data/val/images -o maps-auto",
    "evaluate out/ensemble.safetensors data --report page.html",
    "assemble out -o two.safetensors --select all",
    "benchmark out/ensemble.safetensors --size 48x64 --rounds 1",
    "tune data --backbone squeezenet1_1 --config run.yaml --trials 1 --epochs 1 -o tuned",
    "export out/ensemble.safetensors --format onnx -o ensemble.onnx --data data",
    "export out/ensemble.safetensors --format openvino -o ensemble.xml --data data",
    "export out/ensemble.safetensors --format torch -o ensemble.pt2 --data data",
    "export out/ensemble.safetensors --format python -o ensemble.py --data data",
    "card out/ensemble.safetensors",
]


def watched(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run Python without a network; return what it ended with, and its attempts to reach an address."""
    (folder / "home").mkdir(exist_ok=True)
    switches = ("CI", "TF_BUILD", "JENKINS_URL", "NNCF_CI", "ORT_DISABLE_TELEMETRY", "HF_HUB_OFFLINE")
    kept = {name: value for name, value in os.environ.items() if name not in switches and not name.startswith("PYTEST")}
    places = {"HOME": str(folder / "home"), "DENSEMBLE_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(SOURCE)}
    log = folder / "calls"
    trace = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg", "-o", str(log)]
    done = subprocess.run(
        ["unshare", "-rn", *trace, sys.executable, "-c", *words],
        env=kept | places, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    return done, [line for line in log.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]


def can_watch(folder: Path) -> bool:
    """Whether this machine has strace and allows network namespaces, and a look-up is seen."""
    if not (shutil.which("strace") and shutil.which("unshare")):
        return False
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 443), 1)\nexcept OSError: print('refused')"
    done, attempts = watched(folder, code)
    return done.stdout == "refused\n" and len(attempts) == 1


def test_commands_open_no_connection(share: float, report: Callable[..., None], tmp_path: Path) -> None:
    if not can_watch(tmp_path):
        pytest.skip("strace or network namespaces are not allowed here")
    commands = LONG if share == 1 else SHORT
    done, attempts = watched(tmp_path, RUN, *commands)
    assert done.returncode == 0, done.stderr[-2000:]
    left = [name for name in USAGE_FOLDERS if (tmp_path / "home" / name).exists()]
    problems = [*attempts, *(f"left {name} in the home folder" for name in left)]
    report(cases=len(commands), problems=problems)
