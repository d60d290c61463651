"""Write docs/reference/speed.md from the result files of the speed benchmarks that exist."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from speed_tables import cascades, folder, shown, table, threads, tiles

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "speed.md"
PROFILE_ROWS = 8
NAIVE, BEST = "naive loop", "ours, auto bf16"
"""Names of two variants in the result files."""
MEANING = """\
All variants run the same members with the same weights, interleaved in one process:

- *Naive loop* runs one member after the other with the defaults of PyTorch (eager, float32, channels first) and takes \
the mean of the stacked maps.
- Rows that begin with *PyTorch*, if present, are the same loop with options that PyTorch offers in one or two lines.
- torch-uncertainty, pytorch-toolbelt and MONAI compute the same mean. MONAI's sliding window gets the whole image as \
its only window, so it computes the same map.
- *densemble, auto* uses for each member the fastest backend whose outputs agree with eager float32.

Columns:

- Times are medians. *Times as fast* is the median of the ratios to the naive loop of the same round.
- *Relative error* is the largest difference to the map of the naive loop, divided by the largest value of that map.
- *Time over limit* is the time divided by the time that the same operations take at the convolution peak measured in \
the same run. The peak is the highest rate that oneDNN sustains over 3x3 convolutions of 64 to 256 channels in the \
precision of each member.
- GFLOPs are those of the whole batch."""


def write_page() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Markdown of all tables."""
    parts = [
        "# Speed",
        "Written by `python benchmarks/speed_page.py` from the result files in `benchmarks/results/`, which also "
        "contain the raw samples. To measure your own ensemble on your machine, run "
        "`densemble benchmark NAME.safetensors`.",
        MEANING,
    ]
    for name, section in SECTIONS.items():
        path = RESULTS / f"{name}.json"
        if path.is_file():
            parts += section(json.loads(path.read_text(encoding="utf-8")))
    return "\n\n".join(parts) + "\n"


def _measured_on(result: dict[str, Any]) -> str:
    facts = result["measured_on"]
    versions = ", ".join(f"{name} {value}" for name, value in facts["versions"].items() if value)
    return f"{facts['processor']}, {threads(facts)}; {versions}; commit {result['commit'][:10]}."


def _ensembles(result: dict[str, Any]) -> Iterator[str]:
    yield "## Ensembles beside other libraries"
    yield f"{_measured_on(result)} {result['rounds']} rounds."
    if result["left_out"]:
        yield f"Not installed on the machine of this measurement: {', '.join(result['left_out'])}."
    for case in result["cases"]:
        height, width = case["size"]
        yield f"### {case['name'].capitalize()}, {height}x{width}, batch {case['batch']}"
        yield _limits(case["limits"])
        yield _ways(case["ways"])
        yield _members(case["members"])
        if "processes" in case:
            yield _processes(case["processes"])
        if "scores" in case:
            yield from _scores(case["scores"])


def _limits(limits: dict[str, Any]) -> str:
    rates = [f"{rate / 1e9:.0f} GFLOP/s in {name}" for name, rate in limits["convolution"].items()]
    products = [f"{rate / 1e9:.0f} in {name}" for name, rate in limits["matmul"].items()]
    return (
        f"Limits of the machine: convolutions {', '.join(rates)}; matrix products {', '.join(products)}; copies "
        f"{limits['bandwidth'] / 1e9:.0f} GB/s, read and written."
    )


def _ways(ways: dict[str, Any]) -> str:
    rows = [
        [shown(name), f"{1000 * way['median_seconds']:.0f}", f"{way['times_as_fast']:.2f}",
         f"{way['relative_error']:.0e}", _number(way["times_the_least"])]
        for name, way in ways.items()
    ]  # fmt: skip
    return table(["variant", "ms", "times as fast", "relative error", "time over limit"], rows)


def _members(members: list[dict[str, Any]]) -> str:
    rows = []
    for member in members:
        naive, fp32, best = (member["ways"][way] for way in (NAIVE, "ours, auto fp32", BEST))
        rows.append(
            [member["name"], f"{member['flops_rewritten'] / 1e9:.1f}", f"{1000 * naive['median_seconds']:.1f}",
             *_run(fp32), *_run(best)]
        )  # fmt: skip
    columns = [f"{way}: {column}" for way in ("fp32", "bf16") for column in ("ms", "runs on", "share of the peak")]
    return table(["member", "GFLOPs", "naive: ms", *columns], rows)


