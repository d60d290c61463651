"""How much an image may miss on average in the held-out images, so that a promise holds for new ones.

Images are the unit: those of one source are exchangeable, while the pixels of one image resemble one another and
say far less than as many independent ones. A loss is what one image misses, a share in [0, 1].
"""

import math

from densemble.errors import DataError, UsageError

_HALVINGS = 40
_ROUNDING = 1e-9


def require_share(name: str, value: float) -> float:
    """``value`` if it lies strictly between 0 and 1.

    Raises:
        UsageError: it does not.
    """
    if not 0 < value < 1:
        raise UsageError(f"{name} {value:g} must lie between 0 and 1, neither included")
    return value


def expected_allowance(miscoverage: float, images: int) -> float:
    """The largest mean loss on held-out images at which a new image's expected loss is at most ``miscoverage``.

    The new image is counted in with the worst loss, 1: conformal risk control (Angelopoulos et al. 2024, theorem 1).

    Raises:
        UsageError: ``miscoverage`` is not in (0, 1).
        DataError: too few images for any promise.
    """
    needed = max(math.ceil(1 / require_share("miscoverage", miscoverage) - 1 - _ROUNDING), 1)
    if images < needed:
        raise DataError(
            f"a miscoverage of {miscoverage:g} cannot be promised from {images} held-out images with a target: "
            f"at least {needed} are needed; allow more, or hold out more images"
        )
    return max((miscoverage * (images + 1) - 1) / images, 0.0)


def certified_allowance(risk: float, confidence: float, images: int) -> float:
    """The largest mean loss on held-out images that lets one say that the mean loss is at most ``risk``.

    One errs about that with a probability of at most 1 - ``confidence`` over the draw of the held-out images
    (Bates et al. 2021): the p-value of Hoeffding and Bentkus is inverted, which grows with the loss.

    Raises:
        UsageError: ``risk`` or ``confidence`` is not in (0, 1).
        DataError: too few images for any promise.
    """
    require_share("risk", risk)
    allowed = 1 - require_share("confidence", confidence)
    if images == 0 or p_value(0.0, risk, images) > allowed:
        needed = math.ceil(math.log(allowed) / math.log1p(-risk))
        raise DataError(
            f"a risk of {risk:g} cannot be certified with a confidence of {confidence:g} from {images} held-out "
            f"images that have something to find: at least {needed} are needed; allow more risk, ask for less "
            "confidence, or hold out more images"
        )
    low, high = 0.0, risk
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle, risk, images) <= allowed else (low, middle)
    return low


def p_value(loss: float, risk: float, images: int) -> float:
    """How likely at most a mean ``loss`` is on so many images, if the true mean exceeds ``risk``; an upper bound.

    The smaller one of Hoeffding's bound and of Bentkus's (Angelopoulos et al. 2021).
    """
    from scipy.stats import binom

    mean = min(loss, risk)
    divergence = (1 - mean) * math.log((1 - mean) / (1 - risk)) + (mean * math.log(mean / risk) if mean else 0.0)
    bentkus = math.e * float(binom.cdf(math.ceil(images * loss), images, risk))
    return min(math.exp(-images * divergence), bentkus, 1.0)
