"""The table of backbones that can be cut, as the last sweep found it (benchmarks/sweep_backbones.py)."""

import fnmatch
import json
from pathlib import Path
from typing import Any

COVERAGE = Path(__file__).with_name("coverage.jsonl")


def read_coverage(pattern: str = "*") -> list[dict[str, Any]]:
    """One entry per backbone whose name matches: whether it can be cut, where, what is kept and saved, or why not."""
    entries = [json.loads(line) for line in COVERAGE.read_text(encoding="utf-8").splitlines()]
    return [entry for entry in entries if fnmatch.fnmatch(entry["name"], pattern)]
