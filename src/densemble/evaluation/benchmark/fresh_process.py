"""A fresh process that loads an artifact and predicts once: how long until the first map, and how much memory.

The process runs :func:`child` of this module, which imports nothing but the standard library until its clock runs.
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
    """What the process is asked to do.

    Attributes:
        artifact: path of the ensemble.
        images: path of a NPY of float32 ``(B, C, H, W)`` in [0, 1].
        backend, precision: of ours; both empty: the naive loop.
        device: where the ensemble is put.
        threads: of PyTorch and of the backend.
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
    """How the process fared.

    Attributes:
        seconds: by what was done, in order: ``python`` until the first line of ours runs, ``import``, ``load``,
            ``compile`` (0 in the naive loop), ``predict`` the first time.
        peak_mib: most memory that was resident at once; ``None`` where the system does not tell.
        imported_mib: the same before anything was loaded.
        device_mib: most memory of tensors on a GPU; ``None`` on the CPU.
    """

    seconds: dict[str, float]
    peak_mib: float | None
    imported_mib: float | None
    device_mib: float | None

    @property
    def cold_start(self) -> float:
        """Seconds from the start of the process to its first map."""
        return sum(self.seconds.values())


def run_fresh(request: Request) -> FreshProcess:
    """Starts the process, with this one's environment, and waits for it.

    Raises:
        ResourceError: the process failed.
    """
    asked = json.dumps({**asdict(request), "spawned": time.time()})
    done = subprocess.run([sys.executable, "-c", _START], input=asked, capture_output=True, text=True)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}, killed for its memory?"])[-1]
        raise ResourceError(f"a fresh process could not predict with '{request.artifact}': {why}")
    return FreshProcess(**json.loads(done.stdout.splitlines()[-1]))


def child() -> None:
    """What the fresh process does: reads a request from stdin and prints what it took."""
    clock = [time.time()]
    asked = json.load(sys.stdin)
    spawned = asked.pop("spawned")
    request = Request(**asked)
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
    del ensemble  # nobody who predicts keeps the plain form beside the fast one
    clock.append(time.time())
    with torch.inference_mode():
        method(images.clone()).cpu()
    clock.append(time.time())
    taken = [after - before for before, after in zip([spawned, *clock], clock, strict=False)]
    found = FreshProcess(
        dict(zip(("python", "import", "load", "compile", "predict"), taken, strict=True)),
        peak_mib(),
        imported,
        torch.cuda.max_memory_allocated(images.device) / _MIB if images.is_cuda else None,
    )
    print(json.dumps(asdict(found)))


def _method(ensemble: "Ensemble", images: "Tensor", request: Request) -> Any:
    if not request.backend:
        from densemble.evaluation.benchmark.execution_modes import naive_loop

        return naive_loop(ensemble)
    from densemble.inference.runtime.fast_ensemble import accelerate

    return accelerate(ensemble, images, request.backend, request.precision)


def peak_mib() -> float | None:
    """Most memory of this process that was resident at once, in MiB; ``None`` where the system does not tell."""
    status = Path("/proc/self/status")
    if status.is_file():  # the maximum of getrusage is handed down to a child: it would be that of who started it
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        return int(found[1]) / 1024 if found else None
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / _MIB if sys.platform == "darwin" else most / 1024
