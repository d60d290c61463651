"""How many combinations of head, backbone and input size work: densemble beside segmentation-models-pytorch and fastai.

A combination works if it can be built without pretrained weights, gives a finite map of exactly the input's height and
width in training mode, and its gradient reaches the first convolution that runs. Everything else is named by its reason
in one line. Writes benchmarks/results/compare_peers.json with one row per combination. Numbers are computed on the CPU,
one combination after the other; the whole default table takes about half an hour on one core.

    python benchmarks/compare_peers.py [--backbones resnet18 ...] [--sizes 360x480 ...] [-o RESULT]

- densemble: every row of ``HEADS``; those named smp-... are segmentation-models-pytorch's decoders over our backbones.
- smp: its twelve architectures over its own encoder of that name, or else over timm's (``tu-NAME``).
- fastai: ``create_unet_model``, which cuts where fastai's own table or search says. It builds without an error where it
  finds no skip connection, too; such a network is not a U-Net and is counted as ``no skips``.

A peer that cannot be imported is left out and recorded as absent. To have both, in an environment of their own, since
fastai brings some fifty packages:

    python -m venv peers
    peers/bin/pip install -c constraints.txt -e '.[bench]'
    OMP_NUM_THREADS=1 peers/bin/python benchmarks/compare_peers.py
"""

import argparse
import gc
import json
import textwrap
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import Tensor, nn

import densemble as de
from densemble.nets.heads import HEADS
from densemble.shapes import Size, format_size, parse_size

RESULT = Path(__file__).parent / "results" / "compare_peers.json"
BACKBONES = (
    "alexnet", "vgg19_bn", "resnet18", "densenet121", "inception_v3", "squeezenet1_1", "mobilenet_v2", "googlenet",
    "efficientnet_b0",
)  # fmt: skip
SIZES = ((360, 480), (225, 301))
BATCH = 2
CLASSES = 11
PEERS = {"smp": "segmentation_models_pytorch", "fastai": "fastai.vision.learner"}
SYSTEMS = ("densemble", *PEERS)
SMP_ARCHITECTURES = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet",
    "Segformer", "DPT",
)  # fmt: skip
WORKS, NO_ENCODER, NO_SKIPS = "works", "no encoder", "no skips"

Row = dict[str, Any]


class NoEncoderError(Exception):
    """The system has no encoder of that name."""


@dataclass(frozen=True)
class Combination:
    """One line of the result; ``build`` makes the network with random weights."""

    system: str
    head: str
    backbone: str
    size: Size
    build: Callable[[], nn.Module]


def smp_encoder(backbone: str, architecture: str) -> str:
    """smp's own encoder of that name, or else timm's, which is what DPT takes alone.

    Raises:
        NoEncoderError: neither has one.
    """
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    own = backbone.replace("efficientnet_b", "efficientnet-b")
    if own in get_encoder_names() and not (architecture == "DPT" and timm.is_model(backbone)):
        return own
    if timm.is_model(backbone):
        return f"tu-{backbone}"
    raise NoEncoderError


def build_smp(architecture: str, backbone: str) -> nn.Module:
    import segmentation_models_pytorch as smp

    name = smp_encoder(backbone, architecture)
    model: nn.Module = getattr(smp, architecture)(encoder_name=name, encoder_weights=None, classes=CLASSES)
    return model


def build_fastai(backbone: str, size: Size) -> nn.Module:
    import torchvision
    from fastai.vision.learner import create_unet_model

    architecture = getattr(torchvision.models, backbone)
    if backbone in ("googlenet", "inception_v3"):
        # fastai runs a network's children one after the other, the auxiliary classifiers among them.
        architecture = partial(architecture, aux_logits=False, init_weights=False)
    model: nn.Module = create_unet_model(architecture, CLASSES, size, pretrained=False)
    return model


def build_own(head: str, backbone: str) -> nn.Module:
    return de.DenseModel(
        backbone, head=head, weights=None, out_channels=CLASSES, out_size=None, min_size=(12, 16)
    ).train()


def combinations(backbones: list[str], sizes: list[Size], systems: list[str]) -> Iterator[Combination]:
    """All of them, backbone by backbone."""
    for backbone in backbones:
        for size in sizes:
            for head in HEADS:
                yield Combination("densemble", head, backbone, size, partial(build_own, head, backbone))
            if "smp" in systems:
                for architecture in SMP_ARCHITECTURES:
                    yield Combination("smp", architecture, backbone, size, partial(build_smp, architecture, backbone))
            if "fastai" in systems:
                yield Combination("fastai", "DynamicUnet", backbone, size, partial(build_fastai, backbone, size))


def run(model: nn.Module, images: Tensor) -> tuple[Tensor, nn.Conv2d | None]:
    """The map, and the convolution that ran first."""
    called: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_pre_hook(lambda conv, _: called.append(conv))
        for module in model.modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return logits, called[0] if called else None


