"""Classes that mean a side: a mirrored image shows the other one under the same name."""

import re
from collections.abc import Iterator, Sequence

from densemble.data.check.problems import Problem
from densemble.data.check.subject import Checkable

_SIDES = (("left", "right"), ("links", "rechts"), ("linke", "rechte"), ("gauche", "droite"), ("l", "r"))
_SHORT = 1
_SHOWN = 6


def judge_sides(data: Checkable) -> Iterator[Problem]:
    """Warns of named classes that mirroring makes wrong."""
    sided = sided_names(data.classes or ())
    if sided:
        shown = ", ".join(f"'{name}'" for name in sided[:_SHOWN]) + (", ..." if len(sided) > _SHOWN else "")
        message = (
            f"classes name sides ({shown}), and training mirrors images unless it is told otherwise: left is then "
            "learnt as right"
        )
        remedy = "train without mirroring: --set training.augment=none"
        yield Problem("sides in names", str(data.path), message, remedy, "warning")


def sided_names(names: Sequence[str]) -> list[str]:
    """Names that hold a word for a side: ``left lung``, ``eyeRight``; ``l_eye`` only beside ``r_eye``."""
    words = {name: _words(name) for name in names}
    every = {tuple(found) for found in words.values()} | {("".join(found),) for found in words.values()}
    return [name for name, found in words.items() if _is_sided(found, every)]


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_]+|\d+", name)]


def _is_sided(words: Sequence[str], every: set[tuple[str, ...]]) -> bool:
    for one, other in (*_SIDES, *(pair[::-1] for pair in _SIDES)):
        if len(one) > _SHORT and one in words:
            return True
        exchanged = tuple(other if word == one else word for word in words)
        joined = "".join(words).replace(one, other)  # leftlung beside rightlung
        attached = len(one) > _SHORT and one in "".join(words) and (joined,) in every
        if (one in words and exchanged in every) or attached:
            return True
    return False