def _run(way: dict[str, Any]) -> list[str]:
    share = way["share_of_peak"]
    runs_on = f"{way['backend']} {way['precision']}"
    return [f"{1000 * way['median_seconds']:.1f}", runs_on, "" if share is None else f"{share:.0%}"]


def _processes(processes: dict[str, Any]) -> str:
    steps = ("import", "load", "compile", "predict")
    rows = [
        [shown(name), f"{one['peak_mib'] or 0:.0f}", f"{one['cold_start_seconds']:.1f}",
         *(f"{one['seconds'][step]:.1f}" for step in steps)]
        for name, one in processes.items()
    ]  # fmt: skip
    return table(["new process", "peak MiB", "time to first map, s", *(f"{step}, s" for step in steps)], rows)


def _scores(scores: dict[str, Any]) -> Iterator[str]:
    """Scores of the variants that run all members. Cascades are left out: they were fitted on these images."""
    images = len(scores["ways"][NAIVE]["samples"])
    yield f"Score and time over the {images} validation images, predicted one by one, in the same run."
    metric = scores["primary"]
    rows = [
        [shown(name), f"{way[metric]:.4f}", f"{way['lost']:+z.4f}", "" if way["kept"] is None else f"{way['kept']:.2%}",
         f"{1000 * way['seconds'] / images:.0f}", f"{way['times_as_fast']:.2f}"]
        for name, way in scores["ways"].items()
        if not name.endswith("cascade")
    ]  # fmt: skip
    yield table(["variant", metric, "score lost", "score kept", "ms per image", "times as fast"], rows)
    if scores["policy"] is not None:
        yield _cascade(scores["checks"])


def _cascade(checks: list[dict[str, Any]]) -> str:
    """Score that cascades keep on images that they were not fitted on."""
    kept = [
        f"for {check['share']:.1%}, it kept {check['kept']:.2%} at {check['cost']:.0%} of the cost"
        for check in checks
        if check["asked"] == "keep" and check["kept"] is not None
    ]
    return (
        "A cascade of this ensemble, fitted on one half of the validation images to keep a share of the score, and "
        f"checked on the other half: {'; '.join(kept)}. The baseline is the plain mean of all members, good and weak."
    )


def _scaling(result: dict[str, Any]) -> Iterator[str]:
    yield "## Scaling with members and pixels"
    yield f"{_measured_on(result)} Members are copies of {result['backbone']} with different weights."
    for axis, words in (("members", "members"), ("pixels", "kilopixels")):
        rows = [
            [f"{point / (1000 if axis == 'pixels' else 1):.0f}", *(f"{1000 * way[str(point)]:.1f}" for way in times)]
            for times in [[row["median_seconds"] for row in result[axis]["ways"].values()]]
            for point in result[axis]["points"]
        ]
        fits = ", ".join(f"{shown(name)} {row['r_squared']:.4f}" for name, row in result[axis]["ways"].items())
        yield f"Milliseconds by number of {words}. R² of a linear fit: {fits}."
        yield table([words, *map(shown, result[axis]["ways"])], rows)
    yield (
        "Peak resident memory of new processes that load and predict, in MiB, by number of members. The last column is "
        "the largest growth over a single member, without the weights."
    )
    yield table(
        ["variant", *map(str, result["memory"]["points"]), "growth without the weights"],
        [
            [shown(name), *(f"{row['peak_mib'][str(count)]:.0f}" for count in result["memory"]["points"]),
             f"{row['growth']:+.0%}"]
            for name, row in result["memory"]["ways"].items()
        ],
    )  # fmt: skip
    yield "Shares of the time of one prediction: inside the networks, and in densemble's code around them."
    yield table(
        ["variant", "inside the networks", "around them"],
        [[shown(name), f"{1 - row['share']:.1%}", f"{row['share']:.1%}"] for name, row in result["overhead"].items()],
    )
    for name, row in result["overhead"].items():
        yield f"Profile of *{shown(name)}*: functions, including those of the networks, by their share of the time."
        functions = [[f"`{one['function']}`", f"{one['share']:.1%}"] for one in row["profile"][:PROFILE_ROWS]]
        yield table(["function", "share"], functions)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


SECTIONS: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "ensemble": _ensembles,
    "cascade": cascades,
    "scaling": _scaling,
    "tiles": tiles,
    "folder": folder,
}
"""Sections of the page, by the name of their result file."""


if __name__ == "__main__":
    write_page()
