"""Record the conditions of a measurement: commit, machine, threads, versions."""

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from densemble.versions import installed_versions


def environment(*packages: str) -> dict[str, Any]:
    """Facts for a result file; a package that is not installed has no version."""
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent
    ).stdout
    return {
        "commit": commit.strip(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": installed_versions("torch", "torchvision", "timm", *packages),
    }
