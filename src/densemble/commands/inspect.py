"""doctor, backbones, cuts: what this machine and the networks are like."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from densemble.commands.output import print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
PACKAGES = ("densemble", "torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors", "pillow", "numpy")


def doctor(json: Json = False) -> None:
    """Check this machine: versions, threads, accelerator, where weights are looked for."""
    import torch

    from densemble.nets.weights import WEIGHTS_DIR_VARIABLE
    from densemble.training.fit import bf16_is_fast

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    folder = os.environ.get(WEIGHTS_DIR_VARIABLE)
    problems = [f"{name} is not installed; run pip install densemble again" for name in PACKAGES if not installed(name)]
    try:
        import densemble.nets.backbones as door

        count = len(door.backbones())
    except Exception as error:  # a torchvision that does not fit its torch fails on import, in many ways
        count = 0
        problems.append(
            f"torchvision or timm cannot be imported ({error}); install a matching pair, see constraints.txt"
        )
    if folder and not Path(folder).is_dir():
        problems.append(
            f"${WEIGHTS_DIR_VARIABLE} names '{folder}', which is no folder; create it or unset the variable"
        )
    facts = {
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in PACKAGES},
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "bf16": bf16_is_fast(),
        "backbones": count,
        "weights_dir": folder,
        "ok": not problems,
        "problems": problems,
    }
    if json:
        print_json(facts)
    else:
        flat = [
            [key, "none" if value is None else str(value)]
            for key, value in facts.items()
            if key not in ("versions", "problems")
        ]
        print_table(["", ""], [*flat, *([name, installed(name) or "missing"] for name in PACKAGES)])
        for problem in problems:
            typer.echo(f"problem: {problem}")
    if problems:
        raise typer.Exit(6)


def backbones(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern like 'timm/*lite*'.")] = "*",
    json: Json = False,
) -> None:
    """List the backbones, and with --json what the sweep over all of them found: cuts, what is kept and saved."""
    from densemble.errors import UsageError
    from densemble.nets.backbones import backbones as find
    from densemble.storage.coverage import read_coverage

    names = find(pattern) or find(f"*{pattern}*")
    if not names:
        raise UsageError(f"no backbone matches '{pattern}'; timm's are named timm/NAME")
    known = {entry["name"]: entry for entry in read_coverage()}
    if json:
        print_json({"backbones": names, "coverage": [known[name] for name in names if name in known]})
        return
    for name in names:
        refused = name in known and not known[name]["ok"]
        typer.echo(f"{name}  (cannot be cut: {known[name]['reason']})" if refused else name)


def cuts(
    backbone: Annotated[str, typer.Argument(help="Name of a backbone, or package.module:function.")],
    size: Annotated[str, typer.Option(help="Input height x width in pixels.")] = "240x320",
    every: Annotated[bool, typer.Option("--every", help="Nodes inside blocks too.")] = False,
    out_size: Annotated[str | None, typer.Option(help="Map wanted of the automatic cut; default the input's.")] = None,
    min_size: Annotated[str | None, typer.Option(help="Smallest feature map of the automatic cut.")] = None,
    max_stride: Annotated[float | None, typer.Option(help="Largest stride of the automatic cut.")] = None,
    max_macs: Annotated[float | None, typer.Option(help="Most multiply-accumulates up to the automatic cut.")] = None,
    json: Json = False,
) -> None:
    """Measure where a backbone can be cut, and say where it would be cut by itself and why."""
    from densemble.nets.choose import choose, limits
    from densemble.nets.cut import CutList
    from densemble.nets.cuts import cuts as separating
    from densemble.nets.cuts import measured
    from densemble.nets.dense import default_head
    from densemble.nets.heads import HEADS
    from densemble.shapes import parse_size

    wanted = parse_size(size)
    known = measured(backbone, wanted)
    found = CutList(known.cuts) if every else separating(backbone, wanted)
    asked, least = (parse_size(text) if text else None for text in (out_size, min_size))
    levels = HEADS[default_head(backbone)].multi_level
    auto = choose(known.cuts, "auto", limits(wanted, asked, least, max_stride, max_macs, levels), backbone)
    if json:
        facts = {"backbone": backbone, "size": list(wanted), "takes": str(known.rule)}
        print_json({**facts, "auto": auto.as_dict(), "cuts": [cut.as_dict() for cut in found]})
        return
    typer.echo(str(found))
    typer.echo(f"\n{backbone} takes {known.rule}; auto: {auto.node}, {auto.why}")
