"""Checks of what a user hands to an ensemble: members and their names, a number for each of them, its parts."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densemble.ensemble.calibrate import Calibration
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.guarantee import Guarantee
from densemble.ensemble.member_views import Viewed
from densemble.errors import UsageError
from densemble.nets.dense import DenseModel
from densemble.nets.network_arguments import unwrapped
from densemble.tasks import Task, make_task

Member = DenseModel | Viewed

_PARTS: dict[str, tuple[Any, str]] = {
    "combine": (str, "a row of COMBINE, such as 'mean'"),
    "calibration": (Calibration | None, "what densemble.ensemble.calibrate makes, or None"),
    "guarantee": (Guarantee | None, "what densemble.ensemble.guarantee makes, or None"),
    "cascade": (Cascade | None, "a Cascade, or None"),
    "metrics": (Mapping | None, "a dict"),
    "reading": (Mapping | None, "a dict"),
    "fitted": (Mapping | None, "a dict of tensors"),
}


def require_parts(**parts: Any) -> None:
    """Checks the types of arguments of an ensemble.

    Raises:
        UsageError: another type.
    """
    for name, value in parts.items():
        kind, wanted = _PARTS[name]
        if not isinstance(value, kind):
            raise UsageError(f"{name}={value!r} cannot be used; give {wanted}")


def members_of(members: Any) -> dict[str, Member]:
    """Members by name, from a dict, a row, or a single one.

    Raises:
        UsageError: none, something else, or names that a module cannot have.
    """
    members = unwrapped(members)
    if isinstance(members, DenseModel | Viewed):
        members = [members]
    if isinstance(members, Mapping | nn.ModuleDict):
        named = dict(members.items())
    elif isinstance(members, Iterable) and not isinstance(members, str | Mapping) and not _is_ensemble(members):
        named = _numbered([unwrapped(member) for member in members])
    else:
        named = {"members": members}
    named = {name: unwrapped(member) for name, member in named.items()}
    for name, member in named.items():
        if not isinstance(member, DenseModel | Viewed):
            raise UsageError(f"member {name!r} is {_what(member)}")
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise UsageError(f"no member can be named {name!r}: {_fitting_name(name)}")
    if not named:
        raise UsageError("an ensemble needs at least one member")
    return named


def _is_ensemble(value: Any) -> bool:
    return isinstance(getattr(value, "members", None), nn.ModuleDict)


def _what(value: Any) -> str:
    if _is_ensemble(value):
        return "an Ensemble; give its members instead: {**dict(ensemble.named_members()), ...}, weights={name: weight}"
    if isinstance(value, str):
        return f"a name; make a network of it: DenseModel({value!r}, out_channels=...)"
    if isinstance(value, nn.Module):
        kind = type(value).__name__
        return f"a {kind}, no dense model; make one of it: DenseModel(module, out_channels=...) cuts it and adds a head"
    return f"of type {type(value).__name__}; give dense models, by name or in a row"


def _fitting_name(name: Any) -> str:
    if not isinstance(name, str):
        return f"give text, such as '{name}'"
    if not name:
        return "give some text"
    if "." in name:
        return f"a dot separates modules in the names of tensors; write '{name.replace('.', '_')}'"
    return f"modules have an attribute of that name; write '{name}_'"


def _numbered(members: Iterable[Any]) -> dict[Any, Any]:
    """Members in a row, named by their backbones; what is no member by its place."""
    named: dict[Any, Any] = {}
    for number, member in enumerate(members):
        plain: Any = number
        if isinstance(member, DenseModel | Viewed):
            plain = member.spec.backbone.removeprefix("timm/").replace("/", "-").replace(".", "_")
        named[plain if plain not in named else f"{plain}-{number}"] = member
    return named


def number_each(what: str, numbers: Any, names: Iterable[str], default: float | None = None) -> dict[str, float]:
    """A number for each member.

    Args:
        what: they are, used in messages.
        numbers: by name, or in the members' order; ``None``: ``default`` or 1.
        names: of the members.
        default: of members that are not named; ``None``: all are.

    Raises:
        UsageError: another number of them, other names, or no numbers.
    """
    names = list(names)
    if numbers is None:
        return dict.fromkeys(names, 1.0 if default is None else default)
    if isinstance(numbers, Mapping):
        unknown = [name for name in numbers if name not in names]
        missing = [name for name in names if name not in numbers and default is None]
        if unknown or missing:
            wrong = f"no member is named {unknown[0]!r}" if unknown else f"there is none for member '{missing[0]}'"
            raise UsageError(f"{what}: {wrong}; the members are {', '.join(names)}")
        given = {name: numbers.get(name, default) for name in names}
    elif isinstance(numbers, Iterable) and not isinstance(numbers, str):
        row = numbers.tolist() if isinstance(numbers, Tensor) else list(numbers)
        if len(row) != len(names):
            raise UsageError(f"{len(row)} {what} for {len(names)} members; give one each")
        given = dict(zip(names, row, strict=True))
    else:
        raise UsageError(f"{what}={numbers!r} must be one number for each member, in a row or by name")
    try:
        return {name: float(value) for name, value in given.items()}
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}={numbers!r} are not all numbers; give one for each member") from error


def kept_weights(weights: Any, names: Iterable[str]) -> dict[str, float]:
    """Weights that sum to 1, of members that have one above 0.

    Raises:
        UsageError: negative, not finite, all 0, or not one for each.
    """
    given = number_each("weights", weights, names)
    if any(not math.isfinite(weight) or weight < 0 for weight in given.values()) or not sum(given.values()):
        raise UsageError(f"weights {list(given.values())} must be >= 0, finite and not all 0")
    total = sum(given.values())
    # Weights that were divided already stay the same to the bit: of an ensemble that is saved, loaded or rewritten.
    total = 1.0 if math.isclose(total, 1, rel_tol=1e-12) else total
    return {name: weight / total for name, weight in given.items() if weight > 0}


def positive_temperatures(temperatures: Any, names: Iterable[str]) -> dict[str, float]:
    """A temperature for each member, default 1.

    Raises:
        UsageError: not positive, not finite, or of a member that there is not.
    """
    given = number_each("temperatures", temperatures, names, 1.0)
    if any(not math.isfinite(value) or value <= 0 for value in given.values()):
        raise UsageError(f"temperatures {given} must be positive and finite")
    return given


def require_least(min_members: Any, members: int) -> None:
    """Checks the smallest number of members.

    Raises:
        UsageError: it is no whole number from 1 to ``members``.
    """
    whole = isinstance(min_members, int) and not isinstance(min_members, bool)
    if min_members is not None and not (whole and 1 <= min_members <= members):
        raise UsageError(f"min_members = {min_members!r} of {members} members; give 1 to {members}")


def tensors_of(fitted: Mapping[str, Any] | None) -> dict[str, Tensor]:
    """What a rule learnt, as tensors.

    Raises:
        UsageError: something that is no array of numbers.
    """
    try:
        return {
            name: value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float32)
            for name, value in (fitted or {}).items()
        }
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"fitted={fitted!r} are not all tensors ({error}); give what the rule's fit gave") from error


def task_of(task: Task | str | None, channels: int) -> Task:
    """The task; by its name with classes that are named by their numbers; a likely one where none is given.

    Raises:
        UsageError: there is no such task, or it has another number of channels.
    """
    if not isinstance(task, Task):
        name = task or ("saliency" if channels == 1 else "segmentation")
        task = make_task({"name": name, "classes": [str(k) for k in range(channels)]})
    if task.out_channels != channels:
        raise UsageError(
            f"the members give {channels} channels, the task {task.name} has {task.out_channels}; make members with "
            f"out_channels={task.out_channels}, or name the right task"
        )
    return task
