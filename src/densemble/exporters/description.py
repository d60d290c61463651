"""Description of an exported ensemble, stored as JSON in its file: input, outputs, members, and measured scores."""

from collections.abc import Mapping
from typing import Any

from densemble.ensemble.member_views import ViewedMember
from densemble.ensemble.prediction import MAPS
from densemble.exporters.graph import EnsembleGraph
from densemble.storage.artifact import LICENCE_NOTE
from densemble.versions import installed_versions

KEY = "densemble"
"""Key of the description in the metadata of a file."""
SCHEMA = 1

_TRAITS = ("target_kind", "distribution", "uncertainty")
"""Traits of the task that a runner needs for drawing."""
_UNITS = {"entropy": "nats", "expected_entropy": "nats", "mutual_information": "nats"}


def describe(graph: EnsembleGraph) -> dict[str, Any]:
    """Describe a graph in plain values; :func:`densemble.storage.runs.strict` makes them strict JSON.

    ``input`` and ``outputs`` hold everything that a runner needs. ``scores`` are those of the artifact, measured on
    its held-out images.
    """
    ensemble = graph.ensemble
    options, task = graph.options, ensemble.task
    uint8 = options.input_type == "uint8"
    return {
        "schema": SCHEMA,
        "task": task.describe() | {name: getattr(task, name) for name in _TRAITS},
        "classes": list(task.classes),
        "input": {
            "name": "images",
            "type": options.input_type,
            "layout": "NHWC" if uint8 else "NCHW",
            "channels": ensemble.in_channels,
            "colours": "RGB" if ensemble.in_channels == 3 else "bands",
            "range": [0, 255] if uint8 else [0.0, 1.0],
            "size": list(options.size) if options.size else None,
            "reading": ensemble.reading,
        },
        "outputs": {name: _describe_map(name, getattr(task, "unit", "")) for name in graph.names},
        "members": [_describe_member(name, member) for name, member in ensemble.named_members()],
        "weights": ensemble.weights,
        "combine": ensemble.combine,
        "temperatures": ensemble.temperatures,
        "calibration": None if ensemble.calibration is None else ensemble.calibration.describe(),
        "guarantee": None if ensemble.guarantee is None else ensemble.guarantee.describe(),
        "scores": ensemble.metrics,
        "versions": installed_versions("densemble", "torch", "torchvision", "timm"),
        "licence": LICENCE_NOTE,
    }


def _describe_map(name: str, unit: str) -> dict[str, Any]:
    values = name in ("mean", "lower", "upper")
    return {
        "layout": "NCHW" if MAPS[name].channels else "NHW",
        "type": {"label": "int64", "included": "bool"}.get(name, "float32"),
        "unit": unit if values else _UNITS.get(name, ""),
    }


def _describe_member(name: str, member: Any) -> Mapping[str, Any]:
    spec = member.spec
    view = {"view": member.view.name} if isinstance(member, ViewedMember) else {}
    return {"name": name, "backbone": spec.backbone, "node": spec.node, "head": spec.head, **view}
