"""Measure exactness and operations of tiles, MONAI's sliding window, and streaming of large images.

    python benchmarks/bench_tiles.py [--quick] [--large] [--only-monai]

Writes benchmarks/results/tiles.json with the raw samples:

- for each member: largest difference between the map computed in tiles and the map of the whole image, and measured
  FLOPs of a window divided by those of its tile;
- for one ensemble with MONAI's ``sliding_window_inference`` (Gaussian blending; its default overlap of 0.25 and
  nnU-Net's 0.5) and with densemble, interleaved: seconds, and largest difference to the map of the whole image. This
  part is left out if MONAI is not installed. ``--only-monai`` measures this part again and keeps the others;
- share of the wall time outside the networks, and outside the ensemble (its resizing, activation and combination),
  from a tiled TIFF to a tiled TIFF;
- seconds per megapixel and peak memory at growing sizes, each in its own process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from environment import environment
from tiles_beside_monai import beside_monai
from torch import Tensor, nn

import densemble as de
from densemble.ensemble.prediction import Prediction
from densemble.inference.predict import prepared
from densemble.inference.runtime.fast_ensemble import FastMember
from densemble.inference.tiles.streaming import plan_windows, stream
from densemble.inference.tiles.tile_members import measure_reaches
from densemble.nets.counting import counting
from densemble.nets.halo import MOST_WORK, REFERENCE_TILE, measure_reach
from densemble.shapes import Size
from densemble.storage.large_image import LargeImage, open_large, tiff_writer

RESULT = Path(__file__).parent / "results" / "tiles.json"
CLASSES = 11
# Backbone, node, head.
MEMBERS = [
    ("squeezenet1_1", "auto", "upsample"),
    ("alexnet", "auto", "upsample"),
    ("inception_v3", "Mixed_5b", "upsample"),
    ("vgg16", "features.22", "upsample"),
    ("vgg19_bn", "features.25", "fpn"),
    ("resdeconv", "auto", "deconv"),
    ("resdeconv", "stages.1", "deconv"),
    ("resnet18", "layer2", "upsample"),
    ("resnet18", "layer2", "fpn"),
    ("resnet18", "layer2", "skip"),
    ("resnet18", "layer2", "aspp"),
    ("resnet152", "layer2", "upsample"),
    ("resnet152", "layer2", "fpn"),
    ("densenet201", "features.transition1.pool", "upsample"),
    ("mobilenet_v2", "features.6", "upsample"),
    ("timm/tf_efficientnet_lite0", "blocks.2", "fpn"),
]
STREAMED = [("resnet18", "layer2", "fpn"), ("resnet152", "layer2", "upsample")]
"""Members for the time and memory figures."""


def make_member(backbone: str, node: str, head: str) -> de.DenseModel:
    """Random weights with the statistics of a random batch, so that maps vary in space like those of trained models."""
    torch.manual_seed(0)
    model = de.DenseModel(backbone, weights=None, out_channels=CLASSES, out_size=None, cut=node, head=head)
    momenta = {}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            momenta[module], module.momentum = module.momentum, 1.0
    with torch.no_grad():
        model.train()(smooth_images(2, (192, 256)))
        for module, momentum in momenta.items():
            module.momentum = momentum
        logits = model.eval()(smooth_images(1, (192, 256)))
        last = [m for m in model.head.modules() if isinstance(m, nn.Conv2d)][-1]
        last.weight.mul_(2 / float(logits.std()))
    return model


def make_ensemble(rows: list[tuple[str, str, str]]) -> de.Ensemble:
    task = {"name": "segmentation", "classes": [str(k) for k in range(CLASSES)]}
    return prepared(de.Ensemble([make_member(*row) for row in rows], task=de.tasks.make_task(task)))


def smooth_images(count: int, size: Size) -> Tensor:
    """Noise over smooth patches, float ``(B, 3, H, W)`` in [0, 1]; the same at every call."""
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(count, 3, -(-size[0] // 24), -(-size[1] // 24), generator=generator)
    patches = F.interpolate(low, size=size, mode="bilinear")
    return 0.8 * patches + 0.2 * torch.rand(count, 3, *size, generator=generator)


class InMemory:
    """An image in memory, with the interface of a large image."""

    def __init__(self, size: Size) -> None:
        self.size, self.channels = size, 3
        self.pixels = (smooth_images(1, size)[0].permute(1, 2, 0) * 255).round().byte().numpy()

    def read(self, top: int, left: int, height: int, width: int) -> np.ndarray[Any, Any]:
        return self.pixels[top : top + height, left : left + width]

    def images(self) -> Tensor:
        return torch.from_numpy(self.pixels).permute(2, 0, 1)[None].float() / 255


# --- each member ----------------------------------------------------------------------------------------------------


def flops(model: nn.Module, size: Size) -> int:
    with counting(model) as counter:
        model(torch.zeros(1, 3, *size))
    return int(counter.get_total_flops())


@torch.no_grad()
def member_row(row: tuple[str, str, str], size: Size, tile: int) -> dict[str, Any]:
    """Exactness and operations of one member."""
    model = make_member(*row)
    started = time.perf_counter()
    reach = measure_reach(model)
    facts = {"member": " ".join(row), "node": model.cut.node, "measured in s": time.perf_counter() - started}
    if reach.halo is None:
        return facts | {"exact": False, "why": reach.why}
    ensemble = de.Ensemble({"m": model}, task="segmentation").eval()
    reaches, image = {"m": reach}, InMemory(size)
    windows = plan_windows(ensemble, size, tile, 0.25, reaches)
    parts = list(stream(ensemble, image, tile, reaches=reaches))
    found = torch.cat([rows.planes["mean"] for rows in parts], 1)
    whole = ensemble(image.images())[0]
    top, bottom, left, right = reach.halo.pixels
    window = flops(model, (REFERENCE_TILE + top + bottom, REFERENCE_TILE + left + right))
    here = len(windows) * flops(model, (windows.rows.window, windows.columns.window))
    return facts | {
        "exact": True,
        "stride": reach.halo.stride,
        "halo": list(reach.halo.pixels),
        "spread of the map": float(whole.std()),
        "largest difference": float((found - whole).abs().max()),
        "windows": [len(windows), windows.rows.window, windows.columns.window],
        "flops over the whole image's": here / flops(model, size),
        f"flops at tiles of {REFERENCE_TILE}": window / flops(model, (REFERENCE_TILE, REFERENCE_TILE)),
    }


# --- from file to file ----------------------------------------------------------------------------------------------


class Timed(FastMember):
    """A member that adds up the time in its network, without normalization and the last resize."""

    def __init__(self, member: FastMember, clock: dict[str, float]) -> None:
        super().__init__(member, member.network, member.place, member.inputs)
        self.clock = clock

    def coarse(self, images: Tensor) -> Tensor:
        normalized = self.normalized(images)
        started = time.perf_counter()
        logits = self.network.grids(normalized, self.map_size(images))[self.place]
        self.clock["networks"] += time.perf_counter() - started
        return logits


def write_image(path: Path, side: int) -> None:
    """Write a square image as a tiled TIFF, strip by strip."""
    patch = (smooth_images(1, (512, 512))[0] * 255).round().byte().numpy()
    with tiff_writer(path, (side, side), 3, np.dtype(np.uint8)) as writer:
        for top in range(0, side, 512):
            rows = np.tile(patch, (1, 1, -(-side // 512)))[:, : min(512, side - top), :side]
            writer.write(rows + np.uint8(top // 512))  # all strips differ


def to_labels(ensemble: de.Ensemble, image: LargeImage, out: Path, reaches: dict[str, Any]) -> None:
    """Stream an image to a TIFF of its classes; a thread writes it, at most one band behind."""
    with tiff_writer(out, image.size, 1, np.dtype(np.uint8)) as writer, ThreadPoolExecutor(1) as pool:
        writing = None
        for rows in stream(ensemble, image, planes=("label",), reaches=reaches):
            if writing is not None:
                writing.result()
            writing = pool.submit(writer.write, rows.planes["label"].numpy())
        if writing is not None:
            writing.result()


def peak_memory() -> int:
    """Peak memory of this process alone; ``ru_maxrss`` would include that of its parent."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def with_clock(ensemble: de.Ensemble, clock: dict[str, float]) -> de.Ensemble:
    """The same ensemble, which adds up the seconds in its networks and in the processing of their maps."""
    members = {
        name: Timed(member, clock) for name, member in ensemble.members.items() if isinstance(member, FastMember)
    }
    timed = ensemble.with_members(members).eval()
    predict = timed.predict_maps

    def predict_maps(members: Iterator[tuple[str, Tensor]], uncertainty: bool = True) -> Prediction:
        started = time.perf_counter()
        prediction = predict(members, uncertainty)
        clock["combining"] += time.perf_counter() - started
        return prediction

    timed.predict_maps = predict_maps  # type: ignore[method-assign]
    return timed


