"""Check the description of an artifact, and the networks that run records describe, before anything is built.

The values come from a file, which may be damaged or written by a stranger. Types and ranges are checked first, so that
no value can make a network, a map or an image of any size. Whatever passes is built on the meta device without memory,
and must have the tensors that the file holds.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from densemble.ensemble.calibrate import Temperature, VarianceScaling, VectorScaling
from densemble.ensemble.cascade import Cascade, uncertainty_measures_for
from densemble.ensemble.described import KEYS
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet, RiskControl
from densemble.nets.axis_order import MAX_PREFIX, is_tokens, token_grid
from densemble.nets.dense import DenseSpec
from densemble.shapes import Size, format_size
from densemble.tasks import TASKS
from densemble.untrusted import Unreadable, excerpt, validated
from densemble.user_code import is_user_function

MOST_PIXELS = 1 << 26
"""Most pixels of an image or map of fixed size: 8192x8192."""
MOST_VALUES = 1 << 29
"""Most values of one map of fixed size: 2 GiB in single precision."""
_LONGEST_NAME = 500
_RANGES: dict[str, tuple[float, float]] = {
    "channels": (1, 1 << 17), "skip_channels": (1, 1 << 17), "own_channels": (1, 1 << 16), "in_channels": (1, 1 << 16),
    "out_channels": (1, 1 << 16), "doublings": (0, 16), "multiple": (1, 1 << 13), "smallest": (1, 1 << 13),
    "std": (1e-12, 1e12), "mean": (-1e12, 1e12),
    "ignore_index": (-(1 << 31), 1 << 31), "scale": (0, 1e12), "invalid_below": (-1e12, 1e12),
    "file_scale": (1e-12, 1e12), "class_weights": (1e-12, 1e12),
    "value": (1e-9, 1e9), "factor": (0, 1e12), "scales": (-1e6, 1e6), "biases": (-1e6, 1e6),
    "threshold": (0, 1e12), "miscoverage": (0, 1), "risk": (0, 1), "confidence": (0, 1), "images": (1, 1 << 31),
    "reach": (0, 1e12), "floor": (0, 1e24), "cost": (0, 1e6), "share": (0, 1e6),
}  # fmt: skip
"""Smallest and largest value, also of each value of a tuple, of the fields of networks, tasks and fitted parts."""
_PARTS: dict[str, type[Any]] = {
    part.kind: part
    for part in (Temperature, VectorScaling, VarianceScaling, ConformalSet, ConformalInterval, RiskControl)
}
"""Calibrations and guarantees by the name in their description."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("it contains control characters")
    return text