def judge(model: nn.Module, size: Size, out_size: Size | None = None) -> str:
    """``works``, or what is wrong with the network's map of ``out_size`` (``None``: the input's) or its gradient."""
    logits, first = run(model.train(), torch.rand(BATCH, 3, *size))
    if not isinstance(logits, Tensor):
        return f"gives a {type(logits).__name__} instead of a map"
    if tuple(logits.shape[2:]) != (out_size or size):
        return f"wrong size {'x'.join(str(side) for side in logits.shape[2:])}"
    if tuple(logits.shape[:2]) != (BATCH, CLASSES):
        return f"wrong shape {tuple(logits.shape)}"
    if not torch.isfinite(logits).all():
        return "values that are not finite"
    if first is None:
        return "no convolution runs"
    # Only this gradient is asked for: it needs all that lies behind it, and saves the weights' gradients on the way.
    (gradient,) = torch.autograd.grad(logits.square().mean(), first.weight, allow_unused=True)
    if gradient is None:
        return "no gradient at the first convolution"
    return WORKS if torch.isfinite(gradient).all() else "a gradient that is not finite"


def attempt(combination: Combination) -> Row:
    """One row of the result."""
    started = time.perf_counter()
    row: Row = {
        "system": combination.system,
        "head": combination.head,
        "backbone": combination.backbone,
        "size": format_size(combination.size),
    }
    torch.manual_seed(0)
    try:
        model = combination.build()
        if combination.system == "fastai":
            row["skips"] = len(model.sfs)  # type: ignore[arg-type]
        row["outcome"] = judge(model, combination.size)
        if row["outcome"] == WORKS and row.get("skips") == 0:
            row["outcome"] = NO_SKIPS
    except NoEncoderError:
        row["outcome"] = NO_ENCODER
    except Exception as error:  # a comparison goes on, and names what it met
        row["outcome"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")
        if combination.system == "densemble":
            traceback.print_exc()  # one of ours is a bug, and one line does not find it
    return {**row, "seconds": round(time.perf_counter() - started, 2)}


def importable(module: str) -> bool:
    try:
        import_module(module)
    except ImportError as error:
        print(f"{module} cannot be imported ({error}); it is left out")
        return False
    return True


def summarize(rows: list[Row]) -> list[Row]:
    """Per system and size: how many work, and which reasons the others have, per backbone."""
    lines = []
    for system, size in dict.fromkeys((row["system"], row["size"]) for row in sorted(rows, key=rank)):
        mine = [row for row in rows if (row["system"], row["size"]) == (system, size)]
        failed: dict[str, dict[str, list[str]]] = {}
        for row in mine:
            if row["outcome"] != WORKS:
                failed.setdefault(row["backbone"], {}).setdefault(row["outcome"], []).append(row["head"])
        kinds = Counter(row["outcome"] for row in mine)
        counts = {"works": kinds[WORKS], "total": len(mine), NO_ENCODER: kinds[NO_ENCODER], NO_SKIPS: kinds[NO_SKIPS]}
        lines.append({"system": system, "size": size, **counts, "failed": failed})
    return lines


def merged(before: list[Row], now: list[Row]) -> list[Row]:
    """The rows of a result, those that were tried again in their places."""
    keys = ("system", "head", "backbone", "size")
    again = {tuple(row[key] for key in keys): row for row in now}
    return [again.get(tuple(row[key] for key in keys), row) for row in before]


def rank(row: Row) -> int:
    return SYSTEMS.index(row["system"])


def show(lines: list[Row]) -> None:
    print(f"\n{'system':10} {'size':>8} {'works':>6} {'of':>4} {NO_ENCODER:>11} {NO_SKIPS:>9}")
    for line in lines:
        print(
            f"{line['system']:10} {line['size']:>8} {line['works']:6} {line['total']:4} "
            f"{line[NO_ENCODER]:11} {line[NO_SKIPS]:9}"
        )
    for line in lines:
        if line["failed"]:
            print(f"\n{line['system']} {line['size']}, what does not work")
        for backbone, reasons in line["failed"].items():
            for reason, heads in reasons.items():
                print(f"  {backbone:16} {textwrap.shorten(reason, 160)} [{', '.join(heads)}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), help="torchvision's names")
    parser.add_argument("--sizes", nargs="+", type=parse_size, default=list(SIZES), help="inputs, height x width")
    parser.add_argument("--heads", nargs="+", help="only these, of any system; other rows of the result file stay")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the peers build with deprecated options, which is told at every single build
    absent = [system for system, module in PEERS.items() if not importable(module)]
    rows = []
    for combination in combinations(arguments.backbones, arguments.sizes, [s for s in PEERS if s not in absent]):
        if arguments.heads and combination.head not in arguments.heads:
            continue
        row = attempt(combination)
        gc.collect()  # networks with hooks hold themselves in cycles
        rows.append(row)
        what = f"{row['system']} {row['head']} {row['backbone']} {row['size']}"
        print(f"{what} {row['seconds']:.1f} s {textwrap.shorten(row['outcome'], 160)}", flush=True)
    if arguments.heads:
        rows = merged(json.loads(arguments.out.read_text(encoding="utf-8"))["rows"], rows)
    lines = summarize(rows)
    result = {
        **environment("segmentation-models-pytorch", "fastai"),
        "absent": absent,
        "sizes": [list(size) for size in arguments.sizes],
        "batch": BATCH,
        "out_channels": CLASSES,
        "backbones": arguments.backbones,
        "summary": lines,
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(lines)
    print(f"\nall rows in {arguments.out}")


if __name__ == "__main__":
    main()
