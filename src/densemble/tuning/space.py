"""Search space: the parameters, their values, and how values change the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densemble.config import RunConfig, make_config
from densemble.engines.plan import backbone_share, is_pretrained, member_cut, member_limits, sizes
from densemble.errors import UsageError, did_you_mean
from densemble.nets.backbones import resolve
from densemble.nets.cut import Cut
from densemble.nets.cuts import cuts
from densemble.nets.dense import default_head
from densemble.nets.heads import HEADS
from densemble.shapes import Size, format_size

NAMES = ("cut", "head", "learning_rate", "backbone_share", "augment")
AUGMENTATIONS = ("none", "light", "strong")
STRIDES = (3.6, 35.0)
"""Strides from 4 to 32, with a margin for image sizes that are no multiple of the stride."""
CUTS_PER_SIZE = 3
"""At most this many cuts with one map size; a search of about 20 trials cannot distinguish 50 cuts."""


@dataclass(frozen=True)
class LogRange:
    """All numbers from ``low`` to ``high``, on a logarithmic scale."""

    low: float
    high: float


Space = dict[str, tuple[str, ...] | LogRange]
"""Values of each parameter, by name."""

LEARNING_RATES = LogRange(1e-4, 1e-2)
BACKBONE_SHARES = LogRange(0.02, 1.0)


def make_space(config: RunConfig, names: Sequence[str] | None = None) -> Space:
    """Return the search space of a run's first member.

    Args:
        config: configuration; settings that are not searched keep their values.
        names: some of ``NAMES``; default all that apply. ``backbone_share`` needs pretrained weights that are trained;
            ``augment`` does not apply to cached features.

    Raises:
        UsageError: an unknown name, or one that contradicts the settings.
        CutError: the backbone has no feature map.
    """
    requested = _applicable(config) if names is None else list(names)
    unknown = [name for name in requested if name not in NAMES]
    if unknown or not requested:
        hint = did_you_mean(unknown[0], NAMES) if unknown else ""
        raise UsageError(f"cannot search '{', '.join(unknown)}'; {hint}there are: {', '.join(NAMES)}")
    if "backbone_share" in requested and "learning_rate" not in requested and _fixed_rate(config) is None:
        raise UsageError("backbone_share needs a fixed learning_rate; search learning_rate too, or set it")
    space: Space = {
        "cut": tuple(cut.node for cut in tried_cuts(config)) if "cut" in requested else (),
        "head": tuple(dict.fromkeys([_initial_head(config), *(name for name, head in HEADS.items() if head.tuned)])),
        "learning_rate": LEARNING_RATES,
        "backbone_share": BACKBONE_SHARES,
        "augment": AUGMENTATIONS,
    }
    return {name: space[name] for name in NAMES if name in requested}


def _applicable(config: RunConfig) -> list[str]:
    """Return the parameters that apply under these settings."""
    training = config.members[0].training(config.training)
    fixed = set()
    if not is_pretrained(config.members[0]) or training.freeze_epochs >= training.epochs:
        fixed.add("backbone_share")
    if training.cache_features:
        fixed.add("augment")
    return [name for name in NAMES if name not in fixed]


def _initial_head(config: RunConfig) -> str:
    member = config.members[0]
    return member.head or default_head(member.backbone)


def _fixed_rate(config: RunConfig) -> float | None:
    rate = config.members[0].training(config.training).learning_rate
    return None if rate == "auto" else rate


def tried_cuts(config: RunConfig) -> list[Cut]:
    """Return cuts with a stride from 4 to 32 within the member's limits, at most three per map size.

    Raises:
        UsageError: there is no such cut.
    """
    member = config.members[0]
    backbone, _ = resolve(member.backbone, member.weights)
    size, limits = sizes(config, member).image, member_limits(member)
    lowest, highest = STRIDES
    by_node = {
        cut.node: cut
        for cut in cuts(backbone, size)
        if lowest <= min(cut.stride) and max(cut.stride) <= highest and limits.permits(cut)
    }
    if not by_node:
        raise UsageError(
            f"{backbone} at {format_size(size)} has no cut with a stride from 4 to 32 within the settings; "
            "remove cut from --space, or use a larger input_size"
        )
    by_size: dict[Size, list[Cut]] = {}
    for cut in by_node.values():
        by_size.setdefault(cut.size, []).append(cut)
    kept = {cut.node for same_size in by_size.values() for cut in _subsample(same_size)}
    return [cut for cut in by_node.values() if cut.node in kept]


def _subsample(cuts: list[Cut]) -> list[Cut]:
    """Return up to ``CUTS_PER_SIZE`` evenly spaced cuts, including the deepest."""
    count = min(CUTS_PER_SIZE, len(cuts))
    return [cuts[len(cuts) * (index + 1) // count - 1] for index in range(count)]


def initial_values(config: RunConfig, space: Space) -> dict[str, Any]:
    """Return the values of the settings that lie in the space; the first trial uses them."""
    member = config.members[0]
    values = {
        "cut": member_cut(config, member).node,
        "head": _initial_head(config),
        "learning_rate": _fixed_rate(config),
        "backbone_share": backbone_share(config, member),
        "augment": member.training(config.training).augment,
    }
    return {name: values[name] for name, parameter in space.items() if _contains(parameter, values[name])}


def _contains(parameter: tuple[str, ...] | LogRange, value: Any) -> bool:
    if isinstance(parameter, LogRange):
        return value is not None and parameter.low <= value <= parameter.high
    return value in parameter


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with the values of a trial in its member.

    Raises:
        ConfigError: the values contradict other settings.
    """
    changes = {name: value for name, value in values.items() if name != "backbone_share"}
    if "backbone_share" in values:
        changes["backbone_learning_rate"] = changes.get("learning_rate", _fixed_rate(config)) * values["backbone_share"]
    settings = config.model_dump(mode="json")
    return make_config({**settings, "members": [{**settings["members"][0], **changes}]}, "the values of a trial")
