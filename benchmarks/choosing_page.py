"""Write docs/reference/choosing-results.md from benchmarks/results/choosing.json.

`choosing.py` measures the results and writes the page. `python benchmarks/choosing_page.py` writes only the page.
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
Written by `benchmarks/choosing.py`; the raw values are in `benchmarks/results/choosing.json`. On each data set, seven \
members are trained by [`examples/choosing`](../../examples/choosing) on two CPU cores: three pretrained \
EfficientNet-Lites, one of them again with another head, a frozen VGG-16, and SqueezeNet and `resdeconv` from scratch.

**Which images are used for what.** Selection, weights, temperatures and calibration are fitted on one half of the \
validation images and scored on the other half, on stored maps (at the output size of the members). There is one \
exception: the best epoch of each member was selected on *all* validation images, so the absolute scores of all rows \
are slightly optimistic. The validation images of segmentation-camvid are neighbouring frames of a film, so both \
random halves contain near-copies of the same images. For this data set, rely on the tables for halves in the order of \
the images."""
BY_HAND = "*Five by hand* is the mean of the five members with the best single scores on the half for selection."
BEST_K = "*Best k* is the same with k members; k is the number with the best score on that half."


def write_page(path: Path, result: dict[str, Any]) -> None:
    path.write_text(page(result), encoding="utf-8")


def page(result: dict[str, Any] | None = None) -> str:
    """Markdown of all tables; default: of the result file."""
    result = result or json.loads(RESULT.read_text(encoding="utf-8"))
    choices = next(iter(result["sets"].values()))["halvings"][0]
    said = " ".join([BY_HAND, *([BEST_K] if "best k" in choices else [])])
    parts = ["# Gains of selection, calibration and conformal sets", f"{MEANING}\n\n{said}"]
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
        f"{values['pictures']} images, maps of {height}x{width}. The images are divided into random halves five times. "
        "The first table shows means over the five halvings, and the lowest and the highest value in brackets. The "
        "second table shows the gain of the greedy selection. Its 95 % interval comes from paired resampling of the "
        "images; the ends are averaged over the halvings. *Significant* counts the halvings whose interval excludes 0.",
        _choices(values["halvings"], metric, also),
        _gains(values["halvings"], metric),
    ]
    order = "Halves in the order of the images; selected on the first and scored on the second, and the reverse:"
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
    return _table(["selection", metric, also, "members", "ms per image"], rows)


def _gains(halvings: list[dict[str, Any]], metric: str) -> str:
    rows = []
    for old in (name for name in halvings[0] if name != "greedy"):
        gains = [halving["greedy"][f"over {old}"] for halving in halvings]
        low, high = mean(gain["low"] for gain in gains), mean(gain["high"] for gain in gains)
        above = sum(gain["low"] > 0 for gain in gains)
        below = sum(gain["high"] < 0 for gain in gains)
        value = mean(gain["value"] for gain in gains)
        rows.append([f"over {old}", f"{value:+.4f}", f"{low:+.4f} to {high:+.4f}", f"{above} better, {below} worse"])
    return _table([f"greedy, gain in {metric}", "mean", "95 % interval", "significant, of five"], rows)


def _calibration(title: str, values: dict[str, Any]) -> list[str]:
    parts = [
        f"## Calibration: {title}",
        "Fitted on one half and measured on all pixels of the other. *Before* is the ensemble without any calibration. "
        "*Temperature* and *vector* also use one temperature per member. `--calibrate auto` compares both methods by "
        "cross-fitting within the half that it is fitted on; the last column counts how often it selects each method.",
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
        f"On the same pixels, the ECE differs from that of torchmetrics by at most {exact:.0e} if torchmetrics sums in "
        f"double precision. With its default single precision, which is not accurate enough for half a million pixels, "
        f"the difference is up to {single:.0e}."
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
    return _table(["", *keys, "ECE, share of before", "selected by auto"], lines)


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
        "Members are selected and calibrated on one half of the images. Sets of classes are fitted on one quarter and "
        "checked on the last quarter, for five random divisions. Coverage is the mean over images of the share of "
        "pixels whose class is in the set. This check can detect only large errors: neighbouring frames are in both "
        "quarters, and the binomial interval of 25 images is wide."
    )
    columns = [
        "requested coverage",
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
