"""Tables of the page on speed beside those of ensembles: tiles, folders, cascades."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

MIB = 1024**2


def ran_on(result: dict[str, Any]) -> str:
    """Machine, versions and commit of a result."""
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items() if value)
    return f"{result['threads']} threads; {versions}; commit {result['commit'][:10]}."


def tiles(result: dict[str, Any]) -> Iterator[str]:
    """Exactness and work of tiles, MONAI's sliding window, and streaming."""
    height, width = result["size"]
    yield "## Tiles"
    yield (
        f"{ran_on(result)} Written by `benchmarks/bench_tiles.py`. Members have random weights and the statistics of "
        f"random pictures. The difference is that of the map of a picture of {height}x{width} in tiles of "
        f"{result['tile']} pixels to its map as a whole; the work is that of a tile of 1024 pixels with its rim, over "
        "that of the tile alone."
    )
    yield table(["member", "rim, pixels", "largest difference", "work"], [_member(row) for row in result["members"]])
    if "median seconds" in result["beside monai"]:
        yield from _monai(result["beside monai"])
    yield from _streamed(result["streamed"])


def _member(row: dict[str, Any]) -> list[str]:
    if not row["exact"]:
        return [row["member"], "blended", "", row["why"]]
    work = next(value for key, value in row.items() if key.startswith("flops at tiles"))
    return [row["member"], str(max(row["halo"])), f"{row['largest difference']:.0e}", f"{work:.2f}"]


def _monai(result: dict[str, Any]) -> Iterator[str]:
    height, width = result["size"]
    members = " and ".join(result["members"])
    yield (
        f"Beside MONAI's `sliding_window_inference` (overlap 0.5, Gaussian) on {height}x{width}, both with the "
        f"ensemble of {members}, in turn:"
    )
    rows = [
        [
            tile,
            *(f"{result['median seconds'][f'{way} {tile}']:.1f}" for way in ("densemble", "monai")),
            f"{ratio:.2f}",
            *(
                f"{result['largest difference to the whole picture'][f'{way} {tile}']:.0e}"
                for way in ("densemble", "monai")
            ),
        ]
        for tile, ratio in result["monai over densemble"].items()
    ]
    columns = [
        "tile",
        "ours: s",
        "MONAI: s",
        "MONAI over ours",
        "ours: largest difference",
        "MONAI: largest difference",
    ]
    yield table(columns, rows)


def _streamed(result: dict[str, Any]) -> Iterator[str]:
    yield (
        f"From a tiled TIFF to a tiled TIFF, {' and '.join(result['members'])}, each picture in a process of its own. "
        "The ensemble is the networks and what combines their maps; the rest is reading, resizing, the class of each "
        "pixel, and writing."
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
    columns = ["picture", "s per megapixel", "peak MiB", "time outside the networks", "time outside the ensemble"]
    yield table(columns, rows)


def folder(result: dict[str, Any]) -> Iterator[str]:
    """A folder from files to files, beside pure compute."""
    yield "## Folders"
    height, width = result["size"]
    yield (
        f"{ran_on(result)} Written by `benchmarks/bench_folder.py`: {result['number of pictures']} JPEG files of "
        f"{height}x{width}, {len(result['members'])} members, backend {result['backend'] or 'eager'}, "
        f"{result['batch']} at a time. Pure compute runs the same batches, decoded before, and does nothing else."
    )
    pure = sum(sample["wall"] for sample in result["samples"]["pure compute"])
    rows = [["pure compute", f"{result['number of pictures'] / pure:.1f}", "1.00"]]
    for save, ratio in result["median of wall / pure compute"].items():
        wall = sum(sample["wall"] for sample in result["samples"][save])
        rows.append([f"files to files, saves {save}", f"{result['number of pictures'] / wall:.1f}", f"{ratio:.3f}"])
    yield table(["way", "pictures a second", "time over pure compute"], rows)


def cascades(result: dict[str, Any]) -> Iterator[str]:
    """Cascades fitted on one half of the validation pictures and run on the other."""
    yield "## Cascades on pictures that they were not fitted on"
    yield (
        f"{ran_on(result)} Written by `benchmarks/cascade.py`: fitted on one half of the validation pictures and run "
        "on the other, both ways; halves are runs of neighbours. Score kept: of the full ensemble's in float32, by the "
        "maps that the cascade really gave."
    )
    rows = []
    for name, own in result["sets"].items():
        asked = ", ".join(f"{key} {value}" for key, value in own["asked"].items())
        faster = own["times faster than naive"]
        rows.append(
            [
                name,
                asked,
                f"{own['metric']} {own['full score']:.4f}",
                f"{own['cascade score']:.4f}",
                f"{own['score kept']:.2%}",
                f"{faster['all members, accelerated']:.2f}",
                f"{faster['cascade, accelerated']:.2f}",
            ]
        )
    columns = [
        "data",
        "asked",
        "all members",
        "cascade",
        "kept",
        "all, accelerated: times naive",
        "cascade: times naive",
    ]
    yield table(columns, rows)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Markdown."""
    line: Callable[[list[str]], str] = lambda cells: f"| {' | '.join(cells)} |"  # noqa: E731
    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])
