"""Collect what fp16 and int8 cost: the scores that ``densemble export --precision`` stored in ONNX files.

    densemble export ARTIFACT -o fp16.onnx --precision fp16 --data DATA
    densemble export ARTIFACT -o int8.onnx --precision int8 --data DATA
    python benchmarks/export_precision.py NAME fp16.onnx int8.onnx

Writes them under NAME into benchmarks/results/export_precision.json. Times are not kept: fp16 is meant for GPUs.
"""

import argparse
import json
from pathlib import Path

import onnx
from environment import environment

from densemble.exporters.description import KEY

RESULT = Path(__file__).parent / "results" / "export_precision.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("files", type=Path, nargs="+")
    arguments = parser.parse_args()
    sets = json.loads(RESULT.read_text(encoding="utf-8"))["sets"] if RESULT.is_file() else {}
    rows = sets[arguments.name] = {}
    for path in arguments.files:
        stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        measured = json.loads(stored[KEY])["precision"]
        del measured["milliseconds"]
        rows[measured["precision"]] = {**measured, "megabytes": path.stat().st_size / 1e6}
    result = {**environment("onnx", "onnxruntime"), "sets": sets}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
