"""The page of docs that `choosing.py` writes."""

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

WAYS = ("before", "temperature", "vector")
TITLES = {"osie": "saliency-osie", "camvid": "segmentation-camvid"}


def write_page(path: Path, result: dict[str, Any]) -> None:
    """Markdown of all tables."""
    parts = [
        "# What choosing, calibrating and promising are worth",
        "Written by `benchmarks/choosing.py`; raw values in `benchmarks/results/choosing.json`. Seven members each, "
        "trained by [`examples/choosing`](../../examples/choosing) on two CPU cores: three pretrained "
        "EfficientNet-Lites, one more with another head, a frozen VGG-16, and SqueezeNet and `resdeconv` from "
        "scratch. Scores are of kept maps on validation pictures that nothing was chosen or fitted by. *Five by hand* "
        "are the five best by their own score on the half that was chosen by, with equal weights.",
    ]
    for name, values in result["sets"].items():
        parts += _choosing(TITLES[name], values)
    for name, values in result["sets"].items():
        if "calibration" in values:
            parts += _calibration(TITLES[name], values)
            parts += _conformal(TITLES[name], values)
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _choosing(title: str, values: dict[str, Any]) -> list[str]:
    metric, also = values["metric"], values["also"]
    height, width = values["map_size"]
    parts = [
        f"## Choosing: {title}",
        f"{values['pictures']} pictures, maps of {height}x{width}. Means over five random halvings; in brackets the "
        "lowest and the highest of the five. Gains of the greedy choice are paired over resampled pictures: each "
        "halving's 95 % interval, the ends averaged; *sure* counts the halvings whose interval excludes 0.",
        _choices(values["halvings"], metric, also),
        _gains(values["halvings"], metric),
    ]
    order = "First half to choose by and second to score, in the order of the pictures, and the other way round:"
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
    return _table(["choice", metric, also, "members that run", "ms per picture"], rows)


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
        "Fitted on one half, measured on the other over all its pixels. *Before* is the ensemble without any "
        "calibration; *temperature* and *vector* begin with a temperature of each member. *auto* says which of the two "
        "`--calibrate auto` takes, by crossed halves of the half that it learns from.",
    ]
    names = {
        "halvings": "five random halvings, means",
        "blocks": "halves in the order of the pictures, mean of both ways",
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
        f"The ECE differs from that of torchmetrics on the same pixels by at most {exact:.0e} where its sums are in "
        f"double precision; as it comes, in single precision, by up to {single:.0e}: half a million pixels are too "
        "many for that."
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
        "Sets of classes fitted on a quarter of the pictures and checked on another, five times. Coverage is the mean "
        "over pictures of the share of pixels whose true class is in the set."
    )
    columns = ["promised", "pictures fitted, checked", "coverage", "binomial interval", "inside", "classes per set"]
    return [f"## Conformal sets: {title}", said, _table(columns, lines)]


def _mean(rows: Iterable[dict[str, Any]], key: str) -> float:
    return mean(row[key] for row in rows)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    line: Callable[[list[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
