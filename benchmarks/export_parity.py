"""Compare exported files with the ensemble: differences, file sizes and time, for seven different members.

    python benchmarks/export_parity.py [--members NAME,...] [--formats NAME,...] [--rounds 7] [--threads 2]

Every member is exported alone in every format, with random weights and the batch statistics of photographs with noise.
The file is then run on the sample photographs of scikit-learn at four sizes, in batches of 1 and 3. Writes
benchmarks/results/export_parity.json with every difference and the raw times: one image of 240x320 from pixels to
maps, interleaved with the eager ensemble. Run again, it keeps the rows that it does not measure.
"""

import argparse
import copy
import importlib.util
import json
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from environment import environment
from export_page import PAGE, page
from torch import Tensor, nn

import densemble as de
from densemble.errors import ExportError
from densemble.evaluation.benchmark.interleave import time_round, time_rounds, timed
from densemble.exporters import EXPORTERS, ExportOptions
from densemble.exporters.graph import EnsembleGraph, GraphOptions
from densemble.exporters.onnx import open_onnx
from densemble.exporters.openvino import open_openvino
from densemble.exporters.runner import Maps, Run
from densemble.exporters.torch_program import open_torch
from densemble.exporters.verify import BATCHES, SIZES, as_input, compare, photographs
from densemble.shapes import Array, format_size

RESULT = Path(__file__).parent / "results" / "export_parity.json"
OPEN: dict[str, Callable[[Path], Run]] = {"onnx": open_onnx, "openvino": open_openvino, "torch": open_torch}
# Backbone: head, channels, size of the network's input, size of its map.
MEMBERS: dict[str, tuple[str, int, tuple[int, int] | None, tuple[int, int] | None]] = {
    "alexnet": ("ppm", 3, None, None),
    "densenet201": ("fpn", 1, (192, 256), (48, 64)),
    "inception_v3": ("skip", 1, (240, 320), (48, 64)),
    "resnet152": ("aspp", 3, (192, 256), None),
    "squeezenet1_1": ("upsample", 3, None, None),
    "vgg19_bn": ("subpixel", 1, (192, 256), (48, 64)),
    "resdeconv": ("deconv", 1, (192, 256), (48, 64)),
}
TIMED = (240, 320)


def make_ensemble(backbone: str) -> de.Ensemble:
    head, channels, input_size, out_size = MEMBERS[backbone]
    torch.manual_seed(0)
    model = de.DenseModel(
        backbone, weights=None, head=head, out_channels=channels, input_size=input_size, out_size=out_size
    )
    normalized = any(isinstance(m, nn.BatchNorm2d) for m in model.backbone.modules())
    momenta = {}
    for module in model.modules():
        # Features of a random network without normalization hardly vary; normalizing them would amplify roundings.
        if normalized and isinstance(module, nn.BatchNorm2d):
            momenta[module], module.momentum = module.momentum, 1.0
    with torch.no_grad():
        images = photographs(de.Ensemble([model]), 4, TIMED)
        if normalized:  # noise keeps the variance of every channel well above 0
            model.train()(0.5 * images + 0.5 * torch.rand(images.shape))
        for module, momentum in momenta.items():
            module.momentum = momentum
        logits = model.eval()(images)
        last = [m for m in model.head.modules() if isinstance(m, nn.Conv2d)][-1]
        last.weight.mul_(2 / float(logits.std()))
    task = {"name": "saliency"} if channels == 1 else {"name": "segmentation", "classes": ["a", "b", "c"]}
    return de.Ensemble([model], task=de.tasks.make_task(task)).eval()


def map_names(ensemble: de.Ensemble) -> tuple[str, ...]:
    return ("label",) if ensemble.task.classes else ("mean",)


def rounding(ensemble: de.Ensemble) -> float:
    """Largest difference of the ensemble itself from the same networks in float64: how much they amplify rounding."""
    graph = EnsembleGraph(ensemble, GraphOptions(maps=("mean",))).eval()
    precise = EnsembleGraph(copy.deepcopy(ensemble).double(), GraphOptions("float32", maps=("mean",))).eval()

    def run(pixels: Array) -> Maps:
        with torch.no_grad():
            (mean,) = precise(torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 255)
        return {"mean": mean.numpy()}

    return max(compare(run, graph, batches=[1]).differences.values())


