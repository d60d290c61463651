"""Majority vote."""

from functools import partial

from densemble.ensemble.combine.means import TransformedMean
from densemble.ensemble.uncertainty import decisions
from densemble.tasks import Distribution


def vote(distribution: Distribution) -> TransformedMean:
    """Share of the members' weight that decides for each class; shares of categorical classes sum to 1.

    A member decides for its most probable class (ties: the first), or for each Bernoulli channel of at least 0.5.
    """
    return TransformedMean(partial(decisions, distribution=distribution))
