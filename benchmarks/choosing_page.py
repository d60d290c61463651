"""The page of docs that `choosing.py` writes.

python benchmarks/choosing_page.py      writes it again from the result file
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

RESULT = Path(__file__).parent / "results" / "choosing.json"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "choosing-results.md"
WAYS = ("before", "temperature", "vector")
TITLES = {"osie": "saliency-osie", "camvid": "segmentation-camvid"}
MEANING = """\
Written by `benchmarks/choosing.py`; raw values in `benchmarks/results/choosing.json`. Seven members each, trained by \
[`examples/choosing`](../../examples/choosing) on two CPU cores: three pretrained EfficientNet-Lites, one more with \
another head, a frozen VGG-16, and SqueezeNet and `resdeconv` from scratch.

**What was fitted on which images.** Selection, weights, temperatures and calibration are fitted on one half of the \
validation images and scored on the other half, on kept maps (at the output size of the members). One thing was not: \
the epoch that is kept of each member was chosen on *all* validation images, so absolute scores are slightly \
optimistic, for all rows alike. The validation images of segmentation-camvid are neighbouring frames of a film: with \
random halves, near-copies of an image lie on both sides. The tables of halves in the order of the images are the \
ones to trust there."""
BY_HAND = "*Five by hand* are the five members with the best own score on the half for choosing, equally weighted."
BEST_K = (
    "*Best k* are the k members with the best own score there, equally weighted; k is the one that scores best there."
)


def write_page(path: Path, result: dict[str, Any]) -> None:
    path.write_text(page(result), encoding="utf-8")


def page(result: dict[str, Any] | None = None) -> str:
    """Markdown of all tables; default: of the result file."""
    result = result or json.loads(RESULT.read_text(encoding="utf-8"))
    choices = next(iter(result["sets"].values()))["halvings"][0]
    said = " ".join([BY_HAND, *([BEST_K] if "best k" in choices else [])])
    parts = ["# What selection, calibration and conformal sets are worth", f"{MEANING}\n\n{said}"]
    for name, values in result["sets"].items():
        parts += _choosing(TITLES[name], values)
    for name, values in result["sets"].items():
        if "calibration" in values:
            parts += _calibration(TITLES[name], values)
            parts += _conformal(TITLES[name], values)
    return "\n\n".join(parts) + "\n"


def _choosing(title: str, values: dict[str, Any]) -> list[str]:
    metric, also = values["metric"], values["also"]
    height, width = values["map_size"]
    parts = [
        f"## Selection: {title}",
        f"{values['pictures']} images, maps of {height}x{width}. Means over five random halvings; in brackets the "
        "lowest and the highest of the five. Gains of the greedy selection are paired over resampled images: the 95 % "
        "interval of each halving, the ends averaged; *sure* counts the halvings whose interval excludes 0.",
        _choices(values["halvings"], metric, also),
        _gains(values["halvings"], metric),
    ]
    order = "Halves in the order of the images: selected on the first and scored on the second, and the reverse:"
    return [*parts, order, _choices(values["blocks"], metric, also)]


def _choices(halvings: list[dict[str, Any]], metric: str, also: str) -> str:
    rows = []
    for name in halvings[0]:
        own = [halving[name] for halving in halvings]
        scores = [one[metric]["value"] for one in own]
        rows.append(
            [name, f"{mean(scores):.4f} ({min(scores):.4f} to {max(scores):.4f})", f"{_mean(own, also):.4f}",
             f"{_mean(own, 'members'):.1f}", f"{_mean(own, 'milliseconds'):.0f}"]
        )  # fmt: skip
    return _table(["selection", metric, also, "members that run", "ms per image"], rows)


def _gains(halvings: list[dict[str, Any]], metric: str) -> str:
    rows = []
    for old in (name for name in halvings[0] if name != "greedy"):
        gains = [halving["greedy"][f"over {old}"] for halving in halvings]
        low, high = mean(gain["low"] for gain in gains), mean(gain["high"] for gain in gains)
        above = sum(gain["low"] > 0 for gain in gains)
        below = sum(gain["high"] < 0 for gain in gains)
        value = mean(gain["value"] for gain in gains)
        rows.append([f"over {old}", f"{value:+.4f}", f"{low:+.4f} to {high:+.4f}", f"{above} better, {below} worse"])
    return _table([f"greedy, gain in {metric}", "mean", "95 % interval", "sure, of five"], rows)


def _calibration(title: str, values: dict[str, Any]) -> list[str]:
    parts = [
        f"## Calibration: {title}",
        "Fitted on one half, measured on all pixels of the other. *Before* is the ensemble without any calibration; "
        "*temperature* and *vector* start from one temperature per member. The last column counts how often "
        "`--calibrate auto` takes the method; it compares them by cross-fitting within the half that it is fitted on.",
    ]
    names = {
        "halvings": "five random halvings, means",
        "blocks": "halves in the order of the images, mean of both directions",
    }
    for ensemble, kinds in values["calibration"].items():
        for kind, rows in kinds.items():
            parts += [f"{ensemble.capitalize()}, {names[kind]}:", _honesty(rows)]
    rows = [
        row[way] for kinds in values["calibration"].values() for rows in kinds.values() for row in rows for way in WAYS
    ]
    exact = max(abs(row["ece"] - row["torchmetrics_ece"]) for row in rows)
    single = max(abs(row["ece"] - row["torchmetrics_ece_in_single_precision"]) for row in rows)
    said = (
        f"The ECE differs from that of torchmetrics on the same pixels by at most {exact:.0e} if torchmetrics sums in "
        f"double precision, and by up to {single:.0e} in its single precision, which is too coarse for half a million "
        "pixels."
    )
    return [*parts, said]


def _honesty(rows: list[dict[str, Any]]) -> str:
    keys = ("miou", "ece", "classwise_ece", "brier", "nll")
    lines = []
    for way in WAYS:
        own = [row[way] for row in rows]
        taken = sum(row["auto"] == way for row in rows)
        share = mean(one["ece"] for one in own) / mean(row["before"]["ece"] for row in rows)
        cells = [f"{_mean(own, key):.4f}" for key in keys]
        lines.append([way, *cells, f"{share:.2f}", "" if way == "before" else f"{taken} of {len(rows)}"])
    return _table(["", *keys, "ECE, share of before", "taken by auto"], lines)


def _conformal(title: str, values: dict[str, Any]) -> list[str]:
    lines = []
    for place in range(len(values["conformal"][0])):
        rows = [halving[place] for halving in values["conformal"]]
        inside = sum(row["low"] <= row["coverage"] <= row["high"] for row in rows)
        covered = [row["coverage"] for row in rows]
        first = rows[0]
        lines.append(
            [f"{100 * first['promised']:.0f} %", f"{first['fitted_on']}, {first['checked_on']}",
             f"{min(covered):.3f} to {max(covered):.3f}", f"{first['low']:.3f} to {first['high']:.3f}",
             f"{inside} of {len(rows)}", f"{_mean(rows, 'size'):.2f}"]
        )  # fmt: skip
    said = (
        "Sets of classes fitted on a quarter of the images and checked on another, five random times; the members were "
        "selected and calibrated on the other half. Coverage is the mean over images of the share of pixels whose "
        "class is in the set. Neighbouring frames lie in both quarters, and the binomial interval of 25 images is so "
        "wide that this check can hardly fail: it shows that nothing is grossly wrong, not more."
    )
    columns = [
        "level asked for",
        "images fitted, checked",
        "coverage",
        "binomial interval",
        "inside",
        "classes per set",
    ]
    return [f"## Conformal sets: {title}", said, _table(columns, lines)]


def _mean(rows: Iterable[dict[str, Any]], key: str) -> float:
    return mean(row[key] for row in rows)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    line: Callable[[list[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


if __name__ == "__main__":
    write_page(PAGE, json.loads(RESULT.read_text(encoding="utf-8")))
