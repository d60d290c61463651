"""Compare densemble's tiles with MONAI's ``sliding_window_inference``, interleaved; see bench_tiles.py."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import densemble as de
from densemble.inference.tiles.streaming import stream
from densemble.inference.tiles.tile_members import measure_reaches

OVERLAPS = (0.25, 0.5)
"""Defaults of MONAI and of nnU-Net."""


def beside_monai(ensemble: de.Ensemble, image: Any, tiles: list[int], rounds: int) -> dict[str, Any]:
    """Seconds and the largest difference to the map of the whole image.

    Args:
        ensemble: in eval mode.
        image: an image in memory, with ``images()`` of shape ``(1, C, H, W)``.
        tiles: sides of the tiles in pixels.
        rounds: number of rounds after a warm-up.
    """
    try:
        from monai.inferers import sliding_window_inference
    except ImportError as error:
        return {"left out": f"MONAI is not installed ({error}): pip install monai, or set PYTHONPATH"}
    images, reaches = image.images(), measure_reaches(ensemble)
    with torch.no_grad():
        whole = ensemble(images)[0]

    def ours(tile: int) -> Callable[[], Tensor]:
        return lambda: torch.cat([rows.planes["mean"] for rows in stream(ensemble, image, tile, reaches=reaches)], 1)

    def theirs(tile: int, overlap: float) -> Callable[[], Tensor]:
        def run() -> Tensor:
            found = sliding_window_inference(images, (tile, tile), 1, ensemble, overlap=overlap, mode="gaussian")
            assert isinstance(found, Tensor)
            return found[0]

        return run

    ways = {}
    for tile in tiles:
        ways[f"densemble {tile}"] = ours(tile)
        ways |= {f"monai {overlap} {tile}": theirs(tile, overlap) for overlap in OVERLAPS}
    samples, differences = interleaved(ways, whole, rounds)
    return {
        "size": list(image.size),
        "overlaps": list(OVERLAPS),
        "largest difference to the whole image": differences,
        "median seconds": {name: statistics.median(taken) for name, taken in samples.items()},
        "monai over densemble": {
            f"{overlap} {tile}": statistics.median(
                b / a for a, b in zip(samples[f"densemble {tile}"], samples[f"monai {overlap} {tile}"], strict=True)
            )
            for tile in tiles
            for overlap in OVERLAPS
        },
        "samples": samples,
    }


@torch.no_grad()
def interleaved(
    ways: dict[str, Callable[[], Tensor]], whole: Tensor, rounds: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each variant in every round, the first of which is a warm-up, and its largest difference to the whole
    map."""
    samples: dict[str, list[float]] = {name: [] for name in ways}
    differences = {}
    for number in range(rounds + 1):
        for name, run in ways.items():
            started = time.perf_counter()
            found = run()
            taken = time.perf_counter() - started
            if number:
                samples[name].append(taken)
            differences[name] = float((found - whole).abs().max())
    return samples, differences
