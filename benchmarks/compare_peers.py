"""Count working combinations of head, backbone and size in densemble, segmentation-models-pytorch and fastai.

A combination works if it can be built without pretrained weights, gives a finite map of exactly the input's height and
width in training mode, and its gradient reaches the first convolution that runs. Every other result is one line with
the reason. Writes benchmarks/results/compare_peers.json with one row per combination. Combinations run one after the
other on the CPU. fastai takes more than half of the time of the default table.

    python benchmarks/compare_peers.py [--systems smp ...] [--heads fpn ...] [--backbones resnet18 ...] [-o RESULT]

- densemble: the rows of ``HEADS`` that are densemble's heads.
- densemble, decoders of smp: the rows of ``HEADS`` that use segmentation-models-pytorch's decoders.
- smp: its twelve architectures with its encoder of that name, or else timm's (``tu-NAME``).
- smp, padded: the same, with the image padded at the right and bottom to multiples of 32 and the map cropped to the
  image, as its error message advises.
- fastai: ``create_unet_model``, which cuts at the node from fastai's table or search. It also builds a network if it
  finds no skip connection; such a network is not a U-Net and is counted as ``no skips``.

With ``--systems`` or ``--heads``, the other rows of the result file are kept. Every row contains the commit at which it
was measured. The file is written after every system. A library that cannot be imported is left out. To install both in
a separate environment (fastai has about fifty dependencies):

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
import torch.nn.functional as F
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
OURS, DECODERS, SMP, PADDED, FASTAI = "densemble", "densemble, decoders of smp", "smp", "smp, padded", "fastai"
SYSTEMS = {OURS: None, SMP: "smp", PADDED: "smp", DECODERS: "smp", FASTAI: "fastai"}
"""Every system in the order of measurement, and the library that it needs."""
MULTIPLE = 32
"""Padded sizes are multiples of this: the output stride of smp's encoders."""
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
    """One row of the result; ``build`` makes the network with random weights."""

    system: str
    head: str
    backbone: str
    size: Size
    build: Callable[[], nn.Module]


def smp_encoder(backbone: str, architecture: str) -> str:
    """smp's encoder of that name, or else timm's, the only one that DPT supports.

    Raises:
        NoEncoderError: neither exists.
    """
    import timm
    from segmentation_models_pytorch.encoders import get_encoder_names

    own = backbone.replace("efficientnet_b", "efficientnet-b")
    if own in get_encoder_names() and not (architecture == "DPT" and timm.is_model(backbone)):
        return own
    if timm.is_model(backbone):
        return f"tu-{backbone}"
    raise NoEncoderError


