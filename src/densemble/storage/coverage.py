"""The table of backbones that can be cut, as the last sweep found it (benchmarks/sweep_backbones.py)."""

import json
from pathlib import Path
from typing import Any

COVERAGE = Path(__file__).with_name("coverage.jsonl")


def read_coverage() -> list[dict[str, Any]]:
    """One entry per backbone: whether it can be cut, where, what is kept and saved, or why not."""
    return [json.loads(line) for line in COVERAGE.read_text(encoding="utf-8").splitlines()]
