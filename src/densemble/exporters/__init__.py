"""Export an ensemble to a file that runs without densemble, and verify it before it is handed over."""

import logging
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from torch.export import ExportedProgram

from densemble.data.folder import FolderData
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError, did_you_mean
from densemble.exporters.description import describe
from densemble.exporters.graph import EnsembleGraph, GraphOptions, require_exportable, trace
from densemble.exporters.onnx import open_onnx, write_onnx
from densemble.exporters.openvino import open_openvino, write_openvino
from densemble.exporters.precision import Precision, lower_precision, without_guarantee
from densemble.exporters.python_source import write_python
from densemble.exporters.runner import Run
from densemble.exporters.torch_program import open_torch, write_torch
from densemble.exporters.verify import compare
from densemble.inference.predict import on_device
from densemble.nets.dense import DenseModel
from densemble.nets.modes import eval_mode
from densemble.nets.network_arguments import unwrapped
from densemble.storage.artifact import fingerprint
from densemble.storage.runs import require_writable, writing

log = logging.getLogger(__name__)

Write = Callable[[ExportedProgram, EnsembleGraph, Mapping[str, Any], Path], None]
"""Writes a traced ensemble and its description to a file."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(GraphOptions):
    """Options of :func:`export`.

    Attributes:
        images: files of images on which the export is compared with the ensemble; default: two photographs.
        precision: numbers that the networks compute with; lower than ``fp32`` only for ``onnx``.
        data: images and targets on which the loss of a lower precision is measured, and on whose training images int8
            is calibrated.
        split: split for the measurement; default ``test`` if the data has it, else ``val``.
    """

    images: tuple[Path, ...] = ()
    precision: Precision = "fp32"
    data: FolderData | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in get_args(Precision):
            raise UsageError(f"precision '{self.precision}' is unknown; there are: {', '.join(get_args(Precision))}")


@dataclass(frozen=True)
class Exporter:
    """A row of ``EXPORTERS``.

    Attributes:
        suffix: suffix of the file.
        make: writes the ensemble to a path in an empty folder and verifies what it wrote; all files in the folder
            are then moved to their place.
    """

    suffix: str
    make: Callable[[Ensemble, Path, ExportOptions], None]


def _make_graph(
    write: Write, open_file: Callable[[Path], Run], ensemble: Ensemble, path: Path, options: ExportOptions
) -> None:
    if options.precision != "fp32":
        ensemble = without_guarantee(ensemble)
    graph = EnsembleGraph(ensemble, options)
    with eval_mode(graph):
        log.info(f"tracing {len(ensemble.members)} members")
        program = trace(graph)
        log.info(f"writing {path.name}")
        write(program, graph, describe(graph), path)
        log.info("comparing its maps with those of the ensemble")
        comparison = compare(open_file(path), graph, options.images)
    comparison.require_match()
    largest = max(comparison.differences.values())
    log.info(
        f"{path.name} matches the ensemble on {comparison.images} images: largest relative difference {largest:.1e}"
    )
    if options.precision != "fp32":
        assert options.data is not None
        measured = lower_precision(path, graph, options.precision, options.data, options.split)
        primary = ensemble.task.primary
        log.info(
            f"{options.precision}: {primary} {measured['exported'][primary]:.4f}, in fp32 "
            f"{measured['ensemble'][primary]:.4f}, on {measured['images']} images of {measured['split']}"
        )


def _make_python(ensemble: Ensemble, path: Path, options: ExportOptions) -> None:
    if (options.input_type, options.size, options.maps) != ("uint8", None, None):
        raise UsageError("the format python takes no --input, --size and --maps; edit the written module instead")
    write_python(ensemble, path, options.images)
    log.info(f"{path.name} computes the same maps as the ensemble, bit for bit")


EXPORTERS: dict[str, Exporter] = {
    "onnx": Exporter(".onnx", partial(_make_graph, write_onnx, open_onnx)),
    "openvino": Exporter(".xml", partial(_make_graph, write_openvino, open_openvino)),
    "torch": Exporter(".pt2", partial(_make_graph, write_torch, open_torch)),
    "python": Exporter(".py", _make_python),
}
"""Formats of :func:`export` by name."""


def export(
    ensemble: Ensemble | DenseModel, path: str | Path, format: str | None = None, options: ExportOptions | None = None
) -> Path:
    """Write an ensemble to a file that runs without densemble.

    The file holds everything from pixels to the maps of :func:`densemble.predict` at the size of the image: resizing,
    normalization, members, calibration, combination, uncertainty and guarantee. It is compared with the ensemble at
    several image sizes and batch sizes before it gets its name.

    Args:
        ensemble: runs in eval mode and is not changed; a single network is exported as an ensemble of one.
        path: file to write; its suffix belongs to the format.
        format: row of ``EXPORTERS``; default: that of the suffix.
        options: further options.

    Returns:
        The path.

    Raises:
        UsageError: unknown format, wrong suffix, a library that is not installed, or an ensemble without some of its
            members.
        ExportError: the format cannot express the ensemble, or its maps differ; no file is written.
        ResourceError: the folder cannot be written.
    """
    path = Path(path)
    exporter = _exporter(path, format)
    ensemble = unwrapped(ensemble)
    if isinstance(ensemble, DenseModel):
        ensemble = Ensemble([ensemble])
    options = options or ExportOptions()
    require_exportable(ensemble)
    _require_precision(options, exporter)
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; name a file that ends with {exporter.suffix}")
    require_writable(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        temporary = Path(folder) / path.name
        exporter.make(on_device(ensemble, "cpu"), temporary, options)
        files = sorted(Path(folder).iterdir(), key=lambda file: file == temporary)  # the named file last
        for file in files:
            _require_no_other_artifact(path.with_name(file.name), file)
        for file in files:
            with writing(path):
                file.replace(path.with_name(file.name))
    return path


def _require_precision(options: ExportOptions, exporter: Exporter) -> None:
    """Check that the format has the precision, and that its loss can be measured.

    Raises:
        UsageError: it has not, or there is no data.
    """
    if options.precision == "fp32":
        return
    if exporter is not EXPORTERS["onnx"]:
        raise UsageError(f"precision {options.precision} is for onnx only; export in fp32, or as NAME.onnx")
    if options.data is None:
        raise UsageError(
            f"precision {options.precision} changes the maps; give data to measure how much: --data DATA, or "
            "data=FolderData(...)"
        )


def _require_no_other_artifact(path: Path, written: Path) -> None:
    """Check that a file written beside the named one does not replace the artifact of another ensemble.

    Raises:
        UsageError: it does.
    """
    if path.suffix == ".safetensors" and path.exists() and fingerprint(path) != fingerprint(written):
        raise UsageError(f"'{path}' exists and is another artifact; choose another name, or remove it")


def _exporter(path: Path, format: str | None) -> Exporter:
    """Return the exporter of a format, by default of the suffix.

    Raises:
        UsageError: unknown format, or a suffix of another one.
    """
    known = ", ".join(f"{name} (NAME{row.suffix})" for name, row in EXPORTERS.items())
    if format is None:
        matching = [row for row in EXPORTERS.values() if row.suffix == path.suffix]
        if not matching:
            raise UsageError(f"'{path}': the suffix belongs to no format; there are: {known}")
        return matching[0]
    if format not in EXPORTERS:
        hint = did_you_mean(format, EXPORTERS)
        raise UsageError(f"no export format is named '{format}'; {hint}there are: {known}")
    row = EXPORTERS[format]
    if path.suffix != row.suffix:
        raise UsageError(f"'{path}': a file of format {format} is named NAME{row.suffix}")
    return row