def stream_file(path: Path) -> dict[str, float]:
    """Stream one file in this process, with the members' time."""
    ensemble, clock = make_ensemble(STREAMED), {"networks": 0.0, "combining": 0.0}
    reaches = measure_reaches(ensemble)
    timed = with_clock(ensemble, clock)
    with open_large(path) as image:
        megapixels = image.size[0] * image.size[1] / 1e6
        work = plan_windows(timed, image.size, REFERENCE_TILE, 0.25, reaches).work
        started = time.perf_counter()
        to_labels(timed, image, path.with_suffix(".labels.tif"), reaches)
        wall = time.perf_counter() - started
    return {
        "side": image.size[0],
        "seconds": wall,
        "seconds per megapixel": wall / megapixels,
        "pixels computed for each": work,
        "share outside the networks": 1 - clock["networks"] / wall,
        "share outside the ensemble": 1 - (clock["networks"] + clock["combining"]) / wall,
        "peak bytes": peak_memory(),
    }


def in_own_process(sides: list[int], rounds: int) -> Iterator[dict[str, float]]:
    """Every size in turn, for several rounds, each in a new process; sizes that take minutes run once."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{side}.tif" for side in sides]
        for path, side in zip(paths, sides, strict=True):
            write_image(path, side)
        for number in range(rounds):
            for path in [path for path, side in zip(paths, sides, strict=True) if number == 0 or side <= 8192]:
                command = [sys.executable, __file__, "--child", str(path)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                yield json.loads(done.stdout)


def growth(samples: list[dict[str, float]]) -> dict[str, float]:
    """Medians at each size, and the ratio of the highest to the lowest median."""
    sides = sorted({int(row["side"]) for row in samples})

    def median(side: int, name: str) -> float:
        return statistics.median(row[name] for row in samples if row["side"] == side)

    named = {"time per pixel": "seconds per megapixel", "peak memory": "peak bytes"}
    found = {}
    for title, name in named.items():
        values = [median(side, name) for side in sides]
        found |= {f"{title} at {side}": value for side, value in zip(sides, values, strict=True)}
        found[f"{title}, highest over lowest"] = max(values) / min(values)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small images and one round: does it run")
    parser.add_argument("--large", action="store_true", help="also an image of 16384 x 16384")
    parser.add_argument("--only-monai", action="store_true", help="only the part beside MONAI; the others are kept")
    parser.add_argument("--rounds", type=int, default=7, help="beside MONAI")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.child is not None:
        print(json.dumps(stream_file(arguments.child)))
        return
    quick = arguments.quick
    if arguments.only_monai:
        again_beside_monai(arguments)
        return
    size, tile = ((256, 384), 192) if quick else ((1024, 1536), 1024)
    rows = []
    for member in MEMBERS[3:9] if quick else MEMBERS:
        rows.append(member_row(member, size, tile))
        print_member(rows[-1])
    monai = measure_monai(arguments)
    sides = [512, 1024] if quick else [2048, 4096, 8192, *([16384] if arguments.large else [])]
    samples = list(in_own_process(sides, 1 if quick else 3))
    print(json.dumps(growth(samples), indent=2))
    for row in samples:
        print(
            f"{row['side']:>6.0f}: {row['share outside the networks']:.1%} of the time is not the networks, "
            f"{row['share outside the ensemble']:.1%} not the ensemble"
        )
    result = {
        **environment("monai"),
        "quick": quick,
        "threads": arguments.threads,
        "size": list(size),
        "tile": tile,
        "members": rows,
        "beside monai": monai,
        "streamed": {"members": [" ".join(row) for row in STREAMED], "growth": growth(samples), "samples": samples},
    }
    arguments.out.parent.mkdir(exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"raw samples in {arguments.out}")


def measure_monai(arguments: argparse.Namespace) -> dict[str, Any]:
    quick = arguments.quick
    size, tiles = ((512, 640), [256]) if quick else ((2048, 2048), [1024, 512])
    found = beside_monai(make_ensemble(STREAMED), InMemory(size), tiles, 1 if quick else arguments.rounds)
    found["members"] = [" ".join(row) for row in STREAMED]
    print(json.dumps({key: value for key, value in found.items() if key != "samples"}, indent=2))
    return found


def again_beside_monai(arguments: argparse.Namespace) -> None:
    """Measure the comparison with MONAI again and add it to a result file, with its own environment."""
    result = json.loads(arguments.out.read_text(encoding="utf-8"))
    result["beside monai"] = {**environment("monai"), **measure_monai(arguments)}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def print_member(row: dict[str, Any]) -> None:
    if not row["exact"]:
        print(f"{row['member']:45} not exact: {row['why']}")
        return
    work = row[f"flops at tiles of {REFERENCE_TILE}"]
    print(
        f"{row['member']:45} halo {max(row['halo']):3}, difference {row['largest difference']:.1e}, "
        f"{work:.2f} x the FLOPs (at most {MOST_WORK})",
        flush=True,
    )


if __name__ == "__main__":
    main()
