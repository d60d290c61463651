"""Measure what fp16 and int8 cost: scores of an ensemble and of its ONNX file on held-out images.

    python benchmarks/export_precision.py NAME ARTIFACT DATA

Exports the artifact with ``--precision fp16`` and ``int8``, and stores the scores and sizes of the files under NAME in
benchmarks/results/export_precision.json. Times are not kept: fp16 is meant for GPUs.
"""

import argparse
import json
import tempfile
from pathlib import Path

import onnx
from environment import environment

import densemble as de
from densemble.exporters.description import KEY

RESULT = Path(__file__).parent / "results" / "export_precision.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    ensemble = de.load(arguments.artifact)
    data = de.FolderData(arguments.data, task=ensemble.task.name)
    sets = json.loads(RESULT.read_text(encoding="utf-8"))["sets"] if RESULT.is_file() else {}
    sets[arguments.name] = {}
    for precision in ("fp16", "int8"):
        with tempfile.TemporaryDirectory() as folder:
            options = de.ExportOptions(precision=precision, data=data)  # type: ignore[arg-type]
            path = de.export(ensemble, Path(folder) / "net.onnx", options=options)
            stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
            measured = json.loads(stored[KEY])["precision"]
            del measured["milliseconds"]
            sets[arguments.name][precision] = {**measured, "megabytes": path.stat().st_size / 1e6}
            print(precision, sets[arguments.name][precision], flush=True)
    result = {**environment("onnx", "onnxruntime"), "sets": sets}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
