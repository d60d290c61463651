"""Mixture: chosen candidates, their shares and the rule that joins them, over kept predictions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from densemble.ensemble.calibrate import Calibration, VarianceScaling
from densemble.ensemble.combine import COMBINE, Fitted, combine
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.uncertainty import RunningUncertainty, entropy
from densemble.heldout.predictions import HeldOut

Pictures = Callable[[], Iterator[tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class Mixture:
    """What an ensemble of kept predictions says.

    Attributes:
        held: the chosen candidates only, tempered.
        shares: one positive number each.
        rule: row of ``COMBINE``.
        fitted: what the rule learnt.
        calibration: of the ensemble; ``None``: as it is.
    """

    held: HeldOut
    shares: tuple[float, ...]
    rule: str = "mean"
    fitted: Fitted | None = None
    calibration: Calibration | None = None

    def only(self, pictures: Sequence[int]) -> "Mixture":
        """The same over some of the pictures."""
        return replace(self, held=self.held.only(pictures))

    def fit_rule(self, name: str, pictures: Sequence[int] | None = None) -> "Mixture":
        """With another rule, fitted on some of the pictures if it is one that learns; default on all."""
        fit = COMBINE[name].fit
        if fit is None:
            return replace(self, rule=name, fitted=None)
        held = self.held if pictures is None else self.held.only(pictures)
        fitted = fit(lambda: ((maps, target) for maps, (target, _) in held), self.shares, self.held.task)
        return replace(self, rule=name, fitted=fitted)

    def join(self, maps: Tensor) -> Tensor:
        """Maps of the chosen ``(M, K, h, w)`` -> the calibrated map ``(1, K, h, w)``."""
        joined = combine(maps[:, None], self.shares, self.rule, self.held.task, self.fitted)
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

    def predict(self, maps: Tensor) -> Prediction:
        """Maps of the chosen ``(M, K, h, w)`` -> prediction of a batch of one."""
        distribution = self.held.task.distribution
        running, mean = self._running(maps), self.join(maps)
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
