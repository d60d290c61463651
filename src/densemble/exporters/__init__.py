"""Export an ensemble to a file that runs without densemble, and verify it before it is handed over."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from torch.export import ExportedProgram

from densemble.data.folder import FolderData
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.placement import on_device
from densemble.errors import UsageError, did_you_mean
from densemble.exporters.description import describe
from densemble.exporters.graph import EnsembleGraph, GraphOptions, require_exportable, trace
from densemble.exporters.onnx import open_onnx, write_onnx
from densemble.exporters.openvino import open_openvino, write_openvino
from densemble.exporters.precision import Precision, lower_precision, without_guarantee
from densemble.exporters.python_source import require_module_name, write_python
from densemble.exporters.runner import Run
from densemble.exporters.torch_program import open_torch, write_torch
from densemble.exporters.verify import compare
from densemble.nets.dense import DenseModel
from densemble.nets.modes import eval_mode
from densemble.nets.network_arguments import unwrapped
from densemble.progress.phases import phase
from densemble.storage.artifact import holds
from densemble.storage.temporary import sweep
from densemble.storage.writing import atomic_files, require_writable

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
        weights: suffix of a second file, which holds the weights; empty: there is none.
        libraries: modules that must be installed.
        extras: extras of densemble that install them, separated by commas.
        require_name: raises an error if the format does not allow the name of the file.
    """

    suffix: str
    make: Callable[[Ensemble, Path, ExportOptions], None]
    weights: str = ""
    libraries: tuple[str, ...] = ()
    extras: str = ""
    require_name: Callable[[Path], None] = lambda path: None


def _make_graph(
    write: Write, open_file: Callable[[Path], Run], ensemble: Ensemble, path: Path, options: ExportOptions
) -> None:
    if options.precision != "fp32":
        ensemble = without_guarantee(ensemble)
    graph = EnsembleGraph(ensemble, options)
    with eval_mode(graph), phase("exporting", 3, steps=True) as steps:
        steps.start(0, f"tracing {len(ensemble.members)} members")
        program = trace(graph)
        steps.start(1, f"writing {path.name}")
        write(program, graph, describe(graph), path)
        steps.start(2, "comparing maps")
        comparison = compare(open_file(path), graph, options.images)
    comparison.require_match()
    largest = max(comparison.differences.values())
    log.info(
        f"{path.name} matches the ensemble on {comparison.images} images: largest relative difference {largest:.1e}"
    )
    if options.precision != "fp32":
        assert options.data is not None
        with phase(f"measuring {options.precision}"):
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
    "onnx": Exporter(
        ".onnx", partial(_make_graph, write_onnx, open_onnx), "", ("onnx", "onnxscript", "onnxruntime"), "onnx"
    ),
    "openvino": Exporter(
        ".xml",
        partial(_make_graph, write_openvino, open_openvino),
        ".bin",
        ("onnx", "onnxscript", "openvino"),
        "onnx,openvino",
    ),
    "torch": Exporter(".pt2", partial(_make_graph, write_torch, open_torch)),
    "python": Exporter(".py", _make_python, ".safetensors", require_name=require_module_name),
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
    exporter = require_target(path, format)
    ensemble = unwrapped(ensemble)
    if isinstance(ensemble, DenseModel):
        ensemble = Ensemble([ensemble])
    options = options or ExportOptions()
    require_exportable(ensemble)
    _require_precision(options, exporter)
    kept = _kept_artifact(path, exporter, ensemble)
    with atomic_files(path, kept) as temporary:
        exporter.make(on_device(ensemble, "cpu"), temporary, options)
    return path


def require_target(path: Path, format: str | None = None) -> Exporter:
    """Check that a file can be written, before the ensemble is loaded, and return the row of its format.

    Raises:
        UsageError: unknown format, wrong suffix or name, a folder, or a library that is not installed.
        ResourceError: the folder cannot be written.
    """
    exporter = _exporter(path, format)
    missing = [name for name in exporter.libraries if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"'{path}' cannot be written or verified without {' and '.join(missing)}; install with pip install "
            f"'densemble[{exporter.extras}]'"
        )
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; name a file that ends with {exporter.suffix}")
    exporter.require_name(path)
    sweep(require_writable(path.parent))
    return exporter


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


def _kept_artifact(path: Path, exporter: Exporter, ensemble: Ensemble) -> Path | None:
    """Return an artifact of the ensemble that stands where the weights belong, such as its source: it is not replaced.

    Raises:
        UsageError: another artifact or another file stands there.
    """
    file = path.with_suffix(exporter.weights)
    if exporter.weights != ".safetensors" or not file.exists():
        return None
    if not holds(file, ensemble):
        raise UsageError(
            f"{path.name} reads its weights from '{file}', which exists and is another artifact; choose another name "
            f"(-o NAME{exporter.suffix}), or move that file"
        )
    log.info(f"'{file}' stays unchanged: it already holds the weights")
    return file


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
