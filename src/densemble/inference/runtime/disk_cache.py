"""Keys of the files that the runtime keeps in the cache of the user (:mod:`densemble.storage.user_cache`)."""

import hashlib
import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from densemble.versions import installed_version

VERSIONS = ("densemble", "torch", "openvino", "onnxruntime")
"""Packages whose versions are part of a cache key."""


def identity(network: nn.Module, example: Tensor, *facts: object) -> str:
    """Return a cache key: a hash of everything that the choice or conversion of a network depends on.

    It covers the network, its weights, the shape and device of ``example``, the number of threads, this machine, the
    versions of the packages, and ``facts``.
    """
    digest = hashlib.sha256()
    described = [repr(network), *(part.code for part in network.modules() if isinstance(part, fx.GraphModule))]
    for text in (*described, tuple(example.shape), example.device, torch.get_num_threads(), _machine(), *facts):
        digest.update(f"{text}\n".encode())
    for name, tensor in network.state_dict().items():
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


@cache
def _machine() -> str:
    lines: Iterable[str] = ()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    processor = next((line for line in lines if line.startswith(("model name", "flags"))), platform.processor())
    return f"{platform.machine()} {processor} {[installed_version(name) for name in VERSIONS]}"
