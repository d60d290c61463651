"""Measure the overhead of predicting a folder: wall time compared with the networks only, interleaved.

"Pure compute" runs the same batches of the same images, already decoded, through the same ensemble, and nothing else.
The folder is predicted from files to files: images are decoded, and maps are computed, resized to the size of the
image, drawn and written. Both variants alternate over parts of the images. Writes benchmarks/results/folder.json with
the raw samples.

    python benchmarks/bench_folder.py [ARTIFACT] [--images 2000] [--backend auto] [--save map map,overlay]
"""

import argparse
import json
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import environment
from PIL import Image, ImageFilter
from torch import Tensor

import densemble as de
from densemble.config import SEVEN
from densemble.ensemble.input_images import as_images
from densemble.ensemble.prediction import Prediction
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.pipeline import Seconds
from densemble.inference.files.predict_files import predict_files
from densemble.inference.predict import prepared
from densemble.inference.runtime.fast_ensemble import accelerate
from densemble.inference.sources import make_items, read_for_ensemble
from densemble.shapes import Size, parse_size

RESULT = Path(__file__).parent / "results" / "folder.json"
PHOTOGRAPHS = Path(__file__).resolve().parents[2] / "shared" / "data" / "saliency-osie"


def photographs() -> list[Path]:
    return sorted(PHOTOGRAPHS.glob("*/images/*.jpg"))


def make_images(folder: Path, number: int, size: Size) -> list[Path]:
    """Write JPEG files: different crops of photographs, or smooth noise if there are no photographs."""
    random, sources = np.random.default_rng(0), photographs()
    paths = [folder / f"{place:05}.jpg" for place in range(number)]
    for place, path in enumerate(paths):
        if sources:
            whole = Image.open(sources[place % len(sources)]).convert("RGB")
            share = random.uniform(0.5, 1)
            width, height = int(whole.width * share), int(whole.height * share)
            left, top = random.integers(whole.width - width + 1), random.integers(whole.height - height + 1)
            image = whole.resize((size[1], size[0]), box=(left, top, left + width, top + height))
        else:
            noise = random.integers(0, 256, (*size, 3), dtype=np.uint8)
            image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3))
        image.save(path, quality=90)
    return paths


def seven(out_size: Size) -> de.Ensemble:
    """Members without training."""
    torch.manual_seed(0)
    return de.Ensemble(
        [de.DenseModel(name, weights=None, out_size=out_size, min_size=(12, 16)).eval() for name in SEVEN]
    )


def batches(ensemble: de.Ensemble, paths: list[Path], batch: int) -> list[Tensor]:
    images = [as_images(read_for_ensemble(path, ensemble), ensemble.in_channels) for path in paths]
    return [torch.cat(images[start : start + batch]) for start in range(0, len(images), batch)]


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", nargs="?", type=Path, help="default: seven members that are not trained")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=parse_size, default=(192, 256), help="height x width of the images")
    parser.add_argument("--rounds", type=int, default=4, help="parts of the images, over which both take turns")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--readers", type=int, default=Pace().readers)
    parser.add_argument("--writers", type=int, default=Pace().writers)
    parser.add_argument("--save", nargs="+", default=["map", "map,overlay"])
    parser.add_argument("--backend", help="auto, eager, ...; default: eager without choosing anything")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def measure(ensemble: de.Ensemble, arguments: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Seconds of each variant in each round."""
    source = folder / "in"
    source.mkdir()
    paths = make_images(source, arguments.images, arguments.size)
    pace = Pace(arguments.batch, readers=arguments.readers, writers=arguments.writers)

    def compute(images: Tensor) -> Prediction:
        with torch.inference_mode():
            return ensemble.predict_members(images, uncertainty=False)

    def pure(part: list[Path], _: int) -> dict[str, float]:
        ready = batches(ensemble, part, arguments.batch)
        started, used = time.perf_counter(), time.process_time()
        for images in ready:
            compute(images)
        return {"wall": time.perf_counter() - started, "processor": time.process_time() - used}

    def files(save: str, part: list[Path], number: int) -> dict[str, float]:
        out = folder / f"{save}-{number}"
        out.mkdir()
        output, seconds = Output(out, tuple(save.split(","))), Seconds()
        used = time.process_time()
        results = list(predict_files(ensemble, make_items(part), compute, output, pace, seconds))
        assert [result.failed for result in results] == [None] * len(part)
        return seconds.spent | {"processor": time.process_time() - used}

    ways = {"pure compute": pure} | {save: lambda p, n, save=save: files(save, p, n) for save in arguments.save}
    files(arguments.save[-1], paths[: arguments.batch], -1)  # warm-up
    samples: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    bounds = np.linspace(0, len(paths), arguments.rounds + 1).astype(int)
    for number, (start, end) in enumerate(pairwise(bounds)):
        for way in list(ways) if number % 2 == 0 else list(ways)[::-1]:
            samples[way].append(ways[way](paths[start:end], number))
    return samples


def main() -> None:
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    ensemble = de.load(arguments.artifact) if arguments.artifact else seven((48, 64)).eval()
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.backend is None:
            ensemble = prepared(ensemble)
        else:
            (examples := Path(temporary) / "examples").mkdir()
            example = batches(ensemble, make_images(examples, arguments.batch, arguments.size), arguments.batch)[0]
            ensemble = accelerate(ensemble, example, arguments.backend, arguments.precision)
        samples = measure(ensemble, arguments, Path(temporary))
    pure = [sample["wall"] for sample in samples["pure compute"]]
    result: dict[str, Any] = {
        **environment("pillow"),
        "artifact": None if arguments.artifact is None else arguments.artifact.name,
        "members": list(ensemble.members),
        "pictures": "photographs" if photographs() else "noise",
        **{key: getattr(arguments, key) for key in ("size", "rounds", "batch", "readers", "writers", "backend")},
        "precision": arguments.precision if arguments.backend else "fp32",
        "number of images": arguments.images,
        "median of wall / pure compute": {},
        "samples": samples,
    }
    print(f"{'pure compute':24} {arguments.images / sum(pure):8.2f} images per second")
    for save in arguments.save:
        ratio = statistics.median(ours["wall"] / alone for ours, alone in zip(samples[save], pure, strict=True))
        result["median of wall / pure compute"][save] = ratio
        spent = {key: sum(sample[key] for sample in samples[save]) for key in samples[save][0]}
        share = ", ".join(f"{key} {spent[key] / spent['wall']:.1%}" for key in ("compute", "reading", "writing"))
        cores = spent["processor"] / sum(sample["processor"] for sample in samples["pure compute"])
        print(f"{save:24} {arguments.images / spent['wall']:8.2f} images per second, {ratio:.3f} x pure compute")
        print(f"{'':24} {share} of the calling thread's time; {cores:.3f} x the processor time of pure compute")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"raw samples in {RESULT}")


if __name__ == "__main__":
    main()
