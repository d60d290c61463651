"""The cascade of an ensemble of held-out predictions, where it can have one."""

from collections.abc import Callable, Mapping

from densemble.ensemble.cascade import Cascade
from densemble.ensemble.combination import Combination
from densemble.errors import DataError
from densemble.metrics import Objective
from densemble.selection.fit_cascade import fit_cascade, why_no_cascade
from densemble.selection.held_out_predictions import HeldOut

Report = Callable[[str], None]
MOST = 128
"""Images that policies are measured on as served, evenly spaced among those that were selected on."""


def cascade_of(
    held: HeldOut,
    combination: Combination,
    kept: HeldOut,
    objective: Objective,
    milliseconds: Mapping[str, float],
    report: Report = lambda line: None,
) -> Cascade | None:
    """The cascade of an ensemble: policies found on small maps, measured on maps as served.

    Args:
        held: its members' maps as served, of the images that it was fitted on.
        combination: of its members.
        kept: tempered small maps of the candidates on the same images.
        objective: that policies are scored by.
        milliseconds: of each member for one image, by name.
        report: called with one line of text: what the cascade keeps on images that it was not fitted on, or why there
            is none.
    """
    reason = why_no_cascade(len(held.names), combination.rule)
    if reason is not None:
        report(f"no cascade: {reason}")
        return None
    images = held.images
    some = [images[number * len(images) // MOST] for number in range(MOST)] if len(images) > MOST else images
    costs = [milliseconds[name] for name in held.names]
    try:
        found = fit_cascade(kept.of(held.names), combination, objective, costs, held.only(some))
    except DataError as error:
        report(f"no cascade: {error}")
        return None
    told = next((check for check in found.checks if check.asked == "keep" and check.share == 0.995), None)
    if told is not None and told.kept is not None:
        report(
            f"cascade: asked to keep 99.5 % of {found.metric}, policies fitted on one half of the images kept "
            f"{100 * told.kept:.1f} % on the other half at {100 * told.cost:.0f} % of the cost"
        )
    return found
