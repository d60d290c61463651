"""Choose the colours of classes, and measure how far apart they stay for colour-blind readers.

    python benchmarks/class_colours.py [--choose | --figure]

``--choose`` prints a new table for ``src/densemble/inference/drawing/class_table.py`` (two minutes). Without it, the
distances of the stored table are written to ``benchmarks/results/class_colours.json``. ``--figure`` draws
``docs/assets/class-colours.png``.

Distances are CIEDE2000. A view with a colour vision deficiency is simulated by the matrices of Machado, Oliveira and
Fernandes (2009), "A Physiologically-based Model for Simulation of Color Vision Deficiency", at severity 1, in linear
sRGB. The first 12 colours maximize the smallest distance over all pairs and views, with at least 4.5 units of lightness
between any two (simulated annealing). Every further colour is the one farthest from all earlier ones.
"""

import argparse
import json
import textwrap
from pathlib import Path

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from densemble.inference.drawing import BACKGROUND, NO_DATA, Legend, add_legend, palette
from densemble.storage.images import write_png

ROOT = Path(__file__).resolve().parents[1]
RESULTS, FIGURE = ROOT / "benchmarks/results/class_colours.json", ROOT / "docs/assets/class-colours.png"
CAMVID = ["sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"]
VIEWS = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
SHARES = {"normal": 0.7, "deuteranopia": 1.0, "protanopia": 1.05, "tritanopia": 1.5}
"""Weight of the distances in each view: a small distance in the rare tritanopia counts less."""
COUNTS = (11, 12, 20, 40)
_FIRST, _STORED, _GAP, _SEEDS = 12, 256, 4.5, 12
_STEPS, _GRID = 40_000, 17
_TAKEN = np.array([BACKGROUND, (255, 255, 255), NO_DATA])
_TAKEN_SHARE = 1.4


def simulated(colours: np.ndarray, view: str) -> np.ndarray:
    """uint8 sRGB colours ``(N, 3)`` as they look in a view, sRGB in [0, 1]."""
    unit = colours / 255
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4) @ np.array(VIEWS[view]).T
    linear = linear.clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def seen(colours: np.ndarray, view: str) -> np.ndarray:
    """CIELAB of uint8 sRGB colours ``(N, 3)`` in a view."""
    return np.asarray(rgb2lab(simulated(colours, view)))


def distances(a: np.ndarray, b: np.ndarray, view: str) -> np.ndarray:
    """CIEDE2000 of every colour of ``a`` to every colour of ``b``, ``(A, B)``."""
    return np.stack([deltaE_ciede2000(lab[None], seen(b, view)) for lab in seen(a, view)])


def weighted(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Smallest weighted distance over the views, ``(A, B)``."""
    return np.min([share * distances(a, b, view) for view, share in SHARES.items()], axis=0)


def choose() -> np.ndarray:
    """The table, uint8 ``(256, 3)``."""
    levels = np.arange(0, 256, _GRID)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = seen(grid, "normal")
    light = lab[:, 0]
    grid = grid[(light > 22) & (light < 93) & (np.hypot(lab[:, 1], lab[:, 2]) > 22)]
    apart = weighted(grid, grid).astype(np.float32)
    from_taken = weighted(grid, _TAKEN).min(axis=1)
    tries = [_annealed(grid, apart, from_taken * _TAKEN_SHARE, seed) for seed in range(_SEEDS)]
    first = max(tries)[1]
    order = [max(first, key=lambda i: min(from_taken[i], 99))]
    while len(order) < _STORED:
        pool = np.array([i for i in first if i not in order]) if len(order) < _FIRST else np.arange(len(grid))
        nearest = np.minimum(apart[np.ix_(pool, order)].min(axis=1), from_taken[pool] * _TAKEN_SHARE)
        order.append(int(pool[nearest.argmax()]))
    return grid[order]


def _annealed(grid: np.ndarray, apart: np.ndarray, from_taken: np.ndarray, seed: int) -> tuple[float, list[int]]:
    """The value and the indices of the best colours of one run."""
    light, others = seen(grid, "normal")[:, 0], ~np.eye(_FIRST, dtype=bool)
    near = [np.flatnonzero(np.abs(grid - colour).sum(1) <= 4 * _GRID) for colour in grid]

    def nearest(chosen: np.ndarray) -> np.ndarray:
        pairs = apart[np.ix_(chosen, chosen)][others].reshape(_FIRST, _FIRST - 1)
        return np.minimum(pairs.min(1), from_taken[chosen])

    def value(chosen: np.ndarray) -> float:
        gap = np.abs(light[chosen][:, None] - light[chosen])[others].min()
        row = nearest(chosen)
        return float(row.min() + 0.03 * row.mean() + 3 * min(0.0, gap - _GAP))

    random = np.random.default_rng(seed)
    chosen = random.choice(len(grid), _FIRST, replace=False)
    now = best_value = value(chosen)
    best = chosen
    for step in range(_STEPS):
        heat = max(1 - step / (0.9 * _STEPS), 0.01)
        changed = chosen.copy()
        at = int(nearest(chosen).argmin()) if random.random() < 0.3 else int(random.integers(_FIRST))
        changed[at] = random.choice(near[chosen[at]]) if random.random() < 0.75 else random.integers(len(grid))
        if len(set(changed.tolist())) < _FIRST:
            continue
        new = value(changed)
        if new > now or random.random() < np.exp((new - now) / heat):
            chosen, now = changed, new
        if now > best_value:
            best, best_value = chosen.copy(), now
    return best_value, [int(i) for i in best]


def measure() -> dict[str, dict[str, float]]:
    """Smallest distance between the first N colours in each view, and their smallest difference in lightness L*."""
    rows = {}
    for count in COUNTS:
        colours, others = palette(count), ~np.eye(count, dtype=bool)
        smallest = {view: float(distances(colours, colours, view)[others].min()) for view in VIEWS}
        light = seen(colours, "normal")[:, 0]
        gap = float(np.abs(light[:, None] - light)[others].min())
        rows[str(count)] = {name: round(value, 2) for name, value in (smallest | {"lightness": gap}).items()}
    return rows


def draw() -> None:
    """Draw the colours of the classes of CamVid in every view."""
    colours = palette(len(CAMVID))
    rows = []
    for view in VIEWS:
        row = (255 * simulated(colours, view)).round().astype(np.uint8)[None].repeat(44, 0).repeat(64, 1)
        rows.append(add_legend(row, Legend(note=view)))
    legend = Legend(tuple((name, tuple(colour.tolist())) for name, colour in zip(CAMVID, colours, strict=True)))
    write_png(FIGURE, add_legend(np.concatenate(rows), legend))


def main() -> None:
    """Write the measured distances, draw the figure, or print a new table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--choose", action="store_true", help="print a new table")
    parser.add_argument("--figure", action="store_true", help="draw the figure of the docs")
    given = parser.parse_args()
    if given.figure:
        draw()
        return
    if given.choose:
        print("\n".join(textwrap.wrap("".join("{:02x}{:02x}{:02x}".format(*colour) for colour in choose()), 96)))
        return
    rows = measure()
    RESULTS.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
