"""State of an ensemble other than network tensors, packed into one tensor so that ``state_dict`` holds tensors only.

Copies, averages, ``safetensors`` and ``torch.load(weights_only=True)`` handle such a state like any other. The tensor
holds the text of a Python literal, which is parsed without executing code.
"""

import ast
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import make_calibration
from densemble.ensemble.cascade import make_cascade
from densemble.ensemble.guarantee import make_guarantee
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.tasks import make_task
from densemble.untrusted import excerpt
from densemble.user_code import is_user_function

FORMAT = 1
OLDER = (
    "the state holds networks only, without the weights, temperatures, rule and calibration of an ensemble: it is of "
    "an older version of densemble, or they were removed; load it with strict=False to keep those of this ensemble"
)
_MAKE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "task": make_task,
    "calibration": make_calibration,
    "guarantee": make_guarantee,
    "cascade": make_cascade,
}
PARTS = ("task", "combine", "temperatures", "calibration", "guarantee", "cascade", "reading", "metrics")
"""Arguments and attributes of an ensemble other than members, weights and fitted parameters."""
_OPTIONAL = ("calibration", "guarantee", "cascade", "reading")


def describe(ensemble: nn.Module) -> dict[str, Any]:
    """Return the :data:`PARTS` of an ensemble as plain values."""
    parts = {name: getattr(ensemble, name) for name in PARTS}
    return {name: part.describe() if name in _MAKE and part is not None else part for name, part in parts.items()}


def described(values: Mapping[str, Any]) -> dict[str, Any]:
    """Build arguments of an ensemble from the plain values of :func:`describe`.

    Raises:
        KeyError: a part is missing.
        UsageError, ArtifactError: values have the wrong type.
    """
    parts = {name: values.get(name) if name in _OPTIONAL else values[name] for name in PARTS}
    return {name: _MAKE[name](part) if name in _MAKE and part else part for name, part in parts.items()}


def member_settings(members: Iterable[tuple[str, DenseModel | ViewedMember]]) -> dict[str, dict[str, Any]]:
    """Return the settings, other than tensors, that determine each member's maps."""
    settings = {}
    for name, member in members:
        view = member.view.name if isinstance(member, ViewedMember) else None
        spec = member.spec
        sizes = {"input_size": spec.input_size, "out_size": spec.out_size, "out_channels": spec.out_channels}
        settings[name] = {"backbone": spec.backbone, "node": spec.node, "head": spec.head, **sizes, "view": view}
    return settings


def pack(values: Mapping[str, Any]) -> Tensor:
    """Pack plain values and small tensors as uint8 ``(N,)``; numbers that are not finite become ``None``."""
    return torch.tensor(list(repr({"format": FORMAT, **_plain(values)}).encode()), dtype=torch.uint8)


def unpack(state: Any) -> dict[str, Any]:
    """Unpack the values of :func:`pack`; tensors come back as lists.

    Raises:
        UsageError: the tensor was modified, or was written by a newer version.
    """
    try:
        if not isinstance(state, Tensor) or state.dtype != torch.uint8:
            raise ValueError(f"{getattr(state, 'dtype', type(state).__name__)} instead of uint8")
        values = ast.literal_eval(bytes(state.flatten().tolist()).decode())
        version = values.pop("format")
    except (ValueError, SyntaxError, KeyError, AttributeError, TypeError, RecursionError, MemoryError) as error:
        raise UsageError(
            f"the extra state of the ensemble cannot be read ({excerpt(str(error))}); load it unchanged, or remove it "
            "and load with strict=False"
        ) from error
    if version != FORMAT:
        raise UsageError(f"the state has format {version}, this version reads {FORMAT}; update densemble")
    return dict(values)


def require_same_members(saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Check that a state belongs to an ensemble of the same members.

    Args:
        saved: :func:`member_settings` in the state.
        current: :func:`member_settings` of the ensemble that loads the state.

    Raises:
        UsageError: the members differ.
    """
    if set(saved) != set(current):
        raise UsageError(
            f"the state is of an ensemble of {', '.join(saved)}, this one has {', '.join(current)}; build it of the "
            "same members, without those of weight 0"
        )
    for name, values in current.items():
        differing = [key for key in values if values[key] != saved[name].get(key)]
        if differing:
            key = differing[0]
            raise UsageError(
                f"member '{name}' of the state has {key} = {saved[name].get(key)}, this one {values[key]}: its maps "
                "would differ; build the member with the same settings"
            )


def require_same_rule(saved: str, current: str) -> None:
    """Check that a state does not name a combination rule of the user that the ensemble does not have.

    Raises:
        UsageError: it does; loading it would import code that a file names.
    """
    if is_user_function(saved) and saved != current:
        raise UsageError(
            f"the state has the combination rule {saved}, which is code that is not in it; if you trust it, build the "
            f"ensemble with combine='{saved}' before loading the state"
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
    """Check that a state does not belong to a module that contains the ensemble.

    Raises:
        UsageError: all names start with a prefix of such a module.
    """
    for name in state:
        prefix, extra, _ = name.rpartition("_extra_state")
        if extra and prefix:
            raise UsageError(
                f"the names in this state begin with '{prefix}': it is of a module that contains the ensemble "
                "(torch.compile, DataParallel); load it into such a module, or remove the prefix from every name"
            )


def fingerprint_of(ensemble: nn.Module) -> str:
    """Identify an ensemble in memory by a digest of its tensors and settings."""
    digest = hashlib.sha256()
    for name, tensor in ensemble.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
