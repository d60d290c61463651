"""Compare one ensemble in four libraries: torch-uncertainty, pytorch-toolbelt, MONAI and densemble.

Prints and writes to benchmarks/results/ensembles_beside_others.json:

- whether the mean map is the same to 1e-6, and which other rules and uncertainty maps are equal. The program fails if
  a result is not as expected;
- the time of one mean with the members, and of the combination alone, interleaved, on one thread;
- the largest total size of tensors while 3 and 12 members are combined, in units of one map;
- the behaviour with a member of smaller maps, a member that returns NaN, and calibration with ignored labels.

A library that cannot be imported is left out and has no version in the result.

    pip install -c constraints.txt -e '.[bench]'
    OMP_NUM_THREADS=1 python benchmarks/ensembles_beside_others.py [--size 240x320] [--rounds 15]
"""

import argparse
import json
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import asdict
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from ensemble_libraries import BACKBONES, OTHERS, SEGMENTATION, Comparison, Maps, compare, installed, make_members
from environment import environment
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, TensorDataset

import densemble as de
from densemble.shapes import Size, format_size, parse_size

RESULT = Path(__file__).parent / "results" / "ensembles_beside_others.json"
ALONE = "members alone"
OURS, OURS_WITH_MAPS = "densemble, ens(x)", "densemble, ens.predict(x)"
FOUR = (*BACKBONES, "alexnet")
COUNTS = (3, 12)


def ways(members: Sequence[de.DenseModel]) -> dict[str, Maps]:
    """Every variant of the mean map; the first only runs the members."""
    ensemble = de.Ensemble(members, task=SEGMENTATION).eval()

    def alone(images: Tensor) -> Tensor:
        for member in members:
            maps = member(images)
        return maps

    return {
        ALONE: alone,
        **{name: OTHERS[name](members, SEGMENTATION) for name in installed()},
        OURS: ensemble,
        OURS_WITH_MAPS: lambda images: ensemble.predict(images).mean,
    }


def remember(members: Sequence[de.DenseModel], images: Tensor) -> None:
    """Replace the members by stored outputs for ``images``, so that only the combination is measured."""
    for member in members:
        member.forward = partial(_copy, member(images))


def _copy(logits: Tensor, images: Tensor) -> Tensor:
    return logits.clone()


def seconds(run: Maps, images: Tensor) -> float:
    started = time.perf_counter()
    run(images)
    return time.perf_counter() - started


