"""What of an ensemble is no tensor of a network, as one tensor: so that a state_dict stays a dict of tensors.

Clones, averages, ``safetensors`` and ``torch.load(weights_only=True)`` take such a state as any other. The tensor holds
the text of a Python literal, which is read without running anything.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import make_calibration
from densemble.ensemble.cascade import make_cascade
from densemble.ensemble.guarantee import make_guarantee
from densemble.ensemble.member_views import Viewed
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.tasks import make_task

FORMAT = 1
OLDER = (
    "the state holds networks only, without the weights, temperatures, rule and calibration of an ensemble: it is of "
    "an older version of densemble, or they were taken out; load it with strict=False to keep those of this ensemble"
)
_MAKE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "task": make_task,
    "calibration": make_calibration,
    "guarantee": make_guarantee,
    "cascade": make_cascade,
}
PARTS = ("task", "combine", "temperatures", "calibration", "guarantee", "cascade", "reading", "metrics")
"""Arguments and attributes of an ensemble beside its members, their weights and what the rule learnt."""
_OPTIONAL = ("calibration", "guarantee", "cascade", "reading")


def describe(ensemble: nn.Module) -> dict[str, Any]:
    """The :data:`PARTS` of an ensemble as plain values."""
    parts = {name: getattr(ensemble, name) for name in PARTS}
    return {name: part.describe() if name in _MAKE and part is not None else part for name, part in parts.items()}


def described(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of an ensemble from the plain values of :func:`describe`.

    Raises:
        KeyError: a part is absent.
        UsageError, ArtifactError: values of another kind.
    """
    parts = {name: values.get(name) if name in _OPTIONAL else values[name] for name in PARTS}
    return {name: _MAKE[name](part) if name in _MAKE and part else part for name, part in parts.items()}


def kinds(members: Iterable[tuple[str, DenseModel | Viewed]]) -> dict[str, dict[str, Any]]:
    """What decides on each member's maps beside its tensors."""
    kinds = {}
    for name, member in members:
        view = member.view.name if isinstance(member, Viewed) else None
        spec = member.spec
        sizes = {"input_size": spec.input_size, "out_size": spec.out_size, "out_channels": spec.out_channels}
        kinds[name] = {"backbone": spec.backbone, "node": spec.node, "head": spec.head, **sizes, "view": view}
    return kinds


def pack(values: Mapping[str, Any]) -> Tensor:
    """Plain values and small tensors as uint8 ``(N,)``; numbers that are not finite become ``None``."""
    return torch.tensor(list(repr({"format": FORMAT, **_plain(values)}).encode()), dtype=torch.uint8)


def unpack(state: Any) -> dict[str, Any]:
    """The inverse of :func:`pack`; tensors come back as lists.

    Raises:
        UsageError: the tensor was changed, or is of a newer version.
    """
    try:
        if not isinstance(state, Tensor) or state.dtype != torch.uint8:
            raise ValueError(f"{getattr(state, 'dtype', type(state).__name__)} instead of uint8")
        values = ast.literal_eval(bytes(state.flatten().tolist()).decode())
        version = values.pop("format")
    except (ValueError, SyntaxError, KeyError, AttributeError) as error:
        raise UsageError(
            f"the extra state of the ensemble cannot be read ({error}); take it over unchanged, or leave it out and "
            "load with strict=False"
        ) from error
    if version != FORMAT:
        raise UsageError(f"the state has format {version}, this version reads {FORMAT}; update densemble")
    return dict(values)


def require_same_members(saved: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Checks that a state is of an ensemble of the same members.

    Args:
        saved: what decides on a member's maps beside its tensors, by its name.
        own: the same of the ensemble that it is loaded into.

    Raises:
        UsageError: it is of others.
    """
    if set(saved) != set(own):
        raise UsageError(
            f"the state is of an ensemble of {', '.join(saved)}, this one has {', '.join(own)}; build it of the same "
            "members, without those of weight 0"
        )
    for name, values in own.items():
        differing = [key for key in values if values[key] != saved[name].get(key)]
        if differing:
            key = differing[0]
            raise UsageError(
                f"member '{name}' of the state has {key} = {saved[name].get(key)}, this one {values[key]}: its maps "
                "would differ; build the same member"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return type(value)(_plain(item) for item in value)
    if isinstance(value, bool | int | str) or value is None:
        return value
    return float(value) if math.isfinite(value) else None


def require_no_prefix(state: Mapping[str, Any]) -> None:
    """Checks that a state is not that of a module which holds the ensemble.

    Raises:
        UsageError: all its names begin with that module's name for it.
    """
    for name in state:
        prefix, extra, _ = name.rpartition("_extra_state")
        if extra and prefix:
            raise UsageError(
                f"the names in this state begin with '{prefix}': it is of a module that holds the ensemble "
                "(torch.compile, DataParallel); load it into such a module, or take the prefix off every name"
            )
