"""The page of docs that benchmarks of speed write, from whichever of their results are there."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from speed_tables import cascades, folder, table, tiles

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "speed.md"
PROFILE_ROWS = 8
NAIVE, BEST = "naive loop", "ours, auto bf16"
MEANING = """\
*Naive loop* runs one member after the other as PyTorch does by default (eager, float32, channels first) and takes \
the mean of their stacked maps. Rows that begin with *PyTorch*, where measured, are the same loop with what PyTorch \
offers in one or two lines. torch-uncertainty, pytorch-toolbelt and MONAI do the same with the same members and \
weights; MONAI's sliding window gets the whole image as its only window, so that it computes the same map. *Ours, \
auto* uses for each member the fastest backend of those whose numbers agree with eager float32. All ways run in turn \
in one process; times are medians, and *times as fast* is the median of the ratios to the naive loop of the same \
round. *Relative error* is the largest difference to the map of the naive loop divided by the largest value of that \
map. *Times the least* is the time divided by the time that the same work takes at the convolution peak measured in \
the same run: the highest rate that oneDNN sustains over 3x3 convolutions of 64 to 256 channels in the precision of \
each member. GFLOPs are those of the whole batch."""


def write_page() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """Markdown of all tables."""
    parts = [
        "# Speed",
        "Written by `python benchmarks/speed_page.py` from the result files of the benchmarks in "
        "`benchmarks/results/`, which also hold the raw samples. To measure your own ensemble on your machine, run "
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
    return f"{facts['processor']}, {facts['threads']} threads; {versions}; commit {result['commit'][:10]}."


def _ensembles(result: dict[str, Any]) -> Iterator[str]:
    yield "## Beside other ways"
    yield f"{_measured_on(result)} {result['rounds']} rounds."
    if result["left_out"]:
        yield f"Not installed where this was measured: {', '.join(result['left_out'])}."
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
        f"Limits: convolutions {', '.join(rates)}; matrix products {', '.join(products)}; copies "
        f"{limits['bandwidth'] / 1e9:.0f} GB/s, read and written."
    )


def _ways(ways: dict[str, Any]) -> str:
    rows = [
        [name, f"{1000 * way['median_seconds']:.0f}", f"{way['times_as_fast']:.2f}", f"{way['relative_error']:.0e}",
         _number(way["times_the_least"])]
        for name, way in ways.items()
    ]  # fmt: skip
    return table(["way", "ms", "times as fast", "relative error", "times the least"], rows)


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
        [name, f"{one['peak_mib'] or 0:.0f}", f"{one['cold_start_seconds']:.1f}",
         *(f"{one['seconds'][step]:.1f}" for step in steps)]
        for name, one in processes.items()
    ]  # fmt: skip
    return table(["fresh process", "peak MiB", "to the first map, s", *steps], rows)


def _scores(scores: dict[str, Any]) -> Iterator[str]:
    """Scores of the ways that run all members: a cascade's threshold was fitted on the images scored here."""
    images = len(scores["ways"][NAIVE]["samples"])
    yield f"Score and time over the {images} validation images, one by one, in the same run."
    metric = scores["primary"]
    rows = [
        [name, f"{way[metric]:.4f}", f"{way['lost']:+z.4f}", "" if way["kept"] is None else f"{way['kept']:.2%}",
         f"{1000 * way['seconds'] / images:.0f}", f"{way['times_as_fast']:.2f}"]
        for name, way in scores["ways"].items()
        if not name.endswith("cascade")
    ]  # fmt: skip
    yield table(["way", metric, "lost", "kept", "ms per image", "times as fast"], rows)
    if scores["policy"] is not None:
        yield _cascade(scores["checks"])


def _cascade(checks: list[dict[str, Any]]) -> str:
    """What cascades kept on images that they were not fitted on."""
    kept = [
        f"asked for {check['share']:.1%}, it kept {check['kept']:.2%} at {check['cost']:.0%} of the cost"
        for check in checks
        if check["asked"] == "keep" and check["kept"] is not None
    ]
    return (
        "A cascade of this ensemble, fitted on one half of the validation images and checked on the other: "
        f"{'; '.join(kept)}. The baseline is the plain mean of all members, strong and weak."
    )


def _scaling(result: dict[str, Any]) -> Iterator[str]:
    yield "## More members, more pixels"
    yield f"{_measured_on(result)} Members are copies of {result['backbone']} with weights of their own."
    for axis, words in (("members", "members"), ("pixels", "thousand pixels")):
        rows = [
            [f"{point / (1000 if axis == 'pixels' else 1):.0f}", *(f"{1000 * way[str(point)]:.1f}" for way in times)]
            for times in [[row["median_seconds"] for row in result[axis]["ways"].values()]]
            for point in result[axis]["points"]
        ]
        fits = ", ".join(f"{name} {row['r_squared']:.4f}" for name, row in result[axis]["ways"].items())
        yield f"Milliseconds by {words}. R² of a straight line: {fits}."
        yield table([words, *result[axis]["ways"]], rows)
    yield (
        "Peak resident memory of fresh processes that load and predict, in MiB, and how much more than with one member "
        "that is once the weights are taken off:"
    )
    yield table(
        ["way", *(f"{count} members" for count in result["memory"]["points"]), "growth beyond the weights"],
        [
            [name, *(f"{row['peak_mib'][str(count)]:.0f}" for count in result["memory"]["points"]),
             f"{row['growth']:+.0%}"]
            for name, row in result["memory"]["ways"].items()
        ],
    )  # fmt: skip
    yield "Where the time of one prediction goes: inside the networks, and in what densemble does around them."
    yield table(
        ["way", "in the networks", "around them"],
        [[name, f"{1 - row['share']:.1%}", f"{row['share']:.1%}"] for name, row in result["overhead"].items()],
    )
    for name, row in result["overhead"].items():
        yield f"A profile of *{name}*: functions by their own share of the time, the networks among them."
        shown = [[f"`{one['function']}`", f"{one['share']:.1%}"] for one in row["profile"][:PROFILE_ROWS]]
        yield table(["function", "share"], shown)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


SECTIONS: dict[str, Callable[[dict[str, Any]], Iterator[str]]] = {
    "ensemble": _ensembles,
    "cascade": cascades,
    "scaling": _scaling,
    "tiles": tiles,
    "folder": folder,
}
"""Sections of the page, by the result file that each is written from."""


if __name__ == "__main__":
    write_page()
