"""HTML of an ensemble and of a batch of predictions, for notebooks."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from densemble.notebook import card, facts, grey, images, table
from densemble.shapes import Array, format_size

_DRAWN = 4
"""Number of images of a batch that are drawn."""
_MOST_CLASSES = 12
_MOST_METRICS = 6


def ensemble_html(ensemble: Any) -> str:
    """Return the HTML of an :class:`Ensemble`: members, weights, scores, rule, calibration and guarantee."""
    rows = [
        [
            name,
            f"{ensemble.weights[name]:.3f}",
            f"{ensemble.temperatures[name]:.2f}",
            member.spec.backbone,
            member.spec.node,
            member.spec.head,
            f"{sum(parameter.numel() for parameter in member.parameters()) / 1e6:.1f} M",
        ]
        for name, member in ensemble.named_members()
    ]
    columns = ["member", "weight", "temperature", "backbone", "cut", "head", "parameters"]
    classes = ensemble.task.classes
    size = "size of the image" if ensemble.out_size is None else format_size(ensemble.out_size)
    values = {
        "maps": f"{ensemble.task.out_channels} x {size}",
        "classes": f"{', '.join(classes[:_MOST_CLASSES])}{', ...' * (len(classes) > _MOST_CLASSES)}"
        if classes
        else None,
        "combination rule": ensemble.combine,
        "calibration": _plain(ensemble.calibration) or "none",
        "guarantee": _plain(ensemble.guarantee) or "none",
        "cascade": f"{len(ensemble.cascade.policies)} policies" if ensemble.cascade else None,
        **{f"left out: {name}": reason for name, reason in ensemble.left_out.items()},
    }
    title = f"Ensemble of {len(rows)} member{'s' * (len(rows) > 1)}: {ensemble.task.name}"
    return card(title, table(columns, rows), facts(values), _scores(ensemble.metrics))


def _plain(part: Any) -> str:
    """Return the kind and the numbers of a calibration or guarantee as text."""
    if part is None:
        return ""
    values = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    numbers = [f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float)]
    return ", ".join([str(part.kind).replace("_", " "), *numbers])


def _scores(metrics: Mapping[str, Any]) -> str:
    """Return the stored scores of the ensemble and its members as a table; empty if there are none."""
    whole = metrics.get("val")
    if not isinstance(whole, Mapping):
        return ""
    names = [name for name, value in whole.items() if isinstance(value, float)][:_MOST_METRICS]
    members = metrics.get("members") or {}
    rows = [("ensemble", whole), *sorted(members.items(), key=lambda item: item[0])]
    cells = [[name, *(_number(scores.get(metric)) for metric in names)] for name, scores in rows]
    return table(["score on val", *names], cells) if names else ""


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def prediction_html(prediction: Any) -> str:
    """Return the HTML of a :class:`Prediction`: shapes and ranges of its maps, and drawings of the first images."""
    maps: dict[str, Tensor] = {name: values.detach().cpu() for name, values in prediction.maps().items()}
    rows = [
        [name, " x ".join(str(side) for side in values.shape), *(f"{v:.4g}" for v in _range(values))]
        for name, values in maps.items()
    ]
    count = len(prediction.mean)
    shown = range(min(count, _DRAWN))
    uncertainty = next((name for name in ("entropy", "variance") if name in maps), None)
    names = ["label" if "label" in maps else "mean", *([uncertainty] if uncertainty else [])]
    drawings = [(f"{name} of image {index}", grey(_plane(maps[name][index]))) for index in shown for name in names]
    left_out = {
        f"image {i}, without": ", ".join(members) for i, members in enumerate(prediction.left_out or ()) if members
    }
    title = f"Prediction of {count} image{'s' * (count != 1)}"
    return card(title, images(drawings), facts(left_out), table(["map", "shape", "min", "mean", "max"], rows))


def _range(values: Tensor) -> tuple[float, float, float]:
    numbers = values.float()
    return float(numbers.min()), float(numbers.mean()), float(numbers.max())


def _plane(values: Tensor) -> Array:
    """Return a map as ``(H, W)``; the largest value over its channels."""
    plane: Array = np.asarray(values.float())
    return plane.max(0) if plane.ndim == 3 else plane
