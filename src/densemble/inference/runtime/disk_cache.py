"""What is kept between runs: choices of backends, and networks that were converted; a folder that may be deleted.

``DENSEMBLE_CACHE_DIR``, by default ``~/.cache/densemble``. Where it cannot be written nothing is kept, and nothing
fails.
"""

import hashlib
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor, fx, nn

LIMIT = 4 << 30
"""Bytes of converted networks that are kept."""
VERSIONS = ("densemble", "torch", "openvino", "onnxruntime")


def cache_folder() -> Path:
    """Where things are kept."""
    given = os.environ.get("DENSEMBLE_CACHE_DIR")
    return Path(given).expanduser() if given else Path("~/.cache/densemble").expanduser()


def identity(network: nn.Module, example: Tensor, *facts: object) -> str:
    """A name for a network, its weights, the shape of its images, this machine, its threads and the versions."""
    digest = hashlib.sha256()
    described = [repr(network), *(part.code for part in network.modules() if isinstance(part, fx.GraphModule))]
    for text in (*described, tuple(example.shape), example.device, torch.get_num_threads(), _machine(), *facts):
        digest.update(f"{text}\n".encode())
    for name, tensor in network.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def prune(folder: Path, limit: int = LIMIT) -> None:
    """Deletes the files of a folder that were not used for longest, until the others hold at most ``limit`` bytes."""
    with suppress(OSError):
        files = sorted((file for file in folder.iterdir() if file.is_file()), key=lambda file: -file.stat().st_mtime)
        held = 0
        for file in files:
            held += file.stat().st_size
            if held > limit:
                file.unlink(missing_ok=True)


@cache
def _machine() -> str:
    names: Iterable[str] = ()
    with suppress(OSError):
        names = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line for line in names if line.startswith(("model name", "flags"))), platform.processor())
    return f"{platform.machine()} {processor} {[installed_version(name) for name in VERSIONS]}"


def installed_version(name: str) -> str | None:
    """Version of a package; ``None`` where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
