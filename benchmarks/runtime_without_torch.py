"""Run an exported ensemble in new environments of densemble-runtime, and compare its maps with `densemble predict`.

    python benchmarks/runtime_without_torch.py ARTIFACT ONNX IMAGES

ONNX is an export of ARTIFACT, IMAGES a folder. For each of two versions of onnxruntime, it creates a virtual
environment without pip, installs the runtime without bytecode, measures the size of site-packages, and predicts the
first ten images with `densemble-predict`. Writes benchmarks/results/runtime_without_torch.json.
"""

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
from environment import environment

import densemble as de
from densemble.inference.image_prediction import ImagePrediction

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "runtime_without_torch.json"
VERSIONS = {"small": "onnxruntime==1.28.0", "new": "onnxruntime==1.32.0"}
IMAGES = 10


def run(*words: object) -> str:
    return subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True).stdout


def site_packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python3*/site-packages")
    return found


def measure(
    requirement: str, pip: Path, folder: Path, onnx: Path, photos: Path, means: dict[str, Any]
) -> dict[str, Any]:
    """Install the runtime with a version of onnxruntime, and predict all photos."""
    venv.create(folder, with_pip=False)
    run(pip, "--python", folder / "bin" / "python", "install", "--no-compile", ROOT / "runtime", requirement)
    mebibytes = sum(file.stat().st_blocks for file in site_packages(folder).rglob("*")) * 512 / 2**20
    installed = json.loads(run(pip, "--python", folder / "bin" / "python", "list", "--format", "json"))
    run(folder / "bin" / "densemble-predict", onnx, photos, "-o", folder / "out", "--save", "npy")
    differences = [np.abs(np.load(folder / "out" / f"{name}.npy") - mean).max() for name, mean in means.items()]
    return {
        "mebibytes": mebibytes,
        "versions": {package["name"]: package["version"] for package in installed},
        "images": len(differences),
        "largest_difference": float(max(differences)),
    }


def main() -> None:
    artifact, onnx, images = map(Path, sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        photos = temporary / "photos"
        photos.mkdir()
        for file in sorted(images.iterdir())[:IMAGES]:
            (photos / file.name).symlink_to(file.resolve())
        ensemble = de.load(artifact)
        predictions = de.predict(ensemble, photos, backend="eager", precision="fp32")
        means = {p.name: p.mean.numpy() for p in predictions if isinstance(p, ImagePrediction)}
        venv.create(temporary / "pip", with_pip=True)
        rows = {
            key: measure(requirement, temporary / "pip" / "bin" / "pip", temporary / key, onnx, photos, means)
            for key, requirement in VERSIONS.items()
        }
    result = {"environment": environment("onnx"), "members": len(ensemble.members), "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