def measure(backbone: str, format: str, rounds: int) -> dict[str, Any]:
    """Export a member and compare the file with it."""
    ensemble = make_ensemble(backbone)
    graph = EnsembleGraph(ensemble, GraphOptions(maps=map_names(ensemble))).eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net{EXPORTERS[format].suffix}"
        images = photographs(ensemble, 1, TIMED)
        if format == "python":
            de.export(ensemble, path)
            module, differences = compare_module(path, ensemble)

            def exported(pixels: Tensor) -> Tensor:
                return torch.as_tensor(module(pixels))

        else:
            de.export(ensemble, path, format, ExportOptions(maps=map_names(ensemble)))
            run, pixels = OPEN[format](path), as_input(graph, images)
            differences = {
                f"{format_size(size)} x {batch}": compare(run, graph, (), [size], [batch]).describe()
                for size in SIZES
                for batch in BATCHES
            }

            def exported(_: Tensor) -> Tensor:
                return torch.from_numpy(run(pixels)["mean"])

        timers = {
            name: partial(lambda method: timed(method, images)[0], method)
            for name, method in {"eager": ensemble, "exported": exported}.items()
        }
        time_round(timers, 0)
        seconds = time_rounds(timers, range(1, rounds + 1))
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
    return {
        "member": backbone,
        "head": MEMBERS[backbone][0],
        "format": format,
        "bytes": size,
        "differences": differences,
        "labels": bool(ensemble.task.classes),
        "largest difference": max(max(row["differences"].values()) for row in differences.values()),
        "largest disagreement": max((max(row["disagreement"].values(), default=0.0)) for row in differences.values()),
        "seconds": seconds,
        "milliseconds": {name: 1000 * statistics.median(values) for name, values in seconds.items()},
        "times as fast": statistics.median(
            eager / other for eager, other in zip(seconds["eager"], seconds["exported"], strict=True)
        ),
    }


def compare_module(path: Path, ensemble: de.Ensemble) -> tuple[nn.Module, dict[str, Any]]:
    """Import a written module, and compare all maps of its prediction with those of the ensemble."""
    spec = importlib.util.spec_from_file_location("written", path)
    assert spec is not None and spec.loader is not None
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    module: nn.Module = written.Ensemble().eval()
    differences = {}
    for size in SIZES:
        for batch in BATCHES:
            images = photographs(ensemble, batch, size)
            prediction = module.predict(images)  # type: ignore[operator]
            gaps = {
                name: float((getattr(prediction, name).double() - maps.double()).abs().max())
                for name, maps in ensemble.predict(images).maps().items()
            }
            labels = {"label": gaps.pop("label")} if "label" in gaps else {}
            differences[f"{format_size(size)} x {batch}"] = {"differences": gaps, "disagreement": labels}
    return module, differences


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", default=",".join(MEMBERS))
    parser.add_argument("--formats", default=",".join(EXPORTERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"] if arguments.out.is_file() else []
    for backbone in arguments.members.split(","):
        own = rounding(make_ensemble(backbone))
        print(f"{backbone:14} in float32 differs from float64 by {own:.1e}", flush=True)
        for format in arguments.formats.split(","):
            rows = [other for other in rows if (other["member"], other["format"]) != (backbone, format)]
            try:
                row = {**measure(backbone, format, arguments.rounds), "rounding": own}
            except ExportError as error:
                print(f"{backbone:14} {format:9} refused: {error}", flush=True)
                continue
            rows.append(row)
            print(
                f"{backbone:14} {format:9} {row['bytes'] / 1e6:6.1f} MB, difference {row['largest difference']:.1e}, "
                f"{row['milliseconds']['exported']:.0f} ms, {row['times as fast']:.2f} x eager",
                flush=True,
            )
            result = {**environment("onnx", "onnxscript", "onnxruntime", "openvino"), "rows": rows}
            arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if arguments.out == RESULT:
        PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
