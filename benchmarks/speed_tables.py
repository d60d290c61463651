"""Tables of docs/reference/speed.md for tiles, folders and cascades."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

MIB = 1024**2


def shown(name: str) -> str:
    """Name of a variant on the page, from its name in the result files."""
    for old, new in (("ours", "densemble"), ("first time", "empty cache"), ("choices remembered", "cached")):
        name = name.replace(old, new)
    return name


def threads(facts: dict[str, Any]) -> str:
    return f"{facts['threads']} thread{'s' if facts['threads'] != 1 else ''}"


def ran_on(result: dict[str, Any]) -> str:
    """Machine, versions and commit of a result."""
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items() if value)
    return f"{threads(result)}; {versions}; commit {result['commit'][:10]}."


def tiles(result: dict[str, Any]) -> Iterator[str]:
    """Exactness and work of tiles, MONAI's sliding window, and streaming."""
    height, width = result["size"]
    yield "## Tiles"
    yield (
        f"{ran_on(result)} Written by `benchmarks/bench_tiles.py`. Members have random weights and batch statistics of "
        f"random images. *Largest difference* compares the map of an image of {height}x{width} computed in tiles of "
        f"{result['tile']} pixels with its map computed as a whole. *Relative work* is the work for a tile of 1024 "
        "pixels with its margin, divided by that for the tile alone. Members without exact tiles show the reason."
    )
    yield table(
        ["member", "margin, pixels", "largest difference", "relative work"], [_member(row) for row in result["members"]]
    )
    if "median seconds" in result["beside monai"]:
        yield from _monai(result["beside monai"])
    yield from _streamed(result["streamed"])


def _member(row: dict[str, Any]) -> list[str]:
    if not row["exact"]:
        return [row["member"], "blended", "", row["why"].replace("picture", "image")]
    work = next(value for key, value in row.items() if key.startswith("flops at tiles"))
    return [row["member"], str(max(row["halo"])), f"{row['largest difference']:.0e}", f"{work:.2f}"]


def _monai(result: dict[str, Any]) -> Iterator[str]:
    height, width = result["size"]
    members = " and ".join(result["members"])
    overlaps = result.get("overlaps", [0.5])  # older results have only one, without its name
    named = {overlap: "monai" if len(overlaps) == 1 else f"monai {overlap}" for overlap in overlaps}
    commit = f" Measured at commit {result['commit'][:10]}." if "commit" in result else ""
    yield (
        f"Comparison with MONAI's `sliding_window_inference` (Gaussian blending; its default overlap is 0.25, nnU-Net "
        f"uses 0.5) on {height}x{width}, both with the ensemble of {members}, interleaved.{commit}"
    )
    seconds, difference = result["median seconds"], result["largest difference to the whole image"]
    rows = []
    for tile in dict.fromkeys(name.rpartition(" ")[2] for name in seconds):
        own = f"densemble {tile}"
        rows.append([tile, "densemble", f"{seconds[own]:.1f}", "1.00", f"{difference[own]:.0e}"])
        for overlap, name in named.items():
            ratio = result["monai over densemble"][tile if len(overlaps) == 1 else f"{overlap} {tile}"]
            theirs = f"{name} {tile}"
            rows.append(
                [tile, f"MONAI, overlap {overlap}", f"{seconds[theirs]:.1f}", f"{ratio:.2f}",
                 f"{difference[theirs]:.0e}"]
            )  # fmt: skip
    yield table(["tile", "variant", "s", "time over densemble", "largest difference to the whole image"], rows)


def _streamed(result: dict[str, Any]) -> Iterator[str]:
    yield (
        f"Large images, from a tiled TIFF to a tiled TIFF, with {' and '.join(result['members'])}, each image in "
        "its own process. *Ensemble* means the networks and the combination of their maps. The rest is reading, "
        "resizing, the class of each pixel, and writing."
    )
    rows = []
    for side in sorted({int(sample["side"]) for sample in result["samples"]}):
        own = [sample for sample in result["samples"] if sample["side"] == side]
        median = {key: statistics.median(sample[key] for sample in own) for key in own[0]}
        rows.append(
            [
                f"{side}x{side}",
                f"{median['seconds per megapixel']:.2f}",
                f"{median['peak bytes'] / MIB:.0f}",
                f"{median['share outside the networks']:.1%}",
                f"{median['share outside the ensemble']:.1%}",
            ]
        )
    columns = ["image", "s per megapixel", "peak MiB", "time outside the networks", "time outside the ensemble"]
    yield table(columns, rows)


def folder(result: dict[str, Any]) -> Iterator[str]:
    """A folder from image files to map files, compared with pure computation."""
    yield "## Folders"
    height, width = result["size"]
    yield (
        f"{ran_on(result)} Written by `benchmarks/bench_folder.py`: {result['number of images']} JPEG files of "
        f"{height}x{width}, {len(result['members'])} members, backend {result['backend'] or 'eager'}, "
        f"batches of {result['batch']}. *Networks only* runs the same batches, already decoded, and nothing else."
    )
    pure = sum(sample["wall"] for sample in result["samples"]["pure compute"])
    rows = [["networks only", f"{result['number of images'] / pure:.1f}", "1.00"]]
    for save, ratio in result["median of wall / pure compute"].items():
        wall = sum(sample["wall"] for sample in result["samples"][save])
        rows.append([f"files to files, saves {save}", f"{result['number of images'] / wall:.1f}", f"{ratio:.3f}"])
    yield table(["variant", "images per second", "time over networks only"], rows)


def cascades(result: dict[str, Any]) -> Iterator[str]:
    """Cascades fitted on one half of the validation images and run on the other."""
    yield "## Cascades on images that they were not fitted on"
    said = (
        f"{ran_on(result)} Written by `benchmarks/cascade.py`. Cascades are fitted on one half of the validation "
        "images and run on the other, in both directions; each half is a contiguous block of images. *Score kept* is "
        "the score of the cascade, divided by the score of the ensemble in float32. The best single member is selected "
        "on the same half as the cascade, and is not calibrated. The last two columns are speeds relative to the "
        "naive loop."
    )
    yield said
    rows = []
    for name, own in result["sets"].items():
        asked = ", ".join(f"{key} {value}" for key, value in own["asked"].items())
        faster = own["times faster than naive"]
        runs = [", ".join(policy["members"]) for policy in own["policies"]]
        rows.append(
            [
                name,
                asked,
                f"{own['metric']} {own['full score']:.4f}",
                _best_single(own),
                f"{own['cascade score']:.4f}",
                f"{own['score kept']:.2%}",
                " / ".join(runs),
                f"{faster['all members, accelerated']:.2f}",
                f"{faster['cascade, accelerated']:.2f}",
            ]
        )
    columns = [
        "data",
        "requested",
        "all members",
        "best single member",
        "cascade",
        "score kept",
        "members of the two cascades",
        "all members: times as fast",
        "cascade: times as fast",
    ]
    yield table(columns, rows)


def _best_single(result: dict[str, Any]) -> str:
    """Score and name of the member that is best on the half that the cascade is fitted on."""
    best = result["best single member"]
    return f"{best['score']:.4f} ({' / '.join(best['members'])})"


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    line: Callable[[list[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
