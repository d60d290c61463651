"""The cascade of a mixture of kept predictions, where it can have one."""

from collections.abc import Callable, Mapping

from densemble.assembly.mixture import Mixture
from densemble.assembly.served import Served
from densemble.data.folder import FolderData
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import DataError
from densemble.heldout.cascade import fit_cascade, why_no_cascade
from densemble.heldout.cascade_stages import Mixed
from densemble.tasks.objectives import Objective

Report = Callable[[str], None]
MOST = 128
"""Pictures that the networks are run on once more, evenly spaced among those that were chosen by."""


def cascade_of(
    ensemble: Ensemble,
    mixture: Mixture,
    objective: Objective,
    milliseconds: Mapping[str, float],
    data: FolderData,
    report: Report = lambda line: None,
) -> Cascade | None:
    """The cascade of an ensemble, fitted on the mixture's pictures and measured on the maps that the networks give.

    Args:
        ensemble: made of the mixture.
        mixture: rule, shares, temperatures and calibration.
        objective: that policies are scored by.
        milliseconds: of each member for one picture, by name.
        data: its data set.
        report: told what the cascade promises, or in one line why there is none.
    """
    reason = why_no_cascade(len(mixture.shares), mixture.rule)
    if reason is not None:
        report(f"no cascade: {reason}")
        return None
    pictures = mixture.held.pictures
    some = [pictures[number * len(pictures) // MOST] for number in range(MOST)] if len(pictures) > MOST else pictures
    mixed = Mixed(mixture.shares, mixture.rule, mixture.fitted, mixture.calibration)
    costs = [milliseconds[name] for name in mixture.held.names]
    try:
        found = fit_cascade(mixture.held, mixed, objective, costs, Served(ensemble, data, some))
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
