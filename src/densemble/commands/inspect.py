"""The commands ``backbones`` and ``cuts``: inspect the networks."""

from typing import Annotated

import typer

from densemble.commands.named_values import complete_backbone
from densemble.commands.output import print_json
from densemble.commands.shared_options import Json
from densemble.terminal import print_result


def backbones(
    pattern: Annotated[
        str, typer.Argument(metavar="PATTERN", help="Part of a name, or a shell pattern such as 'timm/*lite*'.")
    ] = "*",
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
        print_result(f"{name}  (cannot be cut: {known[name]['reason']})" if refused else name)


def cuts(
    backbone: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_backbone,
            metavar="BACKBONE",
            help="Name of a backbone, or MODULE:NAME of a Python function.",
        ),
    ],
    size: Annotated[str, typer.Option(help="Image size, HEIGHTxWIDTH.")] = "240x320",
    every: Annotated[bool, typer.Option("--every", help="List nodes inside blocks, too.")] = False,
    head: Annotated[str | None, typer.Option(help="Head for the automatic cut. Default: as in training.")] = None,
    out_size: Annotated[
        str | None, typer.Option(help="Output size for the automatic cut. Default: image size.")
    ] = None,
    min_size: Annotated[
        str | None, typer.Option(help="Smallest size of the feature map at the automatic cut, HEIGHTxWIDTH.")
    ] = None,
    max_stride: Annotated[float | None, typer.Option(help="Largest stride at the automatic cut.")] = None,
    max_macs: Annotated[
        float | None, typer.Option(help="Largest number of multiply-accumulates up to the automatic cut.")
    ] = None,
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
    print_result(str(listed))
    print_result(f"\n{backbone} takes {network.rule}; automatic cut: {auto.node}, {auto.why}")
