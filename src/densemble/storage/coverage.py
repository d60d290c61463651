"""The table of backbones that can be cut, from the last run of ``benchmarks/sweep_backbones.py``."""

import json
from pathlib import Path
from typing import Any

COVERAGE = Path(__file__).with_name("coverage.jsonl")


def read_coverage() -> list[dict[str, Any]]:
    """Read one entry per backbone: whether and where it can be cut, the remaining cost, or the reason why not."""
    return [json.loads(line) for line in COVERAGE.read_text(encoding="utf-8").splitlines()]