_Name = Annotated[str, Field(min_length=1, max_length=_LONGEST_NAME), AfterValidator(_printable)]
_Share = Annotated[float, Field(gt=0, le=1e6)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_MemberValues = Annotated[dict[str, JsonValue], Field(max_length=64)]


class _Reading(BaseModel):
    """How images are read; further options are kept unchanged."""

    model_config = ConfigDict(extra="allow")
    bands: Annotated[list[Annotated[int, Field(ge=0, lt=1 << 16)]], Field(min_length=1, max_length=1 << 16)] | None = (
        None
    )
    image_range: tuple[float, float] | None = None


class _Metrics(BaseModel):
    model_config = ConfigDict(extra="allow")
    val: dict[str, JsonValue] = {}
    members: dict[str, dict[str, JsonValue]] = {}


class _Artifact(BaseModel):
    """The description of an artifact; unknown keys of a later version are ignored."""

    members: Annotated[list[_MemberValues], Field(min_length=1, max_length=500)]
    task: dict[str, JsonValue]
    combine: _Name
    temperatures: dict[str, Annotated[float, Field(gt=0, le=1e9)]]
    calibration: dict[str, JsonValue] | None = None
    guarantee: dict[str, JsonValue] | None = None
    cascade: dict[str, JsonValue] | None = None
    reading: _Reading | None = None
    metrics: _Metrics
    sha256: dict[str, _Digest]
    versions: dict[str, str] = {}
    licence: str = ""


class _EnsembleKeys(BaseModel):
    """Keys of a member besides its network."""

    name: _Name
    weight: _Share
    view: _Name | None = None
    tensors: _Name | None = None


_ARTIFACT, _KEYS, _SPEC = TypeAdapter(_Artifact), TypeAdapter(_EnsembleKeys), TypeAdapter(DenseSpec)


def require_description(values: Any) -> None:
    """Check the types and ranges of the whole description, except its networks, calibration, guarantee and cascade.

    Raises:
        Unreadable: a value is missing, has the wrong type, or is out of range.
    """
    artifact = validated(_ARTIFACT, values)
    names = []
    for index, member in enumerate(artifact.members):
        try:
            keys = validated(_KEYS, {key: value for key, value in member.items() if key in _EnsembleKeys.model_fields})
        except Unreadable as error:
            raise Unreadable(f"members.{index}.{error}") from error
        names.append(keys.name)
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise Unreadable(f"two members are named '{excerpt(repeated[0], 60)}'")
    require_task_values(artifact.task)
    for name in names:
        if name not in artifact.temperatures:
            raise Unreadable(f"temperatures: there is none for member '{excerpt(name, 60)}'")


def member_spec(entry: Mapping[str, Any]) -> DenseSpec:
    """Build the network description of a member's entry; see :func:`read_spec`."""
    return read_spec({key: value for key, value in entry.items() if key not in _EnsembleKeys.model_fields})


def read_spec(values: Mapping[str, Any]) -> DenseSpec:
    """Build a network description from plain values.

    Raises:
        Unreadable: a value is missing, unknown, of the wrong type, out of range, or contradicts another one.
    """
    if not isinstance(values, Mapping):
        raise Unreadable(f"the network is {excerpt(values, 60)}, not a mapping")
    known = {field.name for field in fields(DenseSpec)}
    if unknown := sorted(set(values) - known):
        raise Unreadable(f"unknown key '{excerpt(unknown[0], 60)}'")
    spec = validated(_SPEC, values)
    _require_ranges(spec)
    for name in ("out_size", "input_size", "fixed"):
        _require_size(name, getattr(spec, name))
    if spec.out_size is not None and spec.out_channels * math.prod(spec.out_size) > MOST_VALUES:
        raise Unreadable(
            f"out_size: {spec.out_channels} x {format_size(spec.out_size)} values, more than {MOST_VALUES}"
        )
    texts = (spec.backbone, spec.node, spec.head, *spec.skip_nodes, *spec.layouts, *spec.stem)
    if any(not text.isprintable() or not 1 <= len(text) <= _LONGEST_NAME for text in texts):
        raise Unreadable(f"a name has no characters, more than {_LONGEST_NAME}, or control characters")
    counts = {
        "mean": (len(spec.mean), spec.in_channels), "std": (len(spec.std), spec.in_channels),
        "skip_channels": (len(spec.skip_channels), len(spec.skip_nodes)),
        "layouts": (len(spec.layouts), 1 + len(spec.skip_nodes)),
    }  # fmt: skip
    for name, (count, needed) in counts.items():
        if count != needed:
            raise Unreadable(f"{name}: {count} values instead of {needed}")
    for layout in spec.layouts:
        _require_layout(layout)
    return spec


def _require_ranges(part: Any) -> None:
    for field in fields(part):
        low, high = _RANGES.get(field.name, (-math.inf, math.inf))
        value = getattr(part, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int | float) and not low <= number <= high:
                raise Unreadable(f"{field.name}: {number} is not between {low:g} and {high:g}")


def _require_size(name: str, size: Size | None) -> None:
    if size is not None and not (min(size) >= 1 and math.prod(size) <= MOST_PIXELS):
        raise Unreadable(f"{name}: {format_size(size)} is no size of 1 to {MOST_PIXELS} pixels")


def _require_layout(layout: str) -> None:
    if layout in ("NCHW", "NHWC"):
        return
    try:
        stride, prefix = token_grid(layout) if is_tokens(layout) and len(layout) < 20 else (0, 0)
    except AssertionError:
        stride, prefix = 0, 0
    if not (1 <= stride <= 1024 and prefix <= MAX_PREFIX):
        raise Unreadable(f"layouts: '{excerpt(layout, 60)}' is no order of axes")


def require_task_values(values: Mapping[str, Any]) -> None:
    """Check the plain values of a task before :func:`densemble.tasks.make_task` builds it.

    Raises:
        Unreadable: an unknown task, or a value of the wrong type or out of range.
    """
    name = values.get("name")
    if not isinstance(name, str) or name not in TASKS:
        raise Unreadable(f"task: no task is named {excerpt(repr(name), 60)}; there are: {', '.join(TASKS)}")
    choices = {key: values[key] for key in TASKS[name].choices() if key in values}
    try:
        task = validated(_adapter(TASKS[name]), choices)
    except Unreadable as error:
        raise Unreadable(f"task.{error}") from error
    _require_ranges(task)
    if not 1 <= task.out_channels <= _RANGES["out_channels"][1]:
        raise Unreadable(f"task: {task.out_channels} channels")
    if any(len(text) > _LONGEST_NAME for text in (*task.classes, task.loss_name, str(getattr(task, "unit", "")))):
        raise Unreadable(f"task: a name has more than {_LONGEST_NAME} characters")


def require_part_values(values: Mapping[str, Any]) -> None:
    """Check the plain values of calibration, guarantee and cascade before they are built.

    Raises:
        Unreadable: a value is missing, has the wrong type, or is out of range.
        UsageError: the part rejects the values.
    """
    for key in ("calibration", "guarantee"):
        part = values.get(key)
        if part is None:
            continue
        kind = part.get("kind")
        if not isinstance(kind, str) or len(kind) > _LONGEST_NAME or not kind.isprintable():
            raise Unreadable(f"{key}.kind is {excerpt(kind, 60)}")
        if kind in _PARTS:
            _require_ranges(_built(key, _PARTS[kind], {name: value for name, value in part.items() if name != "kind"}))
    if values.get("cascade") is not None:
        cascade = _built("cascade", Cascade, values["cascade"])
        for row in (cascade, *cascade.policies, *cascade.checks):
            _require_ranges(row)


def _built(key: str, kind: type[Any], values: Mapping[str, Any]) -> Any:
    names = {stored: name for name, stored in KEYS.items()}
    try:
        return validated(_adapter(kind), {names.get(name, name): value for name, value in values.items()})
    except Unreadable as error:
        raise Unreadable(f"{key}.{error}") from error


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return _ADAPTERS.setdefault(kind, _ADAPTERS.get(kind) or TypeAdapter(kind))


def require_suiting(ensemble: Ensemble, names: Sequence[str]) -> None:
    """Check that rule, calibration, guarantee and cascade suit the task and the members.

    Args:
        ensemble: the built ensemble.
        names: members in the file; some may be left out.

    Raises:
        Unreadable, UsageError: one of them does not.
    """
    task, calibration, guarantee, cascade = ensemble.task, ensemble.calibration, ensemble.guarantee, ensemble.cascade
    if getattr(calibration, "distribution", task.distribution) != task.distribution or (
        isinstance(calibration, VarianceScaling) and task.distribution != "none"
    ):
        raise Unreadable(f"calibration: it does not suit maps of the task {task.name}")
    if isinstance(calibration, VectorScaling) and len(calibration.scales) != task.out_channels:
        raise Unreadable(f"calibration: {len(calibration.scales)} scales for {task.out_channels} channels")
    suiting: dict[type[Any], tuple[str, ...]] = {
        ConformalSet: ("labels",), ConformalInterval: ("values",), RiskControl: ("labels", "masks"),
    }  # fmt: skip
    if guarantee is not None and (
        task.target_kind not in suiting[type(guarantee)]
        or getattr(guarantee, "distribution", task.distribution) != task.distribution
    ):
        raise Unreadable(f"guarantee: {guarantee.kind} does not suit the task {task.name}")
    if not is_user_function(ensemble.combine):
        maps = torch.full((len(ensemble.members), 1, task.out_channels, 2, 2), 1 / max(task.out_channels, 2))
        ensemble.combination.predict(maps)  # shapes of the fitted tensors
    bands = ensemble.reading.get("bands")
    if bands is not None and len(bands) != ensemble.in_channels:
        raise Unreadable(f"reading.bands: {len(bands)} bands for networks of {ensemble.in_channels} channels")
    if cascade is None:
        return
    measures = uncertainty_measures_for(task)
    if {policy.measure for policy in cascade.policies} - {*measures}:
        raise Unreadable(f"cascade: the task {task.name} has no such measure; it has {', '.join(measures)}")
    if set(cascade.shares) != set(names):  # the members of the policies have shares
        raise Unreadable("cascade: it is one of other members")
