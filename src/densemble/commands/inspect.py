"""doctor, backbones, cuts: what this machine and the networks are like."""

import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from densemble.commands.output import print_json, print_table

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
PACKAGES = ("densemble", "torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors", "pillow", "numpy")


def doctor(json: Json = False) -> None:
    """Check this machine: versions, threads, accelerator, where weights are looked for."""
    facts = _facts()
    if json:
        print_json(facts)
    else:
        flat = {key: value for key, value in facts.items() if key not in ("versions", "problems")}
        rows = [[key, "none" if value is None else str(value)] for key, value in flat.items()]
        print_table(["", ""], [*rows, *([name, number or "missing"] for name, number in facts["versions"].items())])
        for problem in facts["problems"]:
            typer.echo(f"problem: {problem}")
    if facts["problems"]:
        raise typer.Exit(6)


def _facts() -> dict[str, Any]:
    """What the machine has, and the problems in it."""
    import torch

    from densemble.inference.runtime.disk_cache import installed_version
    from densemble.nets.local_weights import WEIGHTS_DIR_VARIABLE
    from densemble.training.fit import bf16_is_fast

    folder = os.environ.get(WEIGHTS_DIR_VARIABLE)
    versions = {name: installed_version(name) for name in PACKAGES}
    problems = [f"{name} is not installed; run pip install densemble again" for name in PACKAGES if not versions[name]]
    try:
        from densemble.nets.backbones import backbones as find

        count = len(find())
    except Exception as error:  # a torchvision that does not fit its torch fails on import, in many ways
        count = 0
        problems.append(
            f"torchvision or timm cannot be imported ({error}); install a matching pair, see constraints.txt"
        )
    if folder and not Path(folder).is_dir():
        problems.append(
            f"${WEIGHTS_DIR_VARIABLE} names '{folder}', which is no folder; create it or unset the variable"
        )
    return {
        "python": platform.python_version(),
        "versions": versions,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "bf16": bf16_is_fast(),
        "backbones": count,
        "weights_dir": folder,
        "ok": not problems,
        "problems": problems,
    }


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
    head: Annotated[str | None, typer.Option(help="Head of the automatic cut; default as in training.")] = None,
    out_size: Annotated[str | None, typer.Option(help="Map wanted of the automatic cut; default the input's.")] = None,
    min_size: Annotated[str | None, typer.Option(help="Smallest feature map of the automatic cut.")] = None,
    max_stride: Annotated[float | None, typer.Option(help="Largest stride of the automatic cut.")] = None,
    max_macs: Annotated[float | None, typer.Option(help="Most multiply-accumulates up to the automatic cut.")] = None,
    json: Json = False,
) -> None:
    """Measure where a backbone can be cut, and say where it would be cut by itself and why."""
    from densemble.nets.automatic_cut import Limits, choose
    from densemble.nets.cut import CutList
    from densemble.nets.cuts import cuts as separating
    from densemble.nets.cuts import measured
    from densemble.nets.dense import default_head
    from densemble.nets.heads import require_head
    from densemble.shapes import parse_size

    wanted = parse_size(size)
    known = measured(backbone, wanted)
    found = CutList(known.cuts) if every else separating(backbone, wanted)
    asked, least = (parse_size(text) if text else None for text in (out_size, min_size))
    head = head or default_head(backbone)
    require_head(head)
    within = Limits(least, max_stride, max_macs).for_head(head, wanted, asked)
    auto = choose(known.cuts, "auto", within, backbone)
    if json:
        facts = {"backbone": backbone, "size": list(wanted), "takes": str(known.rule)}
        print_json({**facts, "auto": auto.as_dict(), "cuts": [cut.as_dict() for cut in found]})
        return
    typer.echo(str(found))
    typer.echo(f"\n{backbone} takes {known.rule}; auto: {auto.node}, {auto.why}")
