"""The space that is searched: what may vary, over which values, and what a choice makes of the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from densemble.config import MemberConfig, RunConfig, make_config
from densemble.engines.plan import BACKBONE_SHARE, member_cut
from densemble.errors import UsageError
from densemble.nets.automatic_cut import Limits
from densemble.nets.backbones import OWN, resolve
from densemble.nets.cut import Cut
from densemble.nets.cuts import cuts
from densemble.nets.dense import default_head
from densemble.nets.heads import HEADS
from densemble.shapes import Size, format_size

NAMES = ("cut", "head", "learning_rate", "backbone_share", "augment")
AUGMENTATIONS = ("none", "light", "strong")
STRIDES = (3.6, 35.0)
"""From 4 to 32, and what sizes that a stride does not divide make of these."""
CUTS_PER_SIZE = 3
"""A search of some twenty trials cannot tell fifty cuts apart."""


@dataclass(frozen=True)
class LogRange:
    """All numbers from ``low`` to ``high``, on a logarithmic scale."""

    low: float
    high: float


Space = dict[str, tuple[str, ...] | LogRange]
"""What may be chosen, by name."""

LEARNING_RATES = LogRange(1e-4, 1e-2)
BACKBONE_SHARES = LogRange(0.02, 1.0)


def make_space(config: RunConfig, names: Sequence[str] | None = None) -> Space:
    """The space of a run's first member.

    Args:
        config: what is not searched keeps its setting.
        names: some of ``NAMES``; default all that mean something: no backbone's own rate where nothing in it is
            pretrained or it does not learn, no augmentation of kept features.

    Raises:
        UsageError: a name that is not searched, or one that contradicts the settings.
        CutError: the backbone has no map.
    """
    wanted = _variable(config) if names is None else list(names)
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        raise UsageError(f"'{', '.join(unknown)}' is nothing to search; there are: {', '.join(NAMES)}")
    if "backbone_share" in wanted and "learning_rate" not in wanted and _rate(config) is None:
        raise UsageError("backbone_share is a share of a known learning_rate; search learning_rate too, or set it")
    space: Space = {
        "cut": tuple(cut.node for cut in tried_cuts(config)) if "cut" in wanted else (),
        "head": tuple(dict.fromkeys([_own_head(config), *(name for name, head in HEADS.items() if head.tuned)])),
        "learning_rate": LEARNING_RATES,
        "backbone_share": BACKBONE_SHARES,
        "augment": AUGMENTATIONS,
    }
    return {name: space[name] for name in NAMES if name in wanted}


def _variable(config: RunConfig) -> list[str]:
    """The names that mean something under these settings."""
    training = config.members[0].training(config.training)
    fixed = set()
    if not _is_pretrained(config.members[0]) or training.freeze_epochs >= training.epochs:
        fixed.add("backbone_share")
    if training.cache_features:
        fixed.add("augment")
    return [name for name in NAMES if name not in fixed]


def _is_pretrained(member: MemberConfig) -> bool:
    return member.weights is not None and member.backbone not in OWN


def _own_head(config: RunConfig) -> str:
    member = config.members[0]
    return member.head or default_head(member.backbone)


def _rate(config: RunConfig) -> float | None:
    rate = config.members[0].training(config.training).learning_rate
    return None if rate == "auto" else rate


def tried_cuts(config: RunConfig) -> list[Cut]:
    """Separating cuts with a stride from 4 to 32 that keep to the member's limits: of each size at most three.

    Raises:
        UsageError: there is none.
    """
    member = config.members[0]
    backbone, _ = resolve(member.backbone, member.weights)
    size = member.input_size or config.input_size
    asked = Limits(member.min_size, member.max_stride, member.max_macs)
    by_node = {cut.node: cut for cut in cuts(backbone, size) if _has_tried_stride(cut) and asked.permits(cut)}
    if not by_node:
        raise UsageError(
            f"{backbone} at {format_size(size)} has no cut with a stride from 4 to 32 within the settings; "
            "leave cut out of --space, or take a larger input_size"
        )
    by_size: dict[Size, list[Cut]] = {}
    for cut in by_node.values():
        by_size.setdefault(cut.size, []).append(cut)
    kept = {cut.node for same in by_size.values() for cut in _spread(same)}
    return [cut for cut in by_node.values() if cut.node in kept]


def _has_tried_stride(cut: Cut) -> bool:
    return STRIDES[0] <= min(cut.stride) and max(cut.stride) <= STRIDES[1]


def _spread(cuts: list[Cut]) -> list[Cut]:
    """Some cuts at even distances, the deepest among them."""
    count = min(CUTS_PER_SIZE, len(cuts))
    return [cuts[len(cuts) * (number + 1) // count - 1] for number in range(count)]


def own_values(config: RunConfig, space: Space) -> dict[str, Any]:
    """What the settings say by themselves, as far as that lies in the space: where a search begins."""
    member = config.members[0]
    training = member.training(config.training)
    rate = _rate(config)
    share = BACKBONE_SHARE if _is_pretrained(member) else 1.0
    if rate is not None and training.backbone_learning_rate is not None:
        share = training.backbone_learning_rate / rate
    values = {
        "cut": member_cut(config, member).node,
        "head": _own_head(config),
        "learning_rate": rate,
        "backbone_share": share,
        "augment": training.augment,
    }
    return {name: values[name] for name, parameter in space.items() if _holds(parameter, values[name])}


def _holds(parameter: tuple[str, ...] | LogRange, value: Any) -> bool:
    if isinstance(parameter, LogRange):
        return value is not None and parameter.low <= value <= parameter.high
    return value in parameter


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The settings with the chosen values in their member.

    Raises:
        ConfigError: values that the other settings exclude.
    """
    chosen = {name: value for name, value in values.items() if name != "backbone_share"}
    if "backbone_share" in values:
        chosen["backbone_learning_rate"] = chosen.get("learning_rate", _rate(config)) * values["backbone_share"]
    plain = config.model_dump(mode="json")
    return make_config({**plain, "members": [{**plain["members"][0], **chosen}]}, "the values of a trial")
