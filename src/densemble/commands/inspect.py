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
        flat = [[key, str(value)] for key, value in facts.items() if key not in ("versions", "problems")]
        print_table(["", ""], [*flat, *([name, installed(name) or "missing"] for name in PACKAGES)])
        for problem in problems:
            typer.echo(f"problem: {problem}")
    if problems:
        raise typer.Exit(6)


def backbones(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, for instance 'res*' or 'timm/*lite*'.")] = "*",
    json: Json = False,
) -> None:
    """List the backbones that can be cut."""
    from densemble.errors import UsageError
    from densemble.nets.backbones import backbones as find

    names = find(pattern)
    if not names:
        raise UsageError(f"no backbone matches '{pattern}'; timm's are named timm/NAME, put * around a part of a name")
    if json:
        print_json({"backbones": names})
    else:
        typer.echo("\n".join(names))


def cuts(
    backbone: Annotated[str, typer.Argument(help="Name of a backbone.")],
    size: Annotated[str, typer.Option(help="Input height x width in pixels.")] = "240x320",
    every: Annotated[bool, typer.Option("--every", help="Nodes inside blocks too.")] = False,
    json: Json = False,
) -> None:
    """Measure where a backbone can be cut: channels, size, stride and work at every place."""
    from densemble.nets.cut import CutList
    from densemble.nets.cuts import all_nodes
    from densemble.nets.cuts import cuts as measure
    from densemble.shapes import parse_size

    wanted = parse_size(size)
    found = CutList(all_nodes(backbone, wanted)) if every else measure(backbone, wanted)
    if json:
        print_json({"backbone": backbone, "size": list(wanted), "cuts": [cut.as_dict() for cut in found]})
    else:
        typer.echo(str(found))
