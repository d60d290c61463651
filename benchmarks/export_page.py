"""Write docs/reference/export-parity.md from benchmarks/results/export_parity.json."""

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "export_parity.json"
PAGE = Path(__file__).parents[1] / "docs" / "reference" / "export-parity.md"
TEXT = """\
# Exported files beside the ensemble

Written by `benchmarks/export_parity.py`. All differences and raw times are in `benchmarks/results/export_parity.json`.

Seven different members, each alone in an ensemble, are exported in every format of
[`densemble export`](../how-to/export.md). Their weights are random. If the backbone has batch normalization, its
statistics are those of photographs with noise. Each file is run on the two sample photographs of scikit-learn, resized
to 224x224, 225x301, 97x131 and 360x480, in batches of 1 and 3. Its maps are compared with those of `de.predict` in
float32, image by image.

| column | meaning |
| --- | --- |
| rounding | difference between the ensemble in float32 and in float64, without any export: how much the random \
network amplifies rounding errors; if it is near the limit, an export can be refused only because its runtime adds in \
another order |
| difference | largest difference of any map and of the log-odds of the mean, relative to the largest value; at most \
1e-4 is accepted |
| labels | largest share of pixels with another label |
| ms | time of one image of 240x320, from pixels to the map and its label at the size of the image |

Times are medians of {rounds} rounds, interleaved with the eager ensemble in one process, on {threads} threads of a
machine without a GPU
({versions}).
The format `python` is compared bit for bit, including its uncertainty maps, so its differences are 0.

The statistics of the random networks were changed twice after exports were refused, so this table does not show how
often an export is refused. With statistics of noise or of plain photographs, Inception V3 was refused, and so was
SqueezeNet with statistics in its head.
"""


def page(result: dict[str, Any] | None = None) -> str:
    """Markdown of the page; default: of the result file."""
    result = result or json.loads(RESULT.read_text(encoding="utf-8"))
    rows = result["rows"]
    names = ("torch", "onnxruntime", "openvino")
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in names)
    rounds = min(len(row["seconds"]["eager"]) for row in rows)
    lines = [
        TEXT.format(rounds=rounds, threads=result["threads"], versions=versions),
        "| member | head | rounding | format | MB | difference | labels | ms | times as fast as eager |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        labels = f"{row['largest disagreement']:.1g}" if row["labels"] else ""
        lines.append(
            f"| {row['member']} | {row['head']} | {row['rounding']:.1e} | {row['format']} | {row['bytes'] / 1e6:.1f} | "
            f"{row['largest difference']:.1e} | {labels} | {row['milliseconds']['exported']:.0f} | "
            f"{row['times as fast']:.2f} |"
        )
    present = {(row["member"], row["format"]) for row in rows}
    formats = dict.fromkeys(row["format"] for row in rows)
    refused = [
        f"{m} as {f}" for m in dict.fromkeys(row["member"] for row in rows) for f in formats if (m, f) not in present
    ]
    if refused:
        lines += ["", f"Refused with exit code 8, because a map differs by more than the limit: {', '.join(refused)}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
