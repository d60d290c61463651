"""Time to the first map and memory of a fresh process that loads an artifact and predicts once.

The process runs :func:`child` of this module, which imports only the standard library before its clock starts.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemble.errors import ResourceError

if TYPE_CHECKING:
    from torch import Tensor

    from densemble.ensemble.ensemble import Ensemble

_START = "from densemble.evaluation.benchmark.fresh_process import child; child()"
_MIB = 1024**2


@dataclass(frozen=True)
class Request:
    """Arguments of the fresh process.

    Attributes:
        artifact: path of the ensemble.
        images: path of a NPY file, float32 ``(B, C, H, W)`` in [0, 1].
        backend, precision: execution mode of densemble; if both are empty, the naive loop.
        device: device of the ensemble.
        threads: number of threads of PyTorch and of the backend.
        functions, min_members: see :func:`densemble.storage.artifact.load`.
    """

    artifact: str
    images: str
    backend: str
    precision: str
    device: str
    threads: int
    functions: Sequence[str] = ()
    min_members: int | None = None


@dataclass(frozen=True)
class FreshProcess:
    """Measurements of a fresh process.

    Attributes:
        seconds: seconds by step, in order: ``python`` (until the first line of densemble runs), ``import``, ``load``,
            ``compile`` (0 for the naive loop), ``predict`` (the first call).
        peak_mib: peak resident memory; ``None`` if the system does not report it.
        imported_mib: the same before the artifact is loaded.
        device_mib: peak memory of tensors on the GPU; ``None`` on the CPU.
    """

    seconds: dict[str, float]
    peak_mib: float | None
    imported_mib: float | None
    device_mib: float | None

    @property
    def cold_start(self) -> float:
        """Seconds from the start of the process to its first map, the sum of ``seconds``."""
        return sum(self.seconds.values())


def run_fresh(request: Request) -> FreshProcess:
    """Start the process with the environment of this process and wait for it.

    Raises:
        ResourceError: the process failed.
    """
    message = json.dumps({**asdict(request), "spawned": time.time()})
    # -P: no module of the current folder replaces an installed one.
    done = subprocess.run([sys.executable, "-P", "-c", _START], input=message, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, killed for its memory?"])[-1]
        raise ResourceError(f"a fresh process could not predict with '{request.artifact}': {reason}")
    return FreshProcess(**json.loads(done.stdout.splitlines()[-1]))


def child() -> None:
    """Run in the fresh process: read a request from stdin and print the measurements as JSON."""
    clock = [time.time()]
    message = json.load(sys.stdin)
    spawned = message.pop("spawned")
    request = Request(**message)
    import numpy as np
    import torch

    from densemble.storage.artifact import load

    torch.set_num_threads(request.threads)
    images = torch.from_numpy(np.load(request.images)).to(request.device)
    clock.append(time.time())
    imported = peak_mib()
    ensemble = load(request.artifact, request.device, request.functions, request.min_members)
    clock.append(time.time())
    method = _method(ensemble, images, request)
    del ensemble  # a program that predicts does not keep the plain ensemble beside the fast one
    clock.append(time.time())
    with torch.inference_mode():
        method(images.clone()).cpu()
    clock.append(time.time())
    seconds = [after - before for before, after in zip([spawned, *clock], clock, strict=False)]
    result = FreshProcess(
        dict(zip(("python", "import", "load", "compile", "predict"), seconds, strict=True)),
        peak_mib(),
        imported,
        torch.cuda.max_memory_allocated(images.device) / _MIB if images.is_cuda else None,
    )
    print(json.dumps(asdict(result)))


def _method(ensemble: "Ensemble", images: "Tensor", request: Request) -> Any:
    if not request.backend:
        from densemble.evaluation.benchmark.execution_modes import naive_loop

        return naive_loop(ensemble)
    from densemble.inference.runtime.fast_ensemble import accelerate

    return accelerate(ensemble, images, request.backend, request.precision)


def peak_mib() -> float | None:
    """Return the peak resident memory of this process in MiB; ``None`` if the system does not report it."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage is no alternative here: a child inherits the maximum of its parent
        match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        return int(match[1]) / 1024 if match else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / _MIB if sys.platform == "darwin" else peak / 1024
