"""Lower precision of an ONNX export: fp16 or int8 inside the networks, with the loss measured on held-out images."""

import json
import logging
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ExportError
from densemble.evaluation.benchmark.interleave import Method
from densemble.evaluation.benchmark.split_scores import score_methods
from densemble.evaluation.scores import default_split, images_with_targets
from densemble.exporters.description import KEY
from densemble.exporters.graph import EnsembleGraph, first_line, quiet
from densemble.exporters.onnx import open_onnx
from densemble.exporters.verify import as_input
from densemble.inference.runtime.backends.libraries import load_onnxruntime
from densemble.shapes import Array
from densemble.storage.runs import strict
from densemble.storage.writing import temporary_folder

Precision = Literal["fp32", "fp16", "int8"]
"""Numbers that the networks of an ONNX file compute with. Resizing, calibration and combination stay in fp32."""

CALIBRATION_IMAGES = 32
"""Training images from which int8 takes the range of each activation."""

log = logging.getLogger(__name__)


def without_guarantee(ensemble: Ensemble) -> Ensemble:
    """The ensemble without its guarantee, which was fitted to predictions in fp32."""
    if ensemble.guarantee is None:
        return ensemble
    log.info("the guarantee is left out: it was fitted to predictions in fp32")
    other = ensemble.with_members(dict(ensemble.named_members()))
    other.combination = replace(other.combination, guarantee=None)
    return other.eval()


def lower_precision(
    path: Path, graph: EnsembleGraph, precision: Precision, data: FolderData, split: str | None
) -> dict[str, Any]:
    """Replace an ONNX file by one of lower precision, whose description holds the measured scores.

    Args:
        path: the file in fp32.
        graph: the graph of the file.
        precision: ``fp16`` or ``int8``.
        data: images and targets; int8 is calibrated on images of ``train``.
        split: split on which scores are measured; default ``test`` if the data has it, else ``val``.

    Returns:
        The precision, the split, its number of images, the scores of the ensemble and of the file, and the median
        milliseconds per image of both.

    Raises:
        ExportError: the model cannot be converted.
        DataError: the data does not fit the ensemble.
    """
    data = data.numbered_as(graph.ensemble.task)
    split = split or default_split(data)
    try:
        with quiet():
            if precision == "fp16":
                _to_fp16(path)
            else:
                _to_int8(path, _calibration_images(graph, data))
    except Exception as error:  # the converters raise errors of many types
        raise ExportError(f"the ONNX file cannot be converted to {precision}: {first_line(error)}") from error
    measured = {"precision": precision, "split": split, **_measure(path, graph, data, split)}
    _add_to_description(path, {"precision": measured, "guarantee": None})
    return measured


def _network_nodes(model: Any) -> list[str]:
    """Names of the nodes inside backbones and heads."""
    parts = [(node.name, node.name.split(".")) for node in model.graph.node]
    return [name for name, part in parts if part[0] == "members" and len(part) > 2]


def _to_fp16(path: Path) -> None:
    import onnx

    load_onnxruntime()
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    model = onnx.load(path)
    inside = set(_network_nodes(model))
    outside = [node.name for node in model.graph.node if node.name not in inside]
    converted = convert_float_to_float16(
        model, keep_io_types=True, disable_shape_infer=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, "Resize"],
        node_block_list=outside,
    )  # fmt: skip
    onnx.save(converted, path)


def _to_int8(path: Path, images: Iterable[Array]) -> None:
    """Quantize convolutions: weights per channel, activations per layer, in the form of QDQ nodes."""
    import onnx

    load_onnxruntime()
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.images, None)
            return None if image is None else {"images": image}

    model = onnx.load(path)
    inside = set(_network_nodes(model))
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv" and node.name in inside]
    with temporary_folder(path.parent) as folder:
        quantized = folder / path.name
        quantization.quantize_static(
            str(path), str(quantized), Reader(), per_channel=True, nodes_to_quantize=convolutions,
            weight_type=quantization.QuantType.QInt8, activation_type=quantization.QuantType.QUInt8,
        )  # fmt: skip
        quantized.replace(path)


def _calibration_images(graph: EnsembleGraph, data: FolderData) -> Iterator[Array]:
    total = len(data.split("train"))
    step = max(total // CALIBRATION_IMAGES, 1)
    for images, _, _ in images_with_targets(data, "train", range(0, total, step)[:CALIBRATION_IMAGES]):
        yield as_input(graph, images)


def _measure(path: Path, graph: EnsembleGraph, data: FolderData, split: str) -> dict[str, Any]:
    run, ensemble = open_onnx(path), graph.ensemble

    def exported(images: Tensor) -> Tensor:
        return torch.from_numpy(run(as_input(graph, images))["mean"])

    methods: dict[str, Method] = {"ensemble": ensemble, "exported": exported}
    examples = images_with_targets(data, split)
    with torch.no_grad():
        scores = score_methods(methods, ensemble.task, examples, torch.device("cpu"))
    return {
        "images": len(data.split(split)),
        **{name: {key: value for key, value in row.scores.items() if isinstance(value, float)}
           for name, row in scores.items()},
        "milliseconds": {name: 1000 * statistics.median(row.seconds) for name, row in scores.items()},
    }  # fmt: skip


def _add_to_description(path: Path, entries: dict[str, Any]) -> None:
    import onnx

    model = onnx.load(path)
    stored = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {KEY: json.dumps(strict({**json.loads(stored[KEY]), **entries}))})
    onnx.save(model, path)
