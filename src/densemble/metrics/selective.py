"""Selective prediction: how wrong the surest pixels are, and whether uncertainty finds the wrong ones."""

import torch
from torch import Tensor

from densemble.metrics import relative_bins
from densemble.metrics.metric import MetricValues

COVERAGES = (0.01, *(step / 20 for step in range(1, 21)))
"""Where the curve is read by default: 1 %, then every 5 %."""


class RiskCoverage:
    """``risk aurc excess_aurc error_auroc`` and the curve "keep the surest x % of the pixels".

    All pixels of all images are ranked together by their uncertainty. Those whose uncertainties differ by less than
    0.1 % count as equal, and of equal ones the mean over all orders is taken. Only two histograms are kept.

    ``risk`` is the mean error of all pixels. ``aurc`` is the mean, over all coverages, of the mean error of the pixels
    that are kept (Geifman & El-Yaniv 2017); ``excess_aurc`` is how much more that is than if all right pixels came
    before all wrong ones (Geifman et al. 2019). ``error_auroc`` is the chance that a wrong pixel is less sure than
    a right one, equal ones count half (Mann & Whitney 1947). The last two are ``None`` unless errors are 0 or 1, and
    the very last where all pixels are right or all wrong.
    """

    def __init__(self) -> None:
        self._pixels = torch.zeros(relative_bins.BINS, dtype=torch.float64)
        self._errors = torch.zeros(relative_bins.BINS, dtype=torch.float64)
        self._binary = True

    def update(self, uncertainty: Tensor, error: Tensor, valid: Tensor) -> None:
        """Adds one image; maps of any one shape.

        Args:
            uncertainty: >= 0, of any range: an entropy, a variance, 1 - confidence.
            error: >= 0: 1 where the prediction is wrong and 0 where it is right, or an absolute error.
            valid: bool; other pixels count nowhere.

        Raises:
            ValueError: an uncertainty is negative or NaN.
        """
        errors = error[valid].double()
        places = relative_bins.place(uncertainty[valid])
        self._pixels += torch.bincount(places, minlength=relative_bins.BINS)
        self._errors += torch.bincount(places, weights=errors, minlength=relative_bins.BINS)
        self._binary &= bool(((errors == 0) | (errors == 1)).all())

    def curve(self, coverages: tuple[float, ...] = COVERAGES) -> list[tuple[float, float]]:
        """(coverage, mean error of the pixels that are kept), surest first; empty where no pixel is valid.

        Args:
            coverages: shares of the pixels that are kept.

        Raises:
            ValueError: a coverage is not in (0, 1].
        """
        if not all(0 < coverage <= 1 for coverage in coverages):
            raise ValueError(f"coverages {coverages} must be in (0, 1]")
        kept, wrong = self._pixels.cumsum(0), self._errors.cumsum(0)
        total = kept[-1]
        if total == 0:
            return []
        wanted = torch.tensor(coverages, dtype=torch.float64) * total
        bins = torch.searchsorted(kept, wanted)
        before = wanted - (kept[bins] - self._pixels[bins])
        errors = wrong[bins] - self._errors[bins] + self._errors[bins] * before / self._pixels[bins]
        return list(zip(coverages, (errors / wanted).tolist(), strict=True))

    def compute(self) -> MetricValues:
        """The metrics over all images so far; all ``None`` where no pixel is valid."""
        used = self._pixels > 0
        pixels, errors = self._pixels[used], self._errors[used]
        found: MetricValues = dict.fromkeys(("risk", "aurc", "excess_aurc", "error_auroc"))
        if len(pixels):
            area = _area(pixels, errors)
            found |= {"risk": float(errors.sum() / pixels.sum()), "aurc": area}
            if self._binary:
                wrong = errors.sum()
                right = pixels.sum() - wrong
                best = _area(torch.stack([right, wrong]), torch.stack([torch.zeros_like(wrong), wrong]))
                found |= {"excess_aurc": area - best, "error_auroc": _auroc(pixels - errors, errors)}
        return found


def _area(pixels: Tensor, errors: Tensor) -> float:
    """Mean over i of the mean error of the first i pixels, those of one bin in the mean order.

    After N pixels with E errors come n more with e errors: (E + j e/n) / (N + j) summed over j = 1..n is
    e + (E - N e/n) (H(N + n) - H(N)), where H are harmonic numbers, H(m) = digamma(m + 1) + a constant.
    """
    after = pixels.cumsum(0)
    before, wrong_before = after - pixels, errors.cumsum(0) - errors
    rate = torch.where(pixels > 0, errors / pixels.clamp(min=1), 0.0)
    harmonic = torch.digamma(after + 1) - torch.digamma(before + 1)
    return float((errors + (wrong_before - before * rate) * harmonic).sum() / pixels.sum())


def _auroc(right: Tensor, wrong: Tensor) -> float | None:
    pairs = right.sum() * wrong.sum()
    if pairs == 0:
        return None
    return float((wrong * (right.cumsum(0) - right / 2)).sum() / pairs)
