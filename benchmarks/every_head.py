"""Count the combinations of all heads with twelve different backbones that work, at sizes from one pixel up.

A combination works if its map has exactly the requested size, is finite, and its gradient reaches the first
convolution. Networks have random weights and are in training mode, batch 2. Writes benchmarks/results/every_head.json.
The whole table takes about half an hour on one core. With ``--heads``, the other heads of the result file are kept;
``commits`` contains the commit at which each head was measured.

    python benchmarks/every_head.py [--backbones alexnet ...] [--heads skip ...]
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from compare_peers import CLASSES, WORKS, judge
from environment import environment

import densemble as de
from densemble.nets.heads import HEADS
from densemble.shapes import Size, format_size

RESULT = Path(__file__).parent / "results" / "every_head.json"
BACKBONES = (
    "alexnet", "vgg11_bn", "resnet18", "densenet121", "inception_v3", "squeezenet1_1", "mobilenet_v3_small", "swin_t",
    "timm/tf_efficientnet_lite0", "timm/convnext_atto", "timm/vit_tiny_patch16_224", "resdeconv",
)  # fmt: skip
SIZES: tuple[Size, ...] = ((1, 1), (7, 5), (97, 131), (224, 224), (225, 301), (360, 480))
OUT_SIZES: tuple[Size | None, ...] = (None, (48, 64))


def outcomes(
    backbone: str, head: str, sizes: Sequence[Size] = SIZES, out_sizes: Sequence[Size | None] = OUT_SIZES
) -> Iterator[tuple[Size, Size | None, str]]:
    """(input size, requested size, ``works`` or the fault) of one head on one backbone."""
    for out_size in out_sizes:
        model = de.DenseModel(backbone, head=head, weights=None, out_channels=CLASSES, out_size=out_size)
        for size in sizes:
            try:
                yield size, out_size, judge(model, size, out_size)
            except Exception as error:  # the table continues and reports the error
                yield size, out_size, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--heads", nargs="+", default=list(HEADS))
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    works, failed = {}, []
    for backbone in arguments.backbones:
        for head in arguments.heads:
            found = list(outcomes(backbone, head))
            works[f"{head} x {backbone}"] = sum(outcome == WORKS for _, _, outcome in found)
            for size, out_size, outcome in found:
                if outcome != WORKS:
                    asked = format_size(out_size or size)
                    failed.append(f"{head} x {backbone}, {format_size(size)} -> {asked}: {outcome}")
                    print(failed[-1], flush=True)
            print(f"{head} x {backbone}: {works[f'{head} x {backbone}']} of {len(found)} work", flush=True)
    result = with_earlier(works, failed, arguments)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['work']} of {result['combinations']} combinations work; {arguments.out}")


def with_earlier(works: dict[str, int], failed: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """The result: the measured heads, and with ``--heads`` also the others of the result file."""
    facts = environment("segmentation-models-pytorch")
    commits: dict[str, str] = {}
    if set(arguments.heads) != set(HEADS) and arguments.out.is_file():
        before = json.loads(arguments.out.read_text(encoding="utf-8"))
        earlier = before["working sizes of each"]
        commits = before.get("commits", {head_of(each): before["commit"] for each in earlier})
        again = set(works)
        works = {**earlier, **works}
        failed = [line for line in before["failed"] if line.split(",")[0] not in again] + failed
    commits |= dict.fromkeys(arguments.heads, facts["commit"])
    each = len(SIZES) * len(OUT_SIZES)
    kinds = {"own heads": False, "decoders of smp": True}
    counts = {
        kind: {name: count for name, count in works.items() if name.startswith("smp-") == of_smp}
        for kind, of_smp in kinds.items()
    }
    return {
        **facts,
        "commits": {head: commits[head] for head in HEADS if head in commits},
        "sizes": [format_size(size) for size in SIZES],
        "out_sizes": [out_size and format_size(out_size) for out_size in OUT_SIZES],
        "backbones": len({name.split(" x ")[1] for name in works}),
        "combinations": len(works) * each,
        "work": sum(works.values()),
        "of each kind": {
            kind: {
                "heads": len({head_of(name) for name in count}),
                "combinations": len(count) * each,
                "work": sum(count.values()),
            }
            for kind, count in counts.items()
        },
        "failed": failed,
        "working sizes of each": works,
    }


def head_of(combination: str) -> str:
    return combination.split(" x ")[0]


if __name__ == "__main__":
    main()
