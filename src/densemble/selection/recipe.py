"""Recipe: every step from held-out predictions to an ensemble, so that all of it can be repeated inside a fold."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from densemble.ensemble.combination import Combination
from densemble.metrics import Objective
from densemble.selection.baseline_filter import BaselineFilter
from densemble.selection.calibration import best_calibration, fit_calibration, member_temperatures
from densemble.selection.candidate_maps import Evidence
from densemble.selection.choose import RuleScore, choose_rule, fit_rule, make_choice, mean_of, score_rules
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.options import AUTOMATIC, Options
from densemble.selection.tempered_copies import written_tempered

Report = Callable[[str], None]


def _silent(line: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Fitted:
    """An ensemble of kept candidates and how it was made.

    Attributes:
        weights: one per candidate, 0 for those that are not in it.
        held: the members' maps as served, of all images.
        combination: of the members.
        calibrated_by: way of calibrating that was taken.
        rules: what each rule scored on the images that were fitted on, where rules were compared.
    """

    weights: tuple[float, ...]
    held: HeldOut
    combination: Combination
    calibrated_by: str
    rules: dict[str, RuleScore]


@dataclass(frozen=True)
class Recipe:
    """Temperatures, baseline filter, selection, combination rule and calibration, in this order.

    Attributes:
        evidence: of all candidates.
        options: how members are selected, combined and calibrated.
        objective: metric that is selected by.
        milliseconds: of each candidate, by name.
        baselines: candidates that do not beat them are not selected.
    """

    evidence: Evidence
    options: Options
    objective: Objective
    milliseconds: dict[str, float]
    baselines: BaselineFilter

    @contextmanager
    def on(self, images: Sequence[int], report: Report = _silent) -> Iterator["Fitting"]:
        """The recipe on some of the images: nothing of any other image is used."""
        evidence = self.evidence.only(images)
        sampled = member_temperatures(evidence.sampled, self.options.calibrate, report)
        with written_tempered(evidence.kept.tempered(sampled.temperatures), evidence.scratch) as kept:
            yield Fitting(self, kept, sampled, self.baselines.able(images), report)


@dataclass(frozen=True)
class Fitting:
    """Candidates with temperatures fitted on some images, from which ensembles are made by the same images.

    Attributes:
        recipe: that is followed.
        kept: tempered small maps of these images.
        sampled: tempered sampled pixels of these images.
        able: candidates that beat the baselines.
        report: called with one line of text at every step.
    """

    recipe: Recipe
    kept: HeldOut
    sampled: HeldOut
    able: list[str]
    report: Report

    def ensemble(self, **changes: Any) -> Fitted:
        """Selects, combines and calibrates.

        Args:
            changes: fields of the options that are to be different, for instance ``select="best"``.
        """
        recipe = self.recipe
        options = replace(recipe.options, **changes)
        weights = make_choice(options, self.able, recipe.objective, recipe.milliseconds)(self.kept)
        chosen = [f"{name} {weight:.2f}" for name, weight in zip(self.kept.names, weights, strict=True) if weight > 0]
        self.report(f"selected: {', '.join(chosen)}")
        held, combination = mean_of(self.sampled, weights)
        compared = len(held.names) > 1 and options.combine == AUTOMATIC
        rules = self._compare(held, combination) if compared else {}
        combination = fit_rule(held, combination, choose_rule(options, rules, recipe.objective))
        if options.combine == AUTOMATIC:
            self.report(f"combined by: {combination.rule}")
        way = options.calibrate if options.calibrate != AUTOMATIC else best_calibration(held, combination)
        combination = fit_calibration(held, combination, way, self.report)
        served = recipe.evidence.served.tempered(self.sampled.temperatures).of(held.names)
        return Fitted(tuple(weights), served, combination, way, rules)

    def _compare(self, held: HeldOut, combination: Combination) -> dict[str, RuleScore]:
        """Rules on these images only; those that learn are scored where they did not."""
        measured = None if self.recipe.evidence.pixelwise else self.kept
        return score_rules(held, combination, self.recipe.objective, self.recipe.options.seed, measured)