class Padded(nn.Module):
    """Pads images at the right and bottom to multiples of 32 and crops the map to the image."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        logits: Tensor = self.network(F.pad(images, (0, -width % MULTIPLE, 0, -height % MULTIPLE)))
        return logits[..., :height, :width]


def build_smp(architecture: str, backbone: str, padded: bool) -> nn.Module:
    import segmentation_models_pytorch as smp

    name = smp_encoder(backbone, architecture)
    model: nn.Module = getattr(smp, architecture)(encoder_name=name, encoder_weights=None, classes=CLASSES)
    return Padded(model) if padded else model


def build_fastai(backbone: str, size: Size) -> nn.Module:
    import torchvision
    from fastai.vision.learner import create_unet_model

    architecture = getattr(torchvision.models, backbone)
    if backbone in ("googlenet", "inception_v3"):
        # fastai runs a network's children one after the other, including the auxiliary classifiers.
        architecture = partial(architecture, aux_logits=False, init_weights=False)
    model: nn.Module = create_unet_model(architecture, CLASSES, size, pretrained=False)
    return model


def build_own(head: str, backbone: str) -> nn.Module:
    return de.DenseModel(
        backbone, head=head, weights=None, out_channels=CLASSES, out_size=None, min_size=(12, 16)
    ).train()


def combinations(backbones: list[str], sizes: list[Size], systems: list[str]) -> Iterator[Combination]:
    """All combinations, backbone by backbone."""
    for backbone in backbones:
        for size in sizes:
            for system in systems:
                for head, build in builders(system, backbone, size):
                    yield Combination(system, head, backbone, size, build)


def builders(system: str, backbone: str, size: Size) -> Iterator[tuple[str, Callable[[], nn.Module]]]:
    """The heads of a system, and the function that builds a network with each."""
    if system in (OURS, DECODERS):
        for head in HEADS:
            if head.startswith("smp-") == (system == DECODERS):
                yield head, partial(build_own, head, backbone)
    elif system == FASTAI:
        yield "DynamicUnet", partial(build_fastai, backbone, size)
    else:
        for architecture in SMP_ARCHITECTURES:
            yield architecture, partial(build_smp, architecture, backbone, system == PADDED)


def run(model: nn.Module, images: Tensor) -> tuple[Tensor, nn.Conv2d | None]:
    """The map, and the first convolution that ran."""
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
    """``works``, or the fault of the network's map of size ``out_size`` (``None``: the input's) or of its gradient."""
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
    # Only this gradient is computed: it passes through all later layers without computing gradients of their weights.
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
        if combination.system == FASTAI:
            row["skips"] = len(model.sfs)  # type: ignore[arg-type]
        row["outcome"] = judge(model, combination.size)
        if row["outcome"] == WORKS and row.get("skips") == 0:
            row["outcome"] = NO_SKIPS
    except NoEncoderError:
        row["outcome"] = NO_ENCODER
    except Exception as error:  # the comparison continues and reports the error
        row["outcome"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")
        if combination.system in (OURS, DECODERS):
            traceback.print_exc()  # an error in densemble is a bug and needs the traceback
    return {**row, "seconds": round(time.perf_counter() - started, 2)}


def importable(module: str) -> bool:
    try:
        import_module(module)
    except ImportError as error:
        print(f"{module} cannot be imported ({error}); it is left out")
        return False
    return True


def summarize(rows: list[Row]) -> list[Row]:
    """Per system and size: number of working combinations, and reasons of the others, per backbone."""
    lines = []
    for system, size in dict.fromkeys((row["system"], row["size"]) for row in sorted(rows, key=rank)):
        mine = [row for row in rows if (row["system"], row["size"]) == (system, size)]
        failed: dict[str, dict[str, list[str]]] = {}
        for row in mine:
            if row["outcome"] != WORKS:
                failed.setdefault(row["backbone"], {}).setdefault(row["outcome"], []).append(row["head"])
        kinds = Counter(row["outcome"] for row in mine)
        counts = {"works": kinds[WORKS], "total": len(mine), NO_ENCODER: kinds[NO_ENCODER], NO_SKIPS: kinds[NO_SKIPS]}
        heads = len({row["head"] for row in mine})
        commits = sorted({row["commit"] for row in mine})
        lines.append({"system": system, "size": size, "heads": heads, **counts, "commits": commits, "failed": failed})
    return lines


def merged(before: list[Row], now: list[Row]) -> list[Row]:
    """The rows of a result file, with rows that were measured again replaced and new ones added."""
    keys = ("system", "head", "backbone", "size")
    rows = {tuple(row[key] for key in keys): row for row in [*before, *now]}
    return list(rows.values())


def rank(row: Row) -> int:
    return list(SYSTEMS).index(row["system"])


def show(lines: list[Row]) -> None:
    print(f"\n{'system':26} {'size':>8} {'works':>6} {'of':>4} {NO_ENCODER:>11} {NO_SKIPS:>9}")
    for line in lines:
        print(
            f"{line['system']:26} {line['size']:>8} {line['works']:6} {line['total']:4} "
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
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="only these")
    parser.add_argument("--heads", nargs="+", help="only these, of any system")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # the other libraries warn about deprecated options at every build
    absent = [peer for peer, module in PEERS.items() if not importable(module)]
    systems = [system for system, peer in SYSTEMS.items() if system in arguments.systems and peer not in absent]
    rows = earlier_rows(arguments)
    for system in systems:
        rows = merged(rows, measure(system, arguments))
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result(rows, arguments), indent=2) + "\n", encoding="utf-8")
    show(summarize(rows))
    print(f"\nall rows in {arguments.out}")


def measure(system: str, arguments: argparse.Namespace) -> list[Row]:
    """All combinations of one system."""
    commit = str(environment()["commit"])[:10]
    rows = []
    for combination in combinations(arguments.backbones, arguments.sizes, [system]):
        if arguments.heads and combination.head not in arguments.heads:
            continue
        row = {**attempt(combination), "commit": commit}
        gc.collect()  # networks with hooks contain reference cycles
        rows.append(row)
        what = f"{row['system']} {row['head']} {row['backbone']} {row['size']}"
        print(f"{what} {row['seconds']:.1f} s {textwrap.shorten(row['outcome'], 160)}", flush=True)
    return rows


def earlier_rows(arguments: argparse.Namespace) -> list[Row]:
    """Rows of the result file that are kept: with ``--systems`` or ``--heads``, those that are not measured now."""
    partly = arguments.heads is not None or set(arguments.systems) != set(SYSTEMS)
    if not partly or not arguments.out.is_file():
        return []
    rows: list[Row] = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"]
    return rows


def result(rows: list[Row], arguments: argparse.Namespace) -> dict[str, Any]:
    """The content of the result file, with the environment of the last call."""
    return {
        **environment("segmentation-models-pytorch", "fastai"),
        "absent": [peer for peer in PEERS if not any(SYSTEMS[row["system"]] == peer for row in rows)],
        "sizes": [list(size) for size in arguments.sizes],
        "batch": BATCH,
        "out_channels": CLASSES,
        "backbones": arguments.backbones,
        "summary": summarize(rows),
        "rows": rows,
    }


if __name__ == "__main__":
    main()
