"""Measure the kept score and the wall time of a cascade on a trained ensemble, compared with the naive loop.

All members predict the validation images once. A cascade is fitted on one half of the images and run on the other, in
both directions. The halves are contiguous blocks, so that frames of one film are not in both.

- Kept score: score of the maps of the cascade, with its backend and precision, divided by the score of the ensemble in
  float32. The result also contains the best single member, selected on the same half and scored on the other.
- Time: the same cascades on the same images, interleaved with the naive loop (PyTorch NCHW float32, activation, stack,
  mean).

Use a selected ensemble (`assemble --select greedy`). With weak members, leaving them out looks like a gain of the
cascade. Writes benchmarks/results/cascade.json with the raw samples, one entry for each data set.

    python benchmarks/cascade.py RUN_OR_ARTIFACT DATA [--keep 0.995 | --budget 0.3] [--batch 8] [--rounds 7]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from torch import Tensor

import densemble as de
from densemble.data.targets import resize_target
from densemble.ensemble.cascade import CascadeUse, Policy, cascade_use, kept_share
from densemble.ensemble.combination import Combination
from densemble.ensemble.resize import resize_maps
from densemble.evaluation.scores import images_with_targets
from densemble.inference.cascade_runner import predict_cascade
from densemble.inference.runtime.fast_ensemble import accelerate, choices
from densemble.metrics import Objective
from densemble.nets.counting import count_macs
from densemble.selection.candidate_scores import measure, totals
from densemble.selection.fit_cascade import fit_cascade
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.shapes import size_of
from densemble.tasks import Task

RESULT = Path(__file__).parent / "results" / "cascade.json"
NAIVE = "naive loop, all members"
Half = tuple[list[int], Policy]
"""Images to measure on, and the policy that was fitted on the others."""


def read_images(ensemble: de.Ensemble, folder: Path) -> tuple[Tensor, list[Any]]:
    """Validation images ``(N, C, H, W)`` at the input size of the members, and their targets."""
    said = ensemble.task.describe()
    names = {"classes": "classes", "ignore_index": "ignore_index", "file_scale": "scale", "mode": "heatmap"}
    options = {ours: said[theirs] for theirs, ours in names.items() if said.get(theirs) is not None}
    data = de.FolderData(folder, ensemble.task.name, **options, **ensemble.reading)
    seen = {member.spec.input_size for _, member in ensemble.named_members()}
    size = seen.pop() if len(seen) == 1 else None
    images, wanted = [], []
    for image, target, points in images_with_targets(data, "val"):
        images.append(image if size is None else resize_maps(image, size, antialias=True))
        wanted.append((target, points))
    return torch.cat(images), wanted


def keep_predictions(ensemble: de.Ensemble, images: Tensor, folder: Path) -> list[Any]:
    """Maps ``(N, K, h, w)`` of every member for all images, with temperatures, as 16-bit floats mapped from disk."""
    arrays: dict[str, Any] = {}
    for number, image in enumerate(images):
        for name, maps in ensemble.member_maps(image[None]):
            if name not in arrays:
                shape = (len(images), *maps.shape[1:])
                arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, shape)
            arrays[name][number] = maps[0].numpy()
    return [arrays[name] for name in ensemble.members]


def naive(ensemble: de.Ensemble, images: Tensor, batch: int) -> None:
    """The naive loop over all members."""
    for part in images.split(batch):
        torch.stack([ensemble.task.activation(member(part)) for member in ensemble.members.values()]).mean(0)


def cascaded(ensemble: de.Ensemble, images: Tensor, halves: list[Half], batch: int) -> list[Any]:
    """Results of each half with its policy, which was fitted on the other half."""
    return [predict_cascade(ensemble, images[numbers], policy, batch=batch) for numbers, policy in halves]


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def interleaved(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each variant in every round; the first round is a warm-up."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, run in ways.items():
            taken = seconds(run)
            if number:
                samples[name].append(taken)
    return samples


def fitted_halves(
    held: HeldOut, combination: Combination, objective: Objective, costs: list[float], asked: Any
) -> list[Half]:
    """Both ways; each half is a run of neighbours."""
    middle = len(held) // 2
    first, second = list(range(middle)), list(range(middle, len(held)))
    found = []
    for seen, unseen in ((first, second), (second, first)):
        cascade = fit_cascade(held.only(seen), combination, objective, costs)
        policy = cascade.for_budget(asked.budget) if asked.budget is not None else cascade.for_keep(asked.keep)
        found.append((unseen, policy))
    return found


def full_maps(ensemble: de.Ensemble, held: HeldOut) -> Iterator[Tensor]:
    """Map ``(1, K, h, w)`` of the whole ensemble for each image."""
    for maps, _ in held:
        yield ensemble.combination.combine(maps[:, None])


def best_single(held: HeldOut, wanted: list[Any], halves: list[Half], objective: Objective) -> dict[str, Any]:
    """The best member on each half, scored on the other half at the size of the targets."""
    names, rows = [], []
    for unseen, _ in halves:
        seen = sorted(set(held.images) - set(unseen))
        scores = objective.signed(totals(held.only(seen), torch.eye(len(held.names)), objective))
        place = int(scores.argmax())
        names.append(held.names[place])
        maps = (own[place][None] for own, _ in held.only(unseen))
        rows.append(total(held.task, maps, [wanted[number] for number in unseen], objective))
    return {"members": names, "score": float(objective.value(torch.stack(rows).sum(0)))}


def total(task: Task, maps: Iterator[Tensor], wanted: list[Any], objective: Objective) -> Tensor:
    """Summed statistics of all images at the size of the targets."""
    rows = [measure(own.float(), truth, task, objective)[0] for own, truth in zip(maps, wanted, strict=True)]
    return torch.stack(rows).sum(0)


def member_costs(ensemble: de.Ensemble, images: Tensor, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per image of each member, in all rounds."""
    ways = {name: lambda own=member: own(images) for name, member in ensemble.members.items()}
    samples = interleaved(ways, rounds)
    return {name: [1000 * value / len(images) for value in values] for name, values in samples.items()}


