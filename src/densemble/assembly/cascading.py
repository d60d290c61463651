"""The cascade of a mixture of kept predictions, where it can have one."""

from collections.abc import Callable, Mapping

from densemble.assembly.mixture import Mixture
from densemble.ensemble.cascade import Cascade
from densemble.errors import DataError
from densemble.heldout.cascade import Mixed, fit_cascade, why_no_cascade
from densemble.tasks.objectives import Objective

Report = Callable[[str], None]


def cascade_of(
    mixture: Mixture, objective: Objective, milliseconds: Mapping[str, float], report: Report = lambda line: None
) -> Cascade | None:
    """The cascade of an ensemble, fitted on the mixture's pictures.

    Args:
        mixture: as the ensemble is: rule, shares, temperatures and calibration.
        objective: that policies are scored by.
        milliseconds: of each member for one picture, by name.
        report: told what the cascade promises, or in one line why there is none.
    """
    reason = why_no_cascade(len(mixture.shares), mixture.rule)
    if reason is not None:
        report(f"no cascade: {reason}")
        return None
    mixed = Mixed(mixture.shares, mixture.rule, mixture.fitted, mixture.calibration)
    try:
        found = fit_cascade(mixture.held, mixed, objective, [milliseconds[name] for name in mixture.held.names])
    except DataError as error:
        report(f"no cascade: {error}")
        return None
    told = next((check for check in found.checks if check.asked == "keep" and check.share == 0.995), None)
    if told is not None and told.kept is not None:
        report(
            f"cascade: asked to keep 99.5 % of {found.metric}, it kept {100 * told.kept:.1f} % of pictures that it had "
            f"not seen at {100 * told.cost:.0f} % of the cost"
        )
    return found