def interleaved(runs: dict[str, Maps], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round; each round starts with another variant, and the first round is a warm-up."""
    names = list(runs)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken = seconds(runs[name], images)
            if number:
                samples[name].append(taken)
    return samples


def summary(samples: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and medians of the ratios to densemble in the same round, which other load on the machine does not
    change."""
    return {
        "median seconds": {name: statistics.median(taken) for name, taken in samples.items()},
        "ratio to ours": {
            name: statistics.median(own / other for own, other in zip(taken, samples[OURS], strict=True))
            for name, taken in samples.items()
        },
        "samples": samples,
    }


def time_ways(size: Size, rounds: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One image through four members, and the combination of their stored outputs."""
    members, images = make_members(SEGMENTATION, size, FOUR), torch.rand(1, 3, *size)
    runs = ways(members)
    with_members = interleaved(runs, images, rounds)
    remember(members, images)
    return summary(with_members), summary(interleaved(runs, images, 3 * rounds))


class PeakMemory(TorchDispatchMode):
    """Peak size in bytes of all tensors made inside; temporary memory within an operation is not counted."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._alive: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage._cdata in self._alive:
            return
        self._alive.add(storage._cdata)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self._now -= size


def peak_in_maps(way: str, count: int, size: Size) -> float:
    """Peak while ``count`` members are combined, in units of a map ``(1, K, h, w)``, the size of a member's logits."""
    members = make_members(SEGMENTATION, size, ["squeezenet1_1"] * count)
    images = torch.rand(1, 3, *size)
    remember(members, images)
    run = ways(members)[way]
    with PeakMemory() as memory:
        result = run(images)
    return memory.peak / (result.numel() * result.element_size())


def outcome(ask: Callable[[], Any]) -> str:
    """The result in a word, or the type and first line of the error."""
    try:
        return str(ask())
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"


def odd_members(size: Size) -> dict[str, dict[str, str]]:
    """Result of each variant with three members, one of which returns maps of half the size, or NaN."""
    half = (size[0] // 2, size[1] // 2)
    smaller, broken = make_members(SEGMENTATION, size), make_members(SEGMENTATION, size)
    smaller[2:] = make_members(SEGMENTATION, size, BACKBONES[2:], out_size=half)
    broken[2].head.logits.bias.fill_(torch.nan)
    return {
        "one member's maps are half as high and wide": answers(ways(smaller), size),
        "one member gives NaN": answers(
            ways(broken) | {"densemble, min_members=2": de.Ensemble(broken, task=SEGMENTATION, min_members=2).eval()},
            size,
        ),
    }


def answers(runs: dict[str, Maps], size: Size) -> dict[str, str]:
    images = torch.rand(1, 3, *size)

    def answer(run: Maps) -> str:
        maps = run(images)
        return f"{'numbers' if maps.isfinite().all() else 'NaN'}, {format_size(tuple(maps.shape[-2:]))}"

    return {way: outcome(partial(answer, run)) for way, run in runs.items() if way != ALONE}


def calibration() -> dict[str, str]:
    """Result of torch-uncertainty's post-processing on maps; the other two libraries fit nothing."""
    from torch_uncertainty.methods import deep_ensembles
    from torch_uncertainty.post_processing import ConformalClsTHR, TemperatureScaler, VectorScaler

    classes = SEGMENTATION.out_channels
    truth = torch.randint(0, classes, (8, 12, 16))
    logits = torch.randn(8, classes, 12, 16) + nn.functional.one_hot(truth, classes).movedim(-1, 1)
    void, hundred = truth.clone(), truth.clone()
    void[:, :3], hundred[:, :3] = 255, -100
    rows, members = logits.movedim(1, -1).flatten(0, 2), [nn.Conv2d(classes, classes, 1) for _ in range(2)]

    def fit(method: Any, inputs: Tensor, labels: Tensor) -> str:
        with torch.enable_grad(), redirect_stderr(StringIO()):  # it prints its progress
            method.fit(DataLoader(TensorDataset(inputs, labels), batch_size=64))
        return f"threshold {1 - float(method.q_hat):.3f}" if isinstance(method, ConformalClsTHR) else "fits"

    scaler = partial(TemperatureScaler, nn.Identity())
    vector = partial(VectorScaler, classes, nn.Identity())
    sets = partial(ConformalClsTHR, 0.1, nn.Identity(), enable_ts=False)
    asked = {
        "TemperatureScaler, maps": (scaler(), logits, truth),
        "TemperatureScaler, maps, void is 255": (scaler(), logits, void),
        "TemperatureScaler, maps, void is -100": (scaler(), logits, hundred),
        "TemperatureScaler of deep_ensembles, maps": (TemperatureScaler(deep_ensembles(members)), logits, truth),
        "VectorScaler, maps": (vector(), logits, truth),
        "VectorScaler, a row per pixel": (vector(), rows, truth.flatten()),
        "ConformalClsTHR, maps": (sets(), logits, truth),
        "ConformalClsTHR, a row per pixel": (sets(), rows, truth.flatten()),
        "ConformalClsTHR, a row per pixel, void is 255": (sets(), rows, void.flatten()),
    }
    return {words: outcome(partial(fit, *given)) for words, given in asked.items()}


def show(result: dict[str, Any]) -> None:
    print(f"{'library':18} {'theirs':64} {'ours':48} difference")
    for row in result["comparisons"]:
        verdict = "" if Comparison(**row).holds else "   NOT AS EXPECTED"
        verdict = verdict or ("   means something else" if row["within"] is None else "")
        print(f"{row['library']:18} {row['theirs']:64} {row['ours']:48} {row['difference']:8.1e}{verdict}")
    print(f"\n{'4 members, one image':26} {'with members':>22} {'combination':>22} {'peak in maps, 3 / 12':>22}")
    for way, taken in result["with members"]["median seconds"].items():
        alone = result["combination"]["median seconds"][way]
        ratios = [result[part]["ratio to ours"][way] for part in ("with members", "combination")]
        peaks = " / ".join(f"{peak:.1f}" for peak in result["peak in maps"].get(way, {}).values())
        print(f"{way:26} {taken * 1e3:8.1f} ms {ratios[0]:8.3f} x {alone * 1e3:8.2f} ms {ratios[1]:8.3f} x {peaks:>22}")
    for case, found in (*result["odd members"].items(), ("calibration", result["calibration"])):
        print(f"\n{case}", *(f"    {who:50} {what}" for who, what in found.items()), sep="\n")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=(240, 320), help="height x width of the image and its map")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.rand(2, 3, 96, 128)
    ways_there = (*installed(), OURS, OURS_WITH_MAPS)
    comparisons = [row for library in installed() for row in compare(library, images)]
    with_members, combination = time_ways(arguments.size, arguments.rounds)
    result = {
        **environment("torch-uncertainty", "pytorch-toolbelt", "monai"),
        "comparisons": [asdict(row) for row in comparisons],
        "size": list(arguments.size),
        "members": list(FOUR),
        "with members": with_members,
        "combination": combination,
        "peak in maps": {way: {count: peak_in_maps(way, count, (96, 128)) for count in COUNTS} for way in ways_there},
        "odd members": odd_members((96, 128)),
        "calibration": calibration() if "torch-uncertainty" in installed() else {},
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(result)
    print(f"raw samples in {arguments.out}")
    if not all(row.holds for row in comparisons):
        raise SystemExit("theirs and ours are not as expected: see the lines marked NOT")


if __name__ == "__main__":
    main()