def fit_and_refer(
    ensemble: de.Ensemble, images: Tensor, wanted: list[Any], costs: list[float], asked: argparse.Namespace
) -> tuple[list[Half], Tensor, dict[str, Any]]:
    """Policies of both halves, statistics of the full float32 ensemble on all images, and the best single member."""
    task, objective = ensemble.task, ensemble.task.objective(asked.metric)
    with tempfile.TemporaryDirectory() as folder:
        maps = keep_predictions(ensemble, images, Path(folder))
        size = size_of(maps[0])
        at_fixations = objective.name in ("nss", "auc_judd")  # targets are returned only at their full size
        small = [(resize_target(target, size, task.target_kind), None) for target, _ in wanted]
        held = held_out(tuple(ensemble.members), maps, wanted if at_fixations else small, task)
        halves = fitted_halves(held, ensemble.combination, objective, costs, asked)
        whole = total(task, full_maps(ensemble, held), wanted, objective)
        return halves, whole, best_single(held, wanted, halves, objective)


def time_ways(
    ensemble: de.Ensemble,
    together: de.Ensemble,
    fast: de.Ensemble,
    images: Tensor,
    halves: list[Half],
    asked: argparse.Namespace,
) -> dict[str, list[float]]:
    """Seconds of the naive loop and of the variants compared with it, on some of the images."""
    step = max(len(images) // asked.images, 1)
    numbers = list(range(0, len(images), step))[: asked.images]
    timed = images[numbers]
    place = {number: at for at, number in enumerate(numbers)}
    some = [([place[number] for number in unseen if number in place], policy) for unseen, policy in halves]
    ways: dict[str, Callable[[], Any]] = {
        NAIVE: lambda: naive(ensemble, timed, asked.batch),
        "all members, accelerated": lambda: [together(part) for part in timed.split(asked.batch)],
        "cascade, plain members": lambda: cascaded(ensemble, timed, some, asked.batch),
        "cascade, accelerated": lambda: cascaded(fast, timed, some, asked.batch),
    }
    return interleaved(ways, asked.rounds)


@torch.no_grad()
def bench(asked: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(asked.threads)
    ensemble = de.load(asked.ensemble)
    task, objective = ensemble.task, ensemble.task.objective(asked.metric)
    images, wanted = read_images(ensemble, asked.data)
    example = images[: asked.batch]
    together = accelerate(ensemble, example, asked.backend, asked.precision)
    fast = accelerate(ensemble, example, asked.backend, asked.precision, shared=False)
    each = member_costs(fast, images[: asked.batch], asked.rounds)
    costs = {name: statistics.median(values) for name, values in each.items()}
    halves, whole, single = fit_and_refer(ensemble, images, wanted, list(costs.values()), asked)
    found = cascaded(fast, images, halves, asked.batch)
    order = [number for numbers, _ in halves for number in numbers]
    given = (own[None] for one in found for own in one.prediction.mean)
    score = objective.value(total(task, given, [wanted[number] for number in order], objective))
    full = objective.value(whole)
    samples = time_ways(ensemble, together, fast, images, halves, asked)
    medians = {name: statistics.median(values) for name, values in samples.items()}
    size = size_of(images)
    work = {n: count_macs(member, size, "cpu", ensemble.in_channels) for n, member in ensemble.members.items()}

    def spent(amounts: dict[str, Any]) -> list[CascadeUse]:
        shares = {name: amount / sum(amounts.values()) for name, amount in amounts.items()}
        return [cascade_use(one.used, policy, shares) for one, (_, policy) in zip(found, halves, strict=True)]

    return {
        "ensemble": asked.ensemble.name,
        "members": list(ensemble.members),
        "asked": {"budget": asked.budget} if asked.budget is not None else {"keep": asked.keep},
        "backend": asked.backend,
        "precision": asked.precision,
        "chosen": {n: [f"{c.choice.backend} {c.choice.precision}" for c in own] for n, own in choices(fast).items()},
        "batch": asked.batch,
        "images scored": len(images),
        "images timed": min(asked.images, len(images)),
        "metric": objective.name,
        "full score": float(full),
        "best single member": single,
        "cascade score": float(score),
        "score kept": float(kept_share(score, full, objective.higher_is_better)),
        "policies": [asdict(policy) for _, policy in halves],
        "stopped after": [list(use.images) for use in spent(costs)],
        "members per image": [use.members for use in spent(costs)],
        "share of time": [use.cost for use in spent(costs)],
        "share of FLOPs": [use.cost for use in spent(work)],
        "median seconds": medians,
        "times faster than naive": {name: medians[NAIVE] / value for name, value in medians.items()},
        "samples": samples,
        "samples of members, ms an image": each,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ensemble", type=Path, help="run folder or NAME.safetensors")
    parser.add_argument("data", type=Path, help="its data set")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--keep", type=float, default=0.995, help="share of the full score")
    group.add_argument("--budget", type=float, help="share of the full cost")
    parser.add_argument("--metric", help="default: the task's own")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=32, help="how many are timed in every round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    found = bench(asked)
    result = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"sets": {}}
    result |= environment("openvino", "onnxruntime")
    result["sets"][asked.data.name] = found
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, value in found["times faster than naive"].items():
        print(f"{name:26} {found['median seconds'][name]:7.3f} s   {value:5.2f} x")
    kept = 100 * found["score kept"]
    print(f"{found['metric']} {found['cascade score']:.4f} of {found['full score']:.4f}: {kept:.2f} % kept")
    print(f"members per image {found['members per image']}, share of FLOPs {found['share of FLOPs']}; in {RESULT}")


if __name__ == "__main__":
    main()
