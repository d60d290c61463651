"""Recipe: all steps from held-out predictions to an ensemble, so that cross-fitting can repeat them in every fold."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from densemble.ensemble.combination import Combination
from densemble.metrics import Objective
from densemble.selection.baseline_filter import BaselineFilter
from densemble.selection.calibration import best_calibration, fit_calibration, member_temperatures
from densemble.selection.candidate_maps import Evidence
from densemble.selection.choose import best_rule, fit_rule, mean_of, select_weights
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.options import AUTOMATIC, Options
from densemble.selection.strategies import SELECT
from densemble.selection.tempered_copies import written_tempered

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """An ensemble that was fitted by a recipe.

    Attributes:
        weights: one weight per candidate, 0 for candidates that are not members.
        held: served maps of the members on all images.
        combination: combination of the members.
    """

    weights: tuple[float, ...]
    held: HeldOut
    combination: Combination


@dataclass(frozen=True)
class Recipe:
    """Temperatures, baseline filter, selection, combination rule and calibration, in this order.

    Attributes:
        evidence: predictions of all candidates.
        options: options of selection, combination and calibration.
        objective: objective of the selection.
        milliseconds: time of each candidate by name.
        baselines: filter of the candidates that a strategy may select.
    """

    evidence: Evidence
    options: Options
    objective: Objective
    milliseconds: dict[str, float]
    baselines: BaselineFilter

    def best_member(self) -> str:
        """Return the candidate with the best score on all images, as it was trained."""
        kept = self.evidence.kept
        return kept.names[SELECT["best"](kept, self.objective).weights.index(1.0)]

    @contextmanager
    def on(self, images: Sequence[int], log_level: int = logging.DEBUG) -> Iterator["Fitting"]:
        """Start a fit on some of the images; no other image is used.

        Args:
            images: indices of the images.
            log_level: level of the messages about each step.
        """
        evidence = self.evidence.only(images)
        sampled = member_temperatures(evidence.sampled, self.options.calibrate, log_level)
        with written_tempered(evidence.kept.tempered(sampled.temperatures), evidence.scratch) as kept:
            yield Fitting(self, kept, sampled, self.baselines.eligible(images), log_level)


@dataclass(frozen=True)
class Fitting:
    """Candidates with temperatures that were fitted on some images, to fit ensembles on the same images.

    Attributes:
        recipe: the recipe.
        kept: tempered small maps of these images.
        sampled: tempered sampled pixels of these images.
        eligible: candidates that beat the baselines.
        log_level: level of the messages about each step.
    """

    recipe: Recipe
    kept: HeldOut
    sampled: HeldOut
    eligible: list[str]
    log_level: int

    def ensemble(self, **changes: Any) -> Fitted:
        """Select, combine and calibrate.

        Args:
            changes: fields of the options to replace, for example ``select="best"``.
        """
        recipe, level = self.recipe, self.log_level
        options = replace(recipe.options, **changes)
        weights = select_weights(self.kept, options, self.eligible, recipe.objective, recipe.milliseconds)
        held, combination = mean_of(self.sampled, weights)
        selected = [f"{name} {weight:.2f}" for name, weight in combination.weights.items()]
        log.log(level, f"selected: {', '.join(selected)}")
        rule = options.combine
        if rule == AUTOMATIC:
            rule = self._best_rule(held, combination) if len(held.names) > 1 else "mean"
            log.log(level, f"combined by: {rule}")
        combination = fit_rule(held, combination, rule)
        method = options.calibrate if options.calibrate != AUTOMATIC else best_calibration(held, combination)
        combination = fit_calibration(held, combination, method, level)
        served = recipe.evidence.served.tempered(self.sampled.temperatures).of(held.names)
        return Fitted(tuple(weights), served, combination)

    def _best_rule(self, held: HeldOut, combination: Combination) -> str:
        """Select the rule on these images only: on the sampled pixels, or on small maps if metrics need whole maps."""
        measured = None if self.recipe.evidence.pixelwise else self.kept
        return best_rule(held, combination, self.recipe.objective, self.recipe.options.seed, measured)
