"""Measure what an installation adds to torch and torchvision, and how long the first steps take.

    python benchmarks/install_and_start.py FOLDER [--only size|start]

``size`` installs torch and torchvision of constraints.txt into a fresh virtual environment in FOLDER, without
bytecode, and each library of LIBRARIES into a copy of it. It counts the distributions and the MiB of site-packages.
densemble is installed from a wheel of this repository. Only the environment of densemble stays.

``start`` runs each command of the table in that environment REPEATS times in new processes, after one run that is not
counted, and takes the median of the wall time and of the CPU time (user and system, all threads).

Writes benchmarks/results/install_and_start.json. An environment needs about 6 GB where torch comes with CUDA.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import venv
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from environment import environment

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "install_and_start.json"
BASE = "torch and torchvision"
LIBRARIES = {
    "densemble": "",  # the wheel
    "segmentation-models-pytorch": "segmentation-models-pytorch",
    "MONAI": "monai",
    "torch-uncertainty": "torch-uncertainty",
}
REPEATS = 7
REMOVED = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # the first run of a command writes bytecode
MEMBERS, SIZE = 2, (240, 320)

SMALL_ARTIFACT = f"""
import numpy, torch
from PIL import Image
import densemble as de
torch.manual_seed(0)
members = [de.DenseModel("squeezenet1_1", out_channels=1, out_size=(48, 64), weights=None) for _ in range({MEMBERS})]
de.save(de.Ensemble(members), "small.safetensors")
noise = numpy.random.default_rng(0).integers(0, 256, ({SIZE[0]}, {SIZE[1]}, 3), dtype=numpy.uint8)
Image.fromarray(noise).save("image.png")
"""


def run(*words: object, cwd: Path | None = None) -> str:
    """Run a command and return its output; its error output is shown if it fails."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}\n{done.stderr}")
    return done.stdout


def build_wheel(pip: Path, folder: Path) -> Path:
    """Build the wheel of this repository."""
    run(pip, "wheel", "--no-deps", "-w", folder, ROOT)
    (wheel,) = folder.glob("densemble-*.whl")
    return wheel


def measure_size(pip: Path, folder: Path, requirements: Sequence[object]) -> dict[str, Any]:
    """Install into an environment; count distributions and MiB."""
    install = [pip, "--python", folder / "bin" / "python"]
    run(*install, "install", "--no-compile", "-c", folder.parent / "pair.txt", *requirements)
    (packages,) = folder.glob("lib/python3*/site-packages")
    files = [file for file in packages.rglob("*") if file.is_file() and not file.is_symlink()]
    return {
        "distributions": len(versions := json.loads(run(*install, "list", "--format", "json"))),
        "mebibytes": sum(file.stat().st_blocks for file in files) * 512 / 2**20,
        "versions": {package["name"]: package["version"] for package in versions},
        "mebibytes by distribution": by_distribution(packages),
    }


def by_distribution(packages: Path) -> dict[str, float]:
    """MiB of the files of each distribution as recorded at its installation, largest first."""
    mebibytes = {
        distribution.metadata["Name"]: sum(file.size or 0 for file in distribution.files or ()) / 2**20
        for distribution in distributions(path=[str(packages)])
    }
    return dict(sorted(mebibytes.items(), key=lambda item: -item[1]))


def sizes(folder: Path) -> dict[str, Any]:
    """Measure all libraries."""
    venv.create(folder / "pip", with_pip=True)
    pip = folder / "pip" / "bin" / "pip"
    pair = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch")]
    (folder / "pair.txt").write_text("\n".join(line for line in pair if "metrics" not in line))
    base = folder / "base"
    shutil.rmtree(base, ignore_errors=True)
    venv.create(base, with_pip=False)
    rows: dict[str, Any] = {BASE: measure_size(pip, base, ["torch", "torchvision"])}
    for name, requirement in {**LIBRARIES, "densemble": build_wheel(pip, folder)}.items():
        place = folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(base, place, symlinks=True, copy_function=os.link)  # pip replaces files, it changes none
        rows[name] = measure_size(pip, place, ["torch", "torchvision", requirement])
        if name != "densemble":
            shutil.rmtree(place)
        for key in ("distributions", "mebibytes"):
            rows[name][f"added {key}"] = rows[name][key] - rows[BASE][key]
        print(name, {key: value for key, value in rows[name].items() if key != "versions"}, flush=True)
    shutil.rmtree(base)
    return rows


def timed(words: Sequence[object], folder: Path) -> dict[str, float]:
    """Wall and CPU seconds of a command in a new process."""
    settings = {name: value for name, value in os.environ.items() if name not in REMOVED}
    started = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=settings
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    if process.returncode is None:
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with code {process.returncode}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


def starts(folder: Path) -> dict[str, Any]:
    """Measure the first steps in the environment of densemble: all commands in turn, REPEATS times."""
    binaries = (folder / "densemble" / "bin").absolute()
    python = binaries / "python"
    run(python, "-c", SMALL_ARTIFACT, cwd=folder)
    predict = [binaries / "densemble", "predict", "small.safetensors", "image.png", "-o", "out", "--again"]
    commands: dict[str, list[object]] = {
        "python": [python, "-c", "pass"],
        "import torch, torchvision": [python, "-c", "import torch, torchvision"],
        "import densemble": [python, "-c", "import densemble"],
        "densemble --help": [binaries / "densemble", "--help"],
        "densemble predict": predict,
    }
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    load = os.getloadavg()[0]
    for repeat in range(REPEATS + 1):
        for name, words in commands.items():
            measured = timed(words, folder)
            if repeat:
                seconds[name].append(measured)
    rows = {
        name: {kind: statistics.median(one[kind] for one in each) for kind in ("wall", "cpu")} | {"each": each}
        for name, each in seconds.items()
    }
    for name, row in rows.items():
        print(f"{name}: {row['wall']:.3f} s, {row['cpu']:.3f} s of CPU", flush=True)
    return {"load": load, "repeats": REPEATS, "members": MEMBERS, "size": SIZE, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the environments")
    parser.add_argument("--only", choices=("size", "start"), help="measure one part; the other keeps its results")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    result = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    result["environment"] = environment()
    for name, measure in {"size": sizes, "start": starts}.items():
        if arguments.only in (None, name):
            result[name] = measure(arguments.folder.absolute())
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
