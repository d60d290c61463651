"""Check that cross-fitted scores are unbiased, on generated members of known skill with many repetitions.

    python benchmarks/nested_check.py [--repeats 50] [-o benchmarks/results/nested_check.json]

In every repetition, predictions of six members on 40 validation images are generated, and an ensemble is made with each
of four recipes. Its cross-fitted score, which a report would show, is compared with the score of the same ensemble on
400 new images. The result also contains the in-sample score. The exit status is 1 if the mean difference between
reported and true score of a recipe is further from 0 than its 95 % interval.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment

from densemble.selection.baseline_filter import baseline_filter
from densemble.selection.candidate_maps import Evidence
from densemble.selection.candidate_scores import measure
from densemble.selection.cross_fit import cross_fit
from densemble.selection.folds import folds_of
from densemble.selection.held_out_predictions import HeldOut, held_out
from densemble.selection.options import Options
from densemble.selection.recipe import Recipe
from densemble.tasks import SegmentationTask

CLASSES, SIZE, MEMBERS, IMAGES, FRESH = 3, (12, 16), 6, 40, 400
RECIPES: dict[str, tuple[str, Options]] = {
    "best": ("miou", Options(select="best", calibrate="none")),
    "greedy": ("miou", Options(select="greedy", calibrate="none")),
    "auto rule": ("miou", Options(select="greedy", combine="auto", calibrate="none")),
    "calibrated": ("nll", Options(select="greedy", metric="nll", calibrate="auto")),
}
"""Metric and options by name."""


def generate(seed: int, images: int, skills: Sequence[float], biases: np.ndarray[Any, Any]) -> HeldOut:
    """Predictions: the target's one-hot map times a skill, plus common noise and noise of each member, sharpened."""
    random, task = np.random.default_rng(seed), SegmentationTask(tuple("abc"))
    coarse = random.integers(0, CLASSES, (images, 3, 4))
    labels = coarse.repeat(4, 1).repeat(4, 2)
    ideal = np.eye(CLASSES)[labels].transpose(0, 3, 1, 2)
    hard = random.normal(0, 1.0, (images, 1, 1, 1))  # images differ in difficulty
    common = random.normal(size=ideal.shape)
    maps = []
    for skill, bias in zip(skills, biases, strict=True):
        noise = 0.8 * common + random.normal(size=ideal.shape)
        logits = 2.0 * ((skill + 0.3 * hard) * ideal + noise + bias[:, None, None])
        maps.append(torch.softmax(torch.from_numpy(logits).float(), 1).numpy())
    names = [f"member{number}" for number in range(len(skills))]
    return held_out(names, maps, [(torch.from_numpy(label), None) for label in labels], task)


def score(maps: Iterator[tuple[torch.Tensor, Any]], held: HeldOut, metric: str) -> float:
    """Metric over all images, from pairs of combined map and target."""
    objective = held.task.objective(metric)
    return float(objective.value(torch.cat([measure(one, truth, held.task, objective) for one, truth in maps]).sum(0)))


def repeat(seed: int, scratch: Path) -> list[dict[str, Any]]:
    """One repetition of all recipes."""
    random = np.random.default_rng(10_000 + seed)
    skills = random.uniform(0.8, 1.4, MEMBERS).tolist()
    biases = random.normal(0, 0.3, (MEMBERS, CLASSES))
    known, fresh = generate(2 * seed, IMAGES, skills, biases), generate(2 * seed + 1, FRESH, skills, biases)
    rows = []
    for name, (metric, options) in RECIPES.items():
        objective = known.task.objective(metric)
        evidence = Evidence(known, known, known, scratch)
        costs = dict.fromkeys(known.names, 1.0)
        recipe = Recipe(evidence, options, objective, costs, baseline_filter(known, []))
        with recipe.on(list(range(IMAGES))) as fitting:
            fitted = fitting.ensemble()
        crossed = cross_fit(recipe, folds_of(range(IMAGES), options.folds))
        reported = float(objective.value(crossed.of("ensemble").sum(0)))
        held, combine = fitted.held, fitted.combination.combine
        later = fresh.tempered(fitting.sampled.temperatures).of(held.names)
        true = score(((combine(maps[:, None]), truth) for maps, truth in later), later, metric)
        seen = score(((combine(maps[:, None]), truth) for maps, truth in held), held, metric)
        rows.append({"seed": seed, "recipe": name, "metric": metric, "reported": reported, "true": true, "seen": seen})
    return rows


def summarise(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean differences to the true score, with 95 % intervals of the mean (Student's t)."""
    from scipy.stats import t

    found = []
    for name, (metric, _) in RECIPES.items():
        own = [row for row in rows if row["recipe"] == name]
        true, reported, seen = (np.array([row[key] for row in own]) for key in ("true", "reported", "seen"))
        bias, optimism = reported - true, seen - true
        reach = float(t.ppf(0.975, len(own) - 1) * bias.std(ddof=1) / np.sqrt(len(own)))
        found.append(
            {
                "recipe": name, "metric": metric, "true": float(true.mean()),
                "reported": float(reported.mean()), "bias": float(bias.mean()), "interval": reach,
                "in_sample_bias": float(optimism.mean()), "unbiased": bool(abs(bias.mean()) <= reach),
            }
        )  # fmt: skip
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parent / "results" / "nested_check.json")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(given.repeats):
            rows += repeat(seed, Path(scratch))
            print(f"{seed + 1} of {given.repeats}", flush=True)
    summary = summarise(rows)
    print(f"{'recipe':<12}{'metric':<8}{'true':>9}{'reported':>10}{'bias':>10}{'+-':>9}{'in-sample bias':>16}")
    for row in summary:
        print(
            f"{row['recipe']:<12}{row['metric']:<8}{row['true']:>9.4f}{row['reported']:>10.4f}{row['bias']:>+10.4f}"
            f"{row['interval']:>9.4f}{row['in_sample_bias']:>+16.4f}{'' if row['unbiased'] else '   BIASED'}"
        )
    values = {"environment": environment(), "repeats": given.repeats, "summary": summary, "rows": rows}
    given.out.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["unbiased"] for row in summary) else 1


if __name__ == "__main__":
    raise SystemExit(main())
