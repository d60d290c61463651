"""The command ``export``: write an artifact to a file that runs without densemble."""

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from densemble.commands.named_values import FORMATS, completed, listed
from densemble.commands.output import say
from densemble.commands.progress import command_progress
from densemble.commands.shared_options import ArtifactPath, Function, Split, split_names


def export(
    artifact: ArtifactPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="File to write.")],
    format: Annotated[
        str | None,
        typer.Option(
            autocompletion=completed(FORMATS),
            help=f"Format: {listed(FORMATS)}. Default: by the suffix (.onnx, .xml, .pt2, .py).",
        ),
    ] = None,
    input_type: Annotated[
        str, typer.Option("--input", help="Images: uint8, (B, H, W, C) in 0..255; or float32, (B, C, H, W) in [0, 1].")
    ] = "uint8",
    size: Annotated[
        str | None, typer.Option(help="The only image size to accept, HEIGHTxWIDTH. Default: any size.")
    ] = None,
    maps: Annotated[
        str | None, typer.Option(help="Maps to return besides mean, separated by commas. Default: all maps.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Image or folder to verify the export on. Default: two photographs.")
    ] = None,
    precision: Annotated[str, typer.Option(help="Precision of an ONNX file: fp32, fp16 or int8.")] = "fp32",
    data: Annotated[Path | None, typer.Option(help="Data set on which a file with lower precision is scored.")] = None,
    split: Split = None,
    triton: Annotated[
        Path | None, typer.Option(help="Also write the ONNX file into this Triton model repository.")
    ] = None,
    function: Function = None,
) -> None:
    """Write an ensemble to a file that runs without densemble, and verify that its maps are the same."""
    from densemble.commands.split_data import data_for, require_split
    from densemble.exporters import ExportOptions, require_target
    from densemble.exporters import export as write
    from densemble.exporters.triton import require_model_name, write_triton
    from densemble.inference.sources import find_images
    from densemble.shapes import parse_size
    from densemble.storage.artifact import load

    require_split(split)
    if triton is not None:
        require_model_name(out)
    exporter = require_target(out, format)
    with command_progress():
        ensemble = load(artifact, "cpu", function or ())
        options = ExportOptions(
            input_type=cast(Any, input_type),
            size=None if size is None else parse_size(size),
            maps=None if maps is None else tuple(split_names(maps)),
            images=() if images is None else tuple(find_images(images)),
            precision=cast(Any, precision),
            data=None if data is None else data_for(ensemble, data, None),
            split=split,
        )
        path = write(ensemble, out, format, options)
    say(f"wrote {_with_size(path)}")
    if exporter.weights:
        say(f"its weights are in {_with_size(path.with_suffix(exporter.weights))}")
    if triton is not None:
        say(f"wrote {write_triton(path, triton)}")


def _with_size(file: Path) -> str:
    return f"{file} ({file.stat().st_size / 1e6:.3g} MB)"
