"""Reports classes that name a side: a mirrored image shows the other side under the same name."""

import re
from collections.abc import Iterator, Sequence

from densemble.data.check.problems import Problem
from densemble.data.check.seen import CheckedData

_SIDES = (("left", "right"), ("links", "rechts"), ("linke", "rechte"), ("gauche", "droite"), ("l", "r"))
_ABBREVIATION = 1
_LISTED = 6


def judge_sides(checked: CheckedData) -> Iterator[Problem]:
    """A warning if mirrored images give some named classes the wrong name."""
    sided = sided_names(checked.data.classes or ())
    if sided:
        listed = ", ".join(f"'{name}'" for name in sided[:_LISTED]) + (", ..." if len(sided) > _LISTED else "")
        message = f"classes name sides ({listed}), and training mirrors images by default: left is learnt as right"
        remedy = "train without mirroring: --set training.augment=none"
        yield checked.problem("sides in names", message, remedy, "warning")


def sided_names(names: Sequence[str]) -> list[str]:
    """Names that contain a word for a side, such as ``left lung`` or ``eyeRight``; ``l_eye`` only beside ``r_eye``."""
    words = {name: _words(name) for name in names}
    all_names = {tuple(parts) for parts in words.values()} | {("".join(parts),) for parts in words.values()}
    return [name for name, parts in words.items() if _is_sided(parts, all_names)]


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+", name)]


def _is_sided(words: Sequence[str], all_names: set[tuple[str, ...]]) -> bool:
    for side, opposite in (*_SIDES, *(pair[::-1] for pair in _SIDES)):
        is_abbreviation = len(side) == _ABBREVIATION
        if not is_abbreviation and side in words:
            return True
        mirrored = tuple(opposite if word == side else word for word in words)
        compound = "".join(words)
        mirrored_compound = (compound.replace(side, opposite),)  # leftlung beside rightlung
        attached = not is_abbreviation and side in compound and mirrored_compound in all_names
        if (side in words and mirrored in all_names) or attached:
            return True
    return False
