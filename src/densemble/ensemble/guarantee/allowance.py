"""Largest mean loss on the held-out images for which a guarantee holds on new images.

The unit is the image: images of one source are exchangeable, while pixels of one image are correlated. The loss of an
image is the share that it misses, in [0, 1].
"""

import math

from densemble.errors import DataError, UsageError

_HALVINGS = 40
_ROUNDING = 1e-9


def require_share(name: str, value: float) -> float:
    """Return ``value`` if it lies strictly between 0 and 1.

    Raises:
        UsageError: it does not.
    """
    if not 0 < value < 1:
        raise UsageError(f"{name} {value:g} must lie between 0 and 1, both excluded")
    return value


def expected_allowance(miscoverage: float, images: int) -> float:
    """Return the largest mean loss on held-out images for which a new image's expected loss is <= ``miscoverage``.

    Counts the new image with the largest loss, 1: conformal risk control (Angelopoulos et al. 2024, theorem 1).

    Raises:
        UsageError: ``miscoverage`` is not in (0, 1).
        DataError: there are too few images for a guarantee.
    """
    needed = max(math.ceil(1 / require_share("miscoverage", miscoverage) - 1 - _ROUNDING), 1)
    if images < needed:
        raise DataError(
            f"a miscoverage of {miscoverage:g} cannot be guaranteed from {images} held-out images with a target: "
            f"at least {needed} are needed; allow more, or hold out more images"
        )
    return max((miscoverage * (images + 1) - 1) / images, 0.0)


def certified_allowance(risk: float, confidence: float, images: int) -> float:
    """Return the largest mean loss on held-out images for which the true mean loss is certified to be <= ``risk``.

    The statement is wrong with a probability of at most 1 - ``confidence`` over the draw of the held-out images (Bates
    et al. 2021): this inverts the p-value of Hoeffding and Bentkus, which grows with the loss.

    Raises:
        UsageError: ``risk`` or ``confidence`` is not in (0, 1).
        DataError: there are too few images for a guarantee.
    """
    require_share("risk", risk)
    allowed = 1 - require_share("confidence", confidence)
    if images == 0 or p_value(0.0, risk, images) > allowed:
        needed = math.ceil(math.log(allowed) / math.log1p(-risk))
        raise DataError(
            f"a risk of {risk:g} cannot be certified with a confidence of {confidence:g} from {images} held-out "
            f"images with a target: at least {needed} are needed; allow more risk, ask for less confidence, or hold "
            "out more images"
        )
    low, high = 0.0, risk
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle, risk, images) <= allowed else (low, middle)
    return low


def p_value(loss: float, risk: float, images: int) -> float:
    """Return an upper bound of the probability of a mean loss <= ``loss`` if the true mean is above ``risk``.

    The minimum of Hoeffding's and Bentkus's bound for ``images`` images (Angelopoulos et al. 2021).
    """
    from scipy.stats import binom

    mean = min(loss, risk)
    divergence = (1 - mean) * math.log((1 - mean) / (1 - risk)) + (mean * math.log(mean / risk) if mean else 0.0)
    bentkus = math.e * float(binom.cdf(math.ceil(images * loss), images, risk))
    return min(math.exp(-images * divergence), bentkus, 1.0)
