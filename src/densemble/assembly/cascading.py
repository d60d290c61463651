"""The cascade of a mixture of kept predictions, where it can have one."""

from collections.abc import Callable, Mapping

from densemble.assembly.mixture import Mixture
from densemble.assembly.served import Served
from densemble.data.folder import FolderData
from densemble.ensemble.cascade import Cascade
from densemble.ensemble.ensemble import Ensemble
from densemble.errors import DataError
from densemble.heldout.cascade import fit_cascade, measured_again, why_no_cascade
from densemble.heldout.cascade_stages import Mixed
from densemble.tasks.objectives import Objective

Report = Callable[[str], None]
MOST = 128
"""Pictures that the networks are run on once more, evenly spaced among those that were chosen by."""


def cascade_of(
    mixture: Mixture, objective: Objective, milliseconds: Mapping[str, float], report: Report = lambda line: None
) -> Cascade | None:
    """The cascade of an ensemble, fitted on the mixture's pictures.

    Args:
        mixture: as the ensemble is: rule, shares, temperatures and calibration.
        objective: that policies are scored by.
        milliseconds: of each member for one picture, by name.
        report: told in one line why there is none.
    """
    reason = why_no_cascade(len(mixture.shares), mixture.rule)
    if reason is not None:
        report(f"no cascade: {reason}")
        return None
    try:
        costs = [milliseconds[name] for name in mixture.held.names]
        return fit_cascade(mixture.held, _mixed(mixture), objective, costs)
    except DataError as error:
        report(f"no cascade: {error}")
        return None


def as_served(
    ensemble: Ensemble, mixture: Mixture, objective: Objective, data: FolderData, report: Report = lambda line: None
) -> Cascade | None:
    """The ensemble's cascade, its policies measured on the maps that the networks give, at the targets' own size.

    Args:
        ensemble: with the cascade of :func:`cascade_of`, or with none.
        mixture: that it was made of.
        objective: that policies are scored by.
        data: its data set.
        report: told what the cascade promises.
    """
    if ensemble.cascade is None:
        return None
    pictures = mixture.held.pictures
    some = [pictures[number * len(pictures) // MOST] for number in range(MOST)] if len(pictures) > MOST else pictures
    found = measured_again(ensemble.cascade, Served(ensemble, data, some), _mixed(mixture), objective)
    told = next((check for check in found.checks if check.asked == "keep" and check.share == 0.995), None)
    if told is not None and told.kept is not None:
        report(
            f"cascade: asked to keep 99.5 % of {found.metric}, it kept {100 * told.kept:.1f} % of pictures that it had "
            f"not seen at {100 * told.cost:.0f} % of the cost"
        )
    return found


def _mixed(mixture: Mixture) -> Mixed:
    return Mixed(mixture.shares, mixture.rule, mixture.fitted, mixture.calibration)
