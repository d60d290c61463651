"""What an ensemble says about images: the combined map and how sure it is."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Prediction:
    """Combined map and uncertainty of a batch.

    Attributes:
        mean: activated map ``(B, K, h, w)``: probabilities, or values in the target's unit.
        variance: over the members, ``(B, K, h, w)``.
        entropy: predictive entropy in nats ``(B, h, w)``; ``None`` for regression.
        expected_entropy: mean of the members' entropies ``(B, h, w)``; ``None`` for regression.
        mutual_information: their difference, >= 0, ``(B, h, w)``: the disagreement; ``None`` for regression.
        label: most probable class ``(B, h, w)``, integer; ``None`` where there are no classes.
    """

    mean: Tensor
    variance: Tensor
    entropy: Tensor | None
    expected_entropy: Tensor | None
    mutual_information: Tensor | None
    label: Tensor | None
