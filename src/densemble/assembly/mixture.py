"""Mixture: selected candidates, their weights, rule and calibration, over held-out predictions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from densemble.ensemble.calibrate import Calibration, VarianceScaling
from densemble.ensemble.combine import COMBINE, Fitted, make_rule
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.resize import resize_maps
from densemble.ensemble.uncertainty import RunningUncertainty, entropy
from densemble.heldout.predictions import HeldOut
from densemble.shapes import Size

Pictures = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Mixture:
    """An ensemble of held-out predictions.

    Attributes:
        held: the selected candidates only, tempered.
        shares: one positive weight each.
        rule: row of ``COMBINE``.
        fitted: what the rule learned.
        calibration: of the ensemble; ``None``: none.
    """

    held: HeldOut
    shares: tuple[float, ...]
    rule: str = "mean"
    fitted: Fitted | None = None
    calibration: Calibration | None = None

    def only(self, pictures: Sequence[int]) -> "Mixture":
        """The same over some of the pictures."""
        return replace(self, held=self.held.only(pictures))

    def over(self, held: HeldOut) -> "Mixture":
        """The same ensemble over other maps or images of its candidates, with the temperatures of ``held``."""
        return replace(self, held=held.of(self.held.names))

    def fit_rule(self, name: str, pictures: Sequence[int] | None = None) -> "Mixture":
        """With another rule, fitted on some of the pictures if it is one that learns; default on all."""
        fit = COMBINE[name].fit
        if fit is None:
            return replace(self, rule=name, fitted=None)
        held = self.held if pictures is None else self.held.only(pictures)
        fitted = fit(lambda: ((maps, target) for maps, (target, _) in held), self.shares, self.held.task)
        return replace(self, rule=name, fitted=fitted)

    def join(self, maps: Tensor, without: int | None = None) -> Tensor:
        """Maps of the chosen ``(M, K, h, w)`` -> the calibrated map ``(1, K, h, w)``.

        Args:
            maps: of the members.
            without: place of a member that is left out.
        """
        rule = make_rule(self.rule, self.held.task, self.fitted)
        for place, (own, share) in enumerate(zip(maps, self.shares, strict=True)):
            if place != without:
                rule.add(own[None], share, place)
        joined = rule.result()
        if self.calibration is None or isinstance(self.calibration, VarianceScaling):
            return joined
        return self.calibration.apply(joined)

    def maps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each picture's calibrated map ``(K, h, w)`` and target; to be called again for every pass."""
        for maps, (target, _) in self.held:
            yield self.join(maps)[0], target

    def spread(self, maps: Tensor) -> Tensor:
        """Variance over the chosen ``(M, K, h, w)`` -> ``(1, K, h, w)``, not calibrated."""
        return self._running(maps).variance()

    def predict(self, maps: Tensor, size: Size | None = None) -> Prediction:
        """Maps of the chosen ``(M, K, h, w)`` -> prediction of a batch of one.

        Args:
            maps: of the members.
            size: (H, W) of the prediction: maps are resized, then uncertainty is computed; default that of ``maps``.
        """
        task, distribution = self.held.task, self.held.task.distribution
        mean = self.join(maps)
        if size is not None:
            density = task.target_kind == "density"
            mean, maps = resize_maps(mean, size, density), resize_maps(maps, size, density)
        running = self._running(maps)
        variance = running.variance()
        return Prediction(
            mean=mean,
            variance=self.calibration.apply(variance) if isinstance(self.calibration, VarianceScaling) else variance,
            entropy=None if distribution == "none" else entropy(mean, distribution),
            expected_entropy=running.expected_entropy(),
            mutual_information=running.mutual_information(),
            disagreement=running.disagreement(),
            label=mean.argmax(1) if distribution == "categorical" else None,
        )

    def _running(self, maps: Tensor) -> RunningUncertainty:
        running = RunningUncertainty(self.held.task.distribution)
        for own, share in zip(maps, self.shares, strict=True):
            running.add(own[None], share)
        return running
