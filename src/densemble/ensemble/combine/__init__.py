"""Combination rules: members' activated maps go in one after the other, one map comes out.

Most rules keep running sums, so that memory does not grow with the number of members; ``median`` and ``histogram`` have
to keep them all. A new rule is a class and a row of ``COMBINE``.
"""

import difflib

from densemble.ensemble.combine.class_weights import ClassWeights, fit_class_weights
from densemble.ensemble.combine.inverse_variance import InverseVariance, fit_inverse_variance
from densemble.ensemble.combine.means import LogitMean, TrimmedMean, WeightedMean
from densemble.ensemble.combine.median import WeightedMedian
from densemble.ensemble.combine.ranks import HistogramMean, RankMean
from densemble.ensemble.combine.rule import CombinationRule, Fitted, Images, Rule
from densemble.ensemble.combine.stacking import fit_stacking, make_stacking
from densemble.ensemble.combine.vote import Vote
from densemble.errors import UsageError
from densemble.tasks import Task

__all__ = [
    "COMBINE",
    "CombinationRule",
    "Fitted",
    "Images",
    "Rule",
    "make_rule",
    "require_rule",
    "rules_for",
]


def _probabilities(task: Task) -> bool:
    return task.distribution != "none"


def _values(task: Task) -> bool:
    return task.distribution == "none"


def _classes(task: Task) -> bool:
    return task.target_kind in ("labels", "masks")


def _heat(task: Task) -> bool:
    return task.target_kind == "heat"


COMBINE: dict[str, CombinationRule] = {
    "mean": CombinationRule(lambda task, fitted: WeightedMean(), averages=True),
    "logits": CombinationRule(lambda task, fitted: LogitMean(task.distribution), _probabilities),
    "median": CombinationRule(lambda task, fitted: WeightedMedian(task.distribution)),
    "trimmed": CombinationRule(lambda task, fitted: TrimmedMean(task.distribution)),
    "vote": CombinationRule(lambda task, fitted: Vote(task.distribution), _classes),
    "class_weights": CombinationRule(ClassWeights, _probabilities, fit_class_weights),
    "inverse_variance": CombinationRule(lambda task, fitted: InverseVariance(fitted), _values, fit_inverse_variance),
    "rank": CombinationRule(lambda task, fitted: RankMean(), _heat, whole_image=True),
    "histogram": CombinationRule(lambda task, fitted: HistogramMean(), _heat, whole_image=True),
    "stacking": CombinationRule(make_stacking, fit=fit_stacking, needs_all=True),
}
"""Rule by name."""


def rules_for(task: Task) -> list[str]:
    """Names of the rules that suit a task."""
    return [name for name, rule in COMBINE.items() if rule.suits(task)]


def require_rule(name: str, task: Task) -> None:
    """Checks that ``name`` is a rule and suits the task.

    Raises:
        UsageError: it is not, or does not; those that do get listed, the nearest first.
    """
    suiting = rules_for(task)
    if name in suiting:
        return
    near = difflib.get_close_matches(name, suiting, n=len(suiting), cutoff=0.5)
    listed = ", ".join([*near, *(rule for rule in suiting if rule not in near)])
    if name in COMBINE:
        raise UsageError(f"the combination rule '{name}' does not suit {task.name}; these do: {listed}")
    raise UsageError(f"no combination rule is named '{name}'; for {task.name} there are: {listed}")


def make_rule(name: str, task: Task, fitted: Fitted | None = None) -> Rule:
    """A fresh accumulator of a rule.

    Args:
        name: row of ``COMBINE``.
        task: what the maps mean.
        fitted: what the rule's ``fit`` gave, for a rule that has one.

    Raises:
        UsageError: no such rule, one that does not suit the task, or ``fitted`` is absent or does not fit.
    """
    require_rule(name, task)
    return COMBINE[name].make(task, fitted or {})
