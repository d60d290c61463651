"""Cascade of an ensemble of held-out predictions."""

import logging
from collections.abc import Mapping

from densemble.ensemble.cascade import Cascade
from densemble.ensemble.combination import Combination
from densemble.errors import DataError
from densemble.metrics import Objective
from densemble.selection.fit_cascade import fit_cascade, why_no_cascade
from densemble.selection.held_out_predictions import HeldOut

log = logging.getLogger(__name__)

MAX_IMAGES = 128
"""Number of images whose served maps policies are measured on, evenly spaced among the images of the selection."""


def cascade_of(
    held: HeldOut, combination: Combination, kept: HeldOut, objective: Objective, milliseconds: Mapping[str, float]
) -> Cascade | None:
    """Fit the cascade of an ensemble: select policies on small maps and measure them on served maps.

    Logs the share that the cascade keeps on images that it was not fitted on, or why there is no cascade.

    Args:
        held: served maps of the members, on the images that the ensemble was fitted on.
        combination: combination of the members.
        kept: tempered small maps of the candidates on the same images.
        objective: objective of the policies.
        milliseconds: time of each member for one image, by name.
    """
    reason = why_no_cascade(len(held.names), combination.rule)
    if reason is not None:
        log.info(f"no cascade: {reason}")
        return None
    images, count = held.images, min(len(held.images), MAX_IMAGES)
    spaced = [images[number * len(images) // count] for number in range(count)]
    costs = [milliseconds[name] for name in held.names]
    try:
        cascade = fit_cascade(kept.of(held.names), combination, objective, costs, held.only(spaced))
    except DataError as error:
        log.info(f"no cascade: {error}")
        return None
    check = next((check for check in cascade.checks if check.asked == "keep" and check.share == 0.995), None)
    if check is not None and check.kept is not None:
        log.info(
            f"cascade, used only by `predict --keep`: with --keep 0.995, it keeps {100 * check.kept:.1f} % of "
            f"{cascade.metric} at {100 * check.cost:.0f} % of the cost (fitted on one half of the images, measured on "
            "the other)"
        )
    return cascade
