"""Measure the gains of selection, calibration and conformal sets on validation images of real runs.

Selects members on a random half of the validation images and scores the other half, five times: the best single
member; the mean of all; five by hand (the five with the best single scores on the half for selection, as a person would
select them); the best k (the same with the k that scores best there); and the greedy selection. For classes, it then
calibrates on the same half and scores the calibration on the other, also with the halves in the order of the images. It
fits conformal sets on a quarter and checks them on another. The best epoch of each member was selected on all images.

Trains the members of examples/choosing that RUNS does not contain yet: one to two hours on two cores.
Writes benchmarks/results/choosing.json and docs/reference/choosing-results.md.

    python benchmarks/choosing.py RUNS --data SHARED_DATA [--weights-dir DIR] [--threads 2]
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from choosing_page import PAGE, RESULT, write_page
from environment import environment
from torchmetrics.classification import MulticlassCalibrationError
from torchmetrics.functional.classification.calibration_error import _ce_compute
from torchmetrics.utilities import dim_zero_cat

from densemble.config import make_config, read_config
from densemble.data.folder import FolderData
from densemble.ensemble.combination import Combination
from densemble.ensemble.guarantee import binomial_interval, coverage, fit_set
from densemble.evaluation.bootstrap import bootstrap, bootstrap_gain
from densemble.messages import shown
from densemble.metrics import Objective
from densemble.run import Run, run_members
from densemble.selection.calibration import best_calibration, fit_calibration, member_temperatures
from densemble.selection.candidate_scores import statistics as statistics_of_images
from densemble.selection.candidate_scores import totals
from densemble.selection.choose import mean_of
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.selection.held_out_targets import full_size_targets, small_targets
from densemble.selection.open_candidates import open_all
from densemble.selection.strategies import all_candidates, best, greedy, price
from densemble.selection.timing import milliseconds
from densemble.selection.variants import find_candidates
from densemble.shapes import size_of

HERE = Path(__file__).parent
SETS = {"osie": "saliency-osie", "camvid": "segmentation-camvid"}
ALSO = {"saliency": "nss", "segmentation": "nll"}
REPEATS, BY_HAND = 5, 5


def open_run(folder: Path, example: Path, data: Path, weights_dir: str | None) -> Run:
    """Open a run; train it first if it is missing, or finish its training if it was interrupted."""
    if not (folder / "ensemble.safetensors").is_file():
        config = make_config({**read_config(example), "weights_dir": weights_dir}, str(example))
        started = (folder / "run.yaml").is_file()
        with shown(print):
            run_members(FolderData(data, config.task, **config.data), config, folder, resume=started)
    return Run(folder, data)


def ranked(held: HeldOut, objective: Objective) -> list[int]:
    """Members by their single score, the best first."""
    scores = objective.signed(totals(held, torch.eye(len(held.names)), objective)).tolist()
    return sorted(range(len(scores)), key=lambda number: -scores[number])


def equally(members: list[int], count: int) -> list[float]:
    """Equal weights for some of ``count`` members."""
    return [1 / len(members) if number in members else 0.0 for number in range(count)]


def by_hand(held: HeldOut, objective: Objective) -> list[float]:
    """Equal weights for the five members with the best single scores."""
    return equally(ranked(held, objective)[:BY_HAND], len(held.names))


def best_k(held: HeldOut, objective: Objective) -> list[float]:
    """Equal weights for the k members with the best single scores; k is the number whose mean scores best."""
    order, count = ranked(held, objective), len(held.names)
    rows = [equally(order[:k], count) for k in range(1, count + 1)]
    scores = objective.signed(totals(held, torch.tensor(rows), objective)).tolist()
    return rows[scores.index(max(scores))]


CHOICES: dict[str, Callable[[HeldOut, Objective], Any]] = {
    "best single": lambda held, objective: best(held, objective).weights,
    "mean of all": lambda held, objective: all_candidates(held, objective).weights,
    "five by hand": by_hand,
    "best k": best_k,
    "greedy": lambda held, objective: greedy(held, objective).weights,
}


def random_halves(images: int, repeats: int) -> list[tuple[list[int], list[int]]]:
    random = np.random.default_rng(0)
    orders = [random.permutation(images).tolist() for _ in range(repeats)]
    return [(order[: images // 2], order[images // 2 :]) for order in orders]


def choose_and_score(
    held: HeldOut, own_size: HeldOut, halves: tuple[list[int], list[int]], costs: list[float]
) -> dict[str, dict[str, Any]]:
    """Each selection made on the first half and scored on the second."""
    seen, unseen = halves
    objective, other = held.task.objective(), held.task.objective(ALSO[held.task.name])
    tempered = member_temperatures(held.only(seen), "temperature")
    weights = {name: list(choice(tempered, objective)) for name, choice in CHOICES.items()}
    scored = tempered.only(unseen)
    rows = statistics_of_images(scored, list(weights.values()), objective)
    at_fixations = other.name == "nss"
    others = totals(own_size.only(unseen) if at_fixations else scored, list(weights.values()), other)
    places = {name: place for place, name in enumerate(weights)}
    found = {}
    for name, own in weights.items():
        mine = rows[places[name]]
        gains = {f"over {old}": bootstrap_gain(mine, rows[places[old]], objective) for old in CHOICES if old != name}
        found[name] = {
            "weights": dict(zip(held.names, own, strict=True)),
            objective.name: bootstrap(mine, objective)._asdict(),
            other.name: float(other.value(others[places[name]])),
            **{key: gain._asdict() for key, gain in gains.items()},
            "members": int(np.count_nonzero(own)),
            "milliseconds": price(own, costs),
        }
    return found


def honesty(held: HeldOut, combination: Combination) -> dict[str, Any]:
    """Calibration of combined members, and torchmetrics' result on the same pixels."""
    task = held.task
    metric = task.metrics()
    theirs = MulticlassCalibrationError(task.out_channels, n_bins=15, norm="l1", ignore_index=task.ignore_index)
    for maps, target in held.combined(combination):
        metric.update(maps, target)
        # torchmetrics applies a softmax if a value is above 1, even by rounding.
        theirs.update(maps[None].clamp(0, 1), target.long()[None])
    values = metric.compute()
    known = {key: values[key] for key in ("miou", "ece", "classwise_ece", "brier", "nll")}
    # torchmetrics sums over bins in single precision, which is not exact for half a million pixels; in double it is.
    confidences, right = (dim_zero_cat(part).double() for part in (theirs.confidences, theirs.accuracies))
    exact = float(_ce_compute(confidences, right, 15, "l1"))
    return {**known, "torchmetrics_ece": exact, "torchmetrics_ece_in_single_precision": float(theirs.compute())}


