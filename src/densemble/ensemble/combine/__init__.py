"""Combination rules: accumulators that get the activated maps of the members one by one and return one map.

Most rules keep running sums, so memory does not grow with the number of members; ``median`` and ``histogram`` store the
maps of all members. To add a rule, write a class and add a row to ``COMBINE``.
"""

from densemble.ensemble.combine.class_weights import ClassWeights, fit_class_weights
from densemble.ensemble.combine.inverse_variance import InverseVariance, fit_inverse_variance
from densemble.ensemble.combine.means import TrimmedMean, WeightedMean, logit_mean
from densemble.ensemble.combine.median import WeightedMedian
from densemble.ensemble.combine.ranks import HistogramMean, rank_mean
from densemble.ensemble.combine.rule import CombinationRule, Fitted, Images, Rule
from densemble.ensemble.combine.stacking import fit_stacking, make_stacking
from densemble.ensemble.combine.user_rule import user_row
from densemble.ensemble.combine.vote import vote
from densemble.errors import UsageError, did_you_mean
from densemble.tasks import Task
from densemble.user_code import is_user_function, user_object

__all__ = [
    "COMBINE",
    "CombinationRule",
    "Fitted",
    "Images",
    "Rule",
    "make_rule",
    "require_rule",
    "rule_row",
    "rules_for",
]


def _probabilities(task: Task) -> bool:
    return task.distribution != "none"


def _heat(task: Task) -> bool:
    return task.target_kind == "heat"


COMBINE: dict[str, CombinationRule] = {
    "mean": CombinationRule(lambda task, fitted: WeightedMean(), averages=True),
    "logits": CombinationRule(lambda task, fitted: logit_mean(task.distribution), _probabilities),
    "median": CombinationRule(lambda task, fitted: WeightedMedian(task.distribution)),
    "trimmed": CombinationRule(lambda task, fitted: TrimmedMean(task.distribution)),
    "vote": CombinationRule(
        lambda task, fitted: vote(task.distribution), lambda task: task.target_kind in ("labels", "masks")
    ),
    "class_weights": CombinationRule(ClassWeights, _probabilities, fit_class_weights),
    "inverse_variance": CombinationRule(
        lambda task, fitted: InverseVariance(fitted), lambda task: task.distribution == "none", fit_inverse_variance
    ),
    "rank": CombinationRule(lambda task, fitted: rank_mean(), _heat, whole_image=True, jumps=True),
    "histogram": CombinationRule(lambda task, fitted: HistogramMean(), _heat, whole_image=True),
    "stacking": CombinationRule(make_stacking, fit=fit_stacking, needs_all=True),
}
"""Combination rules by name."""


def rules_for(task: Task) -> list[str]:
    """Return the names of the rules that suit a task."""
    return [name for name, rule in COMBINE.items() if rule.suits(task)]


def rule_row(name: str) -> CombinationRule:
    """Return the row of a rule: that of ``COMBINE``, or that of a user-defined rule, which is imported.

    Raises:
        UsageError: the user-defined rule cannot be imported or used.
    """
    return user_row(user_object(name, "combination rule"), name) if is_user_function(name) else COMBINE[name]


def require_rule(name: str, task: Task) -> None:
    """Check that ``name`` is a rule and suits the task.

    Raises:
        UsageError: there is no such rule, or it does not suit the task; the message lists the rules that do.
    """
    suiting = rules_for(task)
    if name in suiting or (is_user_function(name) and rule_row(name).suits(task)):
        return
    listed = ", ".join(suiting)
    if name in COMBINE or is_user_function(name):
        raise UsageError(f"the combination rule '{name}' does not suit {task.name}; these do: {listed}")
    hint = did_you_mean(name, suiting)
    raise UsageError(f"no combination rule is named '{name}'; {hint}for {task.name} there are: {listed}")


def make_rule(name: str, task: Task, fitted: Fitted | None = None) -> Rule:
    """Create an empty accumulator of a rule.

    Args:
        name: row of ``COMBINE``, or ``package.module:NAME`` of a user-defined rule.
        task: meaning of the maps.
        fitted: result of the rule's ``fit``, for a rule that has one.

    Raises:
        UsageError: there is no such rule, it does not suit the task, or ``fitted`` is missing or has a wrong shape.
    """
    require_rule(name, task)
    return rule_row(name).make(task, fitted or {})
