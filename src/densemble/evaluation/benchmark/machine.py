"""Description of the machine that a benchmark runs on."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from densemble.versions import installed_versions

PACKAGES = ("densemble", "torch", "torchvision", "timm", "openvino", "onnxruntime")


def machine(device: torch.device) -> dict[str, Any]:
    """Return processor, device, threads and versions; the version of a package that is not installed is ``None``."""
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "python": platform.python_version(),
        "versions": installed_versions(*PACKAGES),
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