def calibrate_and_score(held: HeldOut, weights: list[float], halves: tuple[list[int], list[int]]) -> dict[str, Any]:
    """Scores on the second half, before and after each calibration fitted on the first half."""
    seen, unseen = halves
    chosen, mean = mean_of(held, weights)
    found: dict[str, Any] = {"before": honesty(chosen.only(unseen), mean)}
    tempered = member_temperatures(chosen.only(seen), "temperature")
    for way in ("temperature", "vector"):
        found[way] = honesty(tempered.only(unseen), fit_calibration(tempered, mean, way))
    found["auto"] = best_calibration(tempered, mean)
    return found


def promise_and_check(held: HeldOut, halves: tuple[list[int], list[int]]) -> list[dict[str, Any]]:
    """Sets fitted on one quarter of the images and checked on another; selection and calibration use the other half."""
    seen, unseen = halves
    objective = held.task.objective()
    chosen, mean = mean_of(held, greedy(held.only(seen), objective).weights)
    combination = fit_calibration(chosen.only(seen), mean, "temperature")
    fit_on, check_on = unseen[::2], unseen[1::2]
    found = []
    for level in (0.1, 0.05):
        fitted = fit_set(lambda: chosen.only(fit_on).combined(combination), held.task, level)
        checked = coverage(lambda: chosen.only(check_on).combined(combination), fitted, held.task)
        low, high = binomial_interval(1 - level, checked.images)
        found.append(
            {"promised": 1 - level, "coverage": checked.per_image, "size": checked.size, "fitted_on": len(fit_on),
             "checked_on": checked.images, "low": low, "high": high}
        )  # fmt: skip
    return found


def measure(run: Run) -> dict[str, Any]:
    data = run.open_data()
    candidates, maps, dropped = open_all(find_candidates(run.folder, run.config), len(data.val), run.task.out_channels)
    assert not dropped, dropped
    members = [(one, own) for one, own in zip(candidates, maps, strict=True) if one.kind == "member"]
    names = [one.name for one, _ in members]
    arrays = [own for _, own in members]
    size = size_of(arrays[0])
    held = held_out(names, arrays, small_targets(data, run.config, run.folder, size), run.task)
    own_size = held_out(names, arrays, full_size_targets(data, "val"), run.task)
    times = milliseconds(run.folder, candidates, run.config.input_size)
    costs = [times[name] for name in names]
    halves = random_halves(len(held), REPEATS)
    middle = len(held) // 2
    blocks = [(list(range(middle)), list(range(middle, len(held))))]
    blocks.append((blocks[0][1], blocks[0][0]))
    print(f"{run.folder.path}: choosing", flush=True)
    found: dict[str, Any] = {
        "task": run.task.name, "metric": run.task.primary, "also": ALSO[run.task.name], "pictures": len(held),
        "map_size": list(size), "members": {one.name: one.val for one, _ in members},
        "milliseconds": dict(zip(names, costs, strict=True)),
        "halvings": [choose_and_score(held, own_size, pair, costs) for pair in halves],
        "blocks": [choose_and_score(held, own_size, pair, costs) for pair in blocks],
    }  # fmt: skip
    if run.task.name != "segmentation":
        return found
    objective = run.task.objective()
    print(f"{run.folder.path}: calibrating", flush=True)
    ensembles = {
        "greedy": lambda seen: greedy(held.only(seen), objective).weights,
        "mean of all": lambda seen: all_candidates(held, objective).weights,
    }
    found["calibration"] = {
        name: {
            kind: [calibrate_and_score(held, list(choose(pair[0])), pair) for pair in pairs]
            for kind, pairs in (("halvings", halves), ("blocks", blocks))
        }
        for name, choose in ensembles.items()
    }
    found["conformal"] = [promise_and_check(held, pair) for pair in halves]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="folder with the runs osie and camvid, or where they are made")
    parser.add_argument("--data", type=Path, required=True, help="folder of saliency-osie and segmentation-camvid")
    parser.add_argument("--weights-dir", default=None, help="folder of pretrained weights")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    found = {}
    for name, folder in SETS.items():
        example = HERE.parent / "examples" / "choosing" / f"{name}.yaml"
        found[name] = measure(open_run(options.runs / name, example, options.data / folder, options.weights_dir))
    result = {"environment": environment("torchmetrics"), "sets": found}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    write_page(PAGE, result)
    for name, values in found.items():
        for choice in CHOICES:
            scores = [halving[choice][values["metric"]]["value"] for halving in values["halvings"]]
            print(f"{name} {choice}: {values['metric']} {statistics.mean(scores):.4f}")
    print(f"wrote {RESULT} and {PAGE}")


if __name__ == "__main__":
    main()
