"""Checks of the arguments of an ensemble: members and their names, one number per member, optional parts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import Calibration
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.nets.network_arguments import unwrapped
from densemble.tasks import Task, make_task

Member = DenseModel | ViewedMember

_PARTS: dict[str, tuple[Any, str]] = {
    "combine": (str, "a row of COMBINE, such as 'mean'"),
    "calibration": (Calibration | None, "a calibration of densemble.ensemble.calibrate, or None"),
    "guarantee": (Guarantee | None, "a guarantee of densemble.ensemble.guarantee, or None"),
    "cascade": (Cascade | None, "a Cascade, or None"),
    "metrics": (Mapping | None, "a dict"),
    "reading": (Mapping | None, "a dict"),
    "fitted": (Mapping | None, "a dict of tensors"),
}


def require_parts(**parts: Any) -> None:
    """Check the types of arguments of an ensemble.

    Raises:
        UsageError: an argument has another type.
    """
    for name, value in parts.items():
        accepted, description = _PARTS[name]
        if not isinstance(value, accepted):
            raise UsageError(f"{name}={value!r} cannot be used; give {description}")


def members_of(members: Any) -> dict[str, Member]:
    """Return members by name, from a dict, a sequence, or a single member.

    Raises:
        UsageError: there are no members, one is not a dense model, or a module cannot have its name.
    """
    members = unwrapped(members)
    if isinstance(members, DenseModel | ViewedMember):
        members = [members]
    if isinstance(members, Mapping | nn.ModuleDict):
        named = dict(members.items())
    elif isinstance(members, Iterable) and not isinstance(members, str | Mapping) and not _is_ensemble(members):
        named = _numbered([unwrapped(member) for member in members])
    else:
        named = {"members": members}
    named = {name: unwrapped(member) for name, member in named.items()}
    for name, member in named.items():
        if not isinstance(member, DenseModel | ViewedMember):
            raise UsageError(f"member {name!r} is {_describe_type(member)}")
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise UsageError(f"no member can be named {name!r}: {_suggest_name(name)}")
    if not named:
        raise UsageError("an ensemble needs at least one member")
    return named


def _is_ensemble(value: Any) -> bool:
    return isinstance(getattr(value, "members", None), nn.ModuleDict)


def _describe_type(value: Any) -> str:
    if _is_ensemble(value):
        return "an Ensemble; give its members instead: {**dict(ensemble.named_members()), ...}, weights={name: weight}"
    if isinstance(value, str):
        return f"a name; build a network from it: DenseModel({value!r}, out_channels=...)"
    if isinstance(value, nn.Module):
        type_name = type(value).__name__
        return (
            f"a {type_name}, not a dense model; convert it: DenseModel(module, out_channels=...) cuts it and adds a "
            "head"
        )
    return f"of type {type(value).__name__}; give dense models, as a dict by name or as a list"


def _suggest_name(name: Any) -> str:
    if not isinstance(name, str):
        return f"give text, such as '{name}'"
    if not name:
        return "give a name that is not empty"
    if "." in name:
        return f"a dot separates modules in the names of tensors; write '{name.replace('.', '_')}'"
    return f"modules have an attribute with this name; write '{name}_'"


def _numbered(members: Iterable[Any]) -> dict[Any, Any]:
    """Name the members of a sequence by their backbones; anything that is no member gets its index as its name."""
    named: dict[Any, Any] = {}
    for index, member in enumerate(members):
        name: Any = index
        if isinstance(member, DenseModel | ViewedMember):
            name = member.spec.backbone.removeprefix("timm/").replace("/", "-").replace(".", "_")
        named[name if name not in named else f"{name}-{index}"] = member
    return named


def number_each(argument: str, numbers: Any, names: Iterable[str], default: float | None = None) -> dict[str, float]:
    """Return one number for each member.

    Args:
        argument: name of the argument, used in messages.
        numbers: numbers by name, or in the order of the members; ``None``: ``default`` or 1 for all.
        names: names of the members.
        default: number of members without an entry; ``None``: every member needs an entry.

    Raises:
        UsageError: wrong number of values, an unknown name, or values that are not numbers.
    """
    names = list(names)
    if numbers is None:
        return dict.fromkeys(names, 1.0 if default is None else default)
    if isinstance(numbers, Mapping):
        unknown = [name for name in numbers if name not in names]
        missing = [name for name in names if name not in numbers and default is None]
        if unknown or missing:
            problem = f"no member is named {unknown[0]!r}" if unknown else f"there is none for member '{missing[0]}'"
            raise UsageError(f"{argument}: {problem}; the members are {', '.join(names)}")
        given = {name: numbers.get(name, default) for name in names}
    elif isinstance(numbers, Iterable) and not isinstance(numbers, str):
        values = numbers.tolist() if isinstance(numbers, Tensor) else list(numbers)
        if len(values) != len(names):
            raise UsageError(f"{len(values)} {argument} for {len(names)} members; give one each")
        given = dict(zip(names, values, strict=True))
    else:
        raise UsageError(f"{argument}={numbers!r} must be one number per member, as a list or as a dict by name")
    try:
        return {name: float(value) for name, value in given.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{argument}={numbers!r} are not all numbers; give one for each member") from error


def kept_weights(weights: Any, names: Iterable[str]) -> dict[str, float]:
    """Return weights that sum to 1, for the members with a weight above 0.

    Raises:
        UsageError: weights are negative, not finite, all 0, or not one per member.
    """
    given = number_each("weights", weights, names)
    if any(not math.isfinite(weight) or weight < 0 for weight in given.values()) or not sum(given.values()):
        raise UsageError(f"weights {list(given.values())} must be >= 0, finite and not all 0")
    total = sum(given.values())
    # Weights that already sum to 1 stay bit-equal, so that saving, loading and rewriting an ensemble changes nothing.
    total = 1.0 if math.isclose(total, 1, rel_tol=1e-12) else total
    return {name: weight / total for name, weight in given.items() if weight > 0}


def positive_temperatures(temperatures: Any, names: Iterable[str]) -> dict[str, float]:
    """Return a temperature for each member, default 1.

    Raises:
        UsageError: a temperature is not positive and finite, or belongs to no member.
    """
    given = number_each("temperatures", temperatures, names, 1.0)
    if any(not math.isfinite(value) or value <= 0 for value in given.values()):
        raise UsageError(f"temperatures {given} must be positive and finite")
    return given


def require_least(min_members: Any, members: int) -> None:
    """Check the smallest number of members.

    Raises:
        UsageError: it is not an integer from 1 to ``members``.
    """
    whole = isinstance(min_members, int) and not isinstance(min_members, bool)
    if min_members is not None and not (whole and 1 <= min_members <= members):
        raise UsageError(f"min_members = {min_members!r} of {members} members; give 1 to {members}")


def tensors_of(fitted: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """Convert the fitted parameters of a rule to tensors.

    Raises:
        UsageError: a value is not an array of numbers.
    """
    try:
        return {
            name: value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float32)
            for name, value in (fitted or {}).items()
        }
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(
            f"fitted={fitted!r} are not all tensors ({error}); give the result of the rule's fit"
        ) from error


def task_of(task: Task | str | None, channels: int) -> Task:
    """Return the task: given, built from its name with numbered classes, or a default for the number of channels.

    Raises:
        UsageError: there is no such task, or it has another number of channels.
    """
    if not isinstance(task, Task):
        name = task or ("saliency" if channels == 1 else "segmentation")
        task = make_task({"name": name, "classes": [str(k) for k in range(channels)]})
    if task.out_channels != channels:
        raise UsageError(
            f"the members give {channels} channels, the task {task.name} has {task.out_channels}; build members with "
            f"out_channels={task.out_channels}, or pass the matching task"
        )
    return task
