"""Parser of sums of losses, written as ``cross_entropy+0.5*dice``."""

import math

from densemble.errors import UsageError, unknown_name
from densemble.user_code import is_user_function

LossTerms = tuple[tuple[float, str], ...]
"""Weight and name of each loss in a sum."""


def parse_loss(text: str, known: tuple[str, ...], task: str) -> LossTerms:
    """Parse ``"cross_entropy+0.5*dice"`` to ``((1.0, "cross_entropy"), (0.5, "dice"))``.

    Args:
        text: names joined by ``+``, each with an optional weight before ``*``; default weight 1. A name may also be
            ``package.module:NAME`` of a loss of the user; it is not imported here.
        known: available names.
        task: name of the task, used in messages.

    Raises:
        UsageError: a name is unknown, or a weight is not a positive number.
    """
    return tuple(_parse_term(term.strip(), known, task) for term in text.split("+"))


def loss_names(text: str) -> list[str]:
    """Return the names in a sum of losses, without checking them."""
    return [term.rpartition("*")[2].strip() for term in text.split("+")]


def _parse_term(term: str, known: tuple[str, ...], task: str) -> tuple[float, str]:
    number, times, name = term.rpartition("*")
    name = name.strip()
    if name not in known and not is_user_function(name):
        several = f"join several as {known[0]}+0.5*{known[-1]}, or name a function: package.module:NAME"
        raise UsageError(f"{unknown_name(f'loss of {task}', name, known)}; {several}")
    return (_parse_weight(number, term) if times else 1.0), name


def _parse_weight(number: str, term: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UsageError(f"'{number.strip()}' in the loss '{term}' is not a positive number; write it as 0.5*NAME")
    return weight
