"""How long each candidate takes for one picture on this machine; measured once and kept in the run."""

import platform
import statistics
import time
from collections.abc import Sequence

import torch

from densemble.assembly.candidates import Candidate
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference
from densemble.shapes import Size
from densemble.storage.runs import RunFolder, read_json, write_json

ROUNDS = 3


def milliseconds(run: RunFolder, candidates: Sequence[Candidate], size: Size) -> dict[str, float]:
    """Median milliseconds for one picture, by name; candidates share what is measured of one network and view.

    Args:
        run: keeps ``milliseconds.json``, for this machine and number of threads.
        candidates: whose weights can be read.
        size: (H, W) of the picture.
    """
    machine = f"{platform.node()}, {torch.get_num_threads()} threads, {size[0]}x{size[1]}"
    kept = read_json(run.milliseconds) if run.milliseconds.is_file() else {}
    known: dict[str, float] = kept.get("milliseconds", {}) if kept.get("machine") == machine else {}
    missing = [candidate for candidate in candidates if candidate.name not in known]
    for candidate in missing:
        known[candidate.name] = _measure(candidate, size)
    if missing:
        write_json(run.milliseconds, {"machine": machine, "milliseconds": known})
    return {candidate.name: known[candidate.name] for candidate in candidates}


@torch.no_grad()
def _measure(candidate: Candidate, size: Size) -> float:
    network: DenseModel = for_inference(DenseModel.from_spec(candidate.spec))
    member = candidate.member(network)
    images = torch.rand(1, candidate.spec.in_channels, *size)
    times = []
    for _ in range(ROUNDS + 1):
        started = time.perf_counter()
        member(images)
        times.append((time.perf_counter() - started) * 1000)
    return round(statistics.median(times[1:]), 3)
