"""The commands ``doctor``, ``backbones`` and ``cuts``: inspect the machine and the networks."""

import os
import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from densemble.commands.output import print_json, print_table
from densemble.commands.shared_options import Json

PACKAGES = ("densemble", "torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors", "pillow", "numpy")


def doctor(json: Json = False) -> None:
    """Check this machine: versions, threads, accelerator and weights folder. Exit 6 if there is a problem."""
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
    """Versions, hardware and settings of the machine, and the problems with them."""
    import torch

    from densemble.inference.runtime.disk_cache import installed_version
    from densemble.nets.local_weights import WEIGHTS_DIR_VARIABLE
    from densemble.training.fit import bf16_is_fast

    folder = os.environ.get(WEIGHTS_DIR_VARIABLE)
    versions = {name: installed_version(name) for name in PACKAGES}
    problems = [f"{name} is not installed; reinstall densemble" for name in PACKAGES if not versions[name]]
    try:
        from densemble.nets.backbones import backbones as find

        count = len(find())
    except Exception as error:  # a torchvision built for another torch fails on import with various errors
        count = 0
        problems.append(
            f"torchvision or timm cannot be imported ({error}); install a matching pair, see constraints.txt"
        )
    if folder and not Path(folder).is_dir():
        problems.append(
            f"${WEIGHTS_DIR_VARIABLE} is '{folder}', which is not a folder; create it or unset the variable"
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
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a shell pattern such as 'timm/*lite*'.")] = "*",
    json: Json = False,
) -> None:
    """List the available backbones. With --json, add the stored measurements of their cuts."""
    from densemble.errors import UsageError
    from densemble.nets.backbones import backbones as find
    from densemble.storage.coverage import read_coverage

    names = find(pattern) or find(f"*{pattern}*")
    if not names:
        raise UsageError(f"no backbone matches '{pattern}'; backbones of timm are named timm/NAME")
    known = {entry["name"]: entry for entry in read_coverage()}
    if json:
        print_json({"backbones": names, "coverage": [known[name] for name in names if name in known]})
        return
    for name in names:
        refused = name in known and not known[name]["ok"]
        typer.echo(f"{name}  (cannot be cut: {known[name]['reason']})" if refused else name)


def cuts(
    backbone: Annotated[str, typer.Argument(help="Backbone name, or MODULE:NAME of a Python function.")],
    size: Annotated[str, typer.Option(help="Image size, HEIGHTxWIDTH.")] = "240x320",
    every: Annotated[bool, typer.Option("--every", help="List nodes inside blocks, too.")] = False,
    head: Annotated[str | None, typer.Option(help="Head for the automatic cut. Default: as in training.")] = None,
    out_size: Annotated[
        str | None, typer.Option(help="Output size for the automatic cut. Default: image size.")
    ] = None,
    min_size: Annotated[str | None, typer.Option(help="Smallest feature map for the automatic cut.")] = None,
    max_stride: Annotated[float | None, typer.Option(help="Largest stride for the automatic cut.")] = None,
    max_macs: Annotated[float | None, typer.Option(help="Most multiply-accumulates up to the automatic cut.")] = None,
    json: Json = False,
) -> None:
    """List the nodes where a backbone can be cut, with measurements, and the automatic cut."""
    from densemble.nets.automatic_cut import Limits, choose
    from densemble.nets.cut import CutList
    from densemble.nets.cuts import cuts as separating_cuts
    from densemble.nets.cuts import measured
    from densemble.nets.dense import default_head
    from densemble.shapes import parse_size

    image_size = parse_size(size)
    network = measured(backbone, image_size)
    listed = CutList(network.cuts) if every else separating_cuts(backbone, image_size)
    requested_size, smallest = (parse_size(text) if text else None for text in (out_size, min_size))
    limits = Limits(smallest, max_stride, max_macs)
    limits = limits.for_head(head or default_head(backbone), image_size, requested_size)
    auto = choose(network.cuts, "auto", limits, backbone)
    if json:
        facts = {"backbone": backbone, "size": list(image_size), "takes": str(network.rule)}
        print_json({**facts, "auto": auto.as_dict(), "cuts": [cut.as_dict() for cut in listed]})
        return
    typer.echo(str(listed))
    typer.echo(f"\n{backbone} takes {network.rule}; automatic cut: {auto.node}, {auto.why}")
