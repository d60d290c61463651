"""What an ensemble says about images: the combined map and how sure it is."""

from dataclasses import dataclass

from torch import Tensor

from densemble.errors import UsageError


@dataclass(frozen=True)
class Prediction:
    """Combined map and uncertainty of a batch; without uncertainty all its maps but ``mean`` may be ``None``.

    All maps have one size, except what :meth:`Ensemble.predict_members` gives: there the maps over the members and a
    guaranteed interval that follows a variance have the images' size H x W, the others the ensemble's h x w.

    Attributes:
        mean: combined and calibrated activated map ``(B, K, h, w)``: probabilities, or values in the target's unit.
        variance: over the members, ``(B, K, h, w)``; of values, calibrated where the ensemble is: their expected
            squared error.
        entropy: predictive entropy of ``mean`` in nats ``(B, h, w)``; ``None`` for regression.
        expected_entropy: mean of the members' entropies ``(B, h, w)``; ``None`` for regression.
        mutual_information: entropy of the members' arithmetic mean less their expected entropy, >= 0, ``(B, h, w)``:
            what they disagree about, for every rule and calibration; ``None`` for regression.
        disagreement: share of the members that decide otherwise than most of them, 0..1, ``(B, h, w)``; ``None`` for
            regression.
        label: most probable class ``(B, h, w)``, integer; ``None`` where there are no classes.
        included: classes that the guaranteed set holds, bool ``(B, K, h, w)``; ``None`` without such a guarantee.
        lower, upper: guaranteed interval of the values, ``(B, K, h, w)``; ``None`` without such a guarantee.
    """

    mean: Tensor
    variance: Tensor | None
    entropy: Tensor | None
    expected_entropy: Tensor | None
    mutual_information: Tensor | None
    disagreement: Tensor | None
    label: Tensor | None
    included: Tensor | None = None
    lower: Tensor | None = None
    upper: Tensor | None = None

    def spread(self) -> Tensor:
        """:attr:`variance`, where it was computed.

        Raises:
            UsageError: this was predicted without uncertainty.
        """
        if self.variance is None:
            raise UsageError("this was predicted without uncertainty; predict with uncertainty=True")
        return self.variance
