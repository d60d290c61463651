"""Selective prediction: errors of the most certain pixels, and whether uncertainty identifies wrong pixels."""

import torch
from torch import Tensor

from densemble.metrics import relative_bins
from densemble.metrics.metric import MetricValues

COVERAGES = (0.01, *(step / 20 for step in range(1, 21)))
"""Default coverages of the curve: 1 %, then every 5 %."""


class RiskCoverage:
    """``risk aurc excess_aurc error_auroc`` and the curve of the error among the most certain x % of the pixels.

    Ranks the pixels of all images together by their uncertainty. Uncertainties that differ by less than 0.1 % count as
    equal, and the result is the mean over all orders of equal pixels. Only two histograms are stored.

    ``risk`` is the mean error of all pixels. ``aurc`` is the mean, over all coverages, of the mean error of the kept
    pixels (Geifman & El-Yaniv 2017); ``excess_aurc`` is the part of it that exceeds the value with all correct pixels
    before all wrong ones (Geifman et al. 2019). ``error_auroc`` is the probability that a wrong pixel is more uncertain
    than a correct one, equal ones count half (Mann & Whitney 1947). The last two are ``None`` unless all errors are 0
    or 1; ``error_auroc`` is also ``None`` if all pixels are correct or all are wrong.
    """

    def __init__(self) -> None:
        self._pixels = torch.zeros(relative_bins.BINS, dtype=torch.float64)
        self._errors = torch.zeros(relative_bins.BINS, dtype=torch.float64)
        self._binary = True

    def update(self, uncertainty: Tensor, error: Tensor, valid: Tensor) -> None:
        """Add one image; all arguments are maps of one shape.

        Args:
            uncertainty: >= 0, of any range: an entropy, a variance, 1 - confidence.
            error: >= 0: 1 where the prediction is wrong and 0 where it is correct, or an absolute error.
            valid: bool; other pixels are not counted.

        Raises:
            ValueError: an uncertainty is negative or NaN.
        """
        errors = error[valid].double()
        bins = relative_bins.bin_index(uncertainty[valid])
        self._pixels += torch.bincount(bins, minlength=relative_bins.BINS)
        self._errors += torch.bincount(bins, weights=errors, minlength=relative_bins.BINS)
        self._binary &= bool(((errors == 0) | (errors == 1)).all())

    def curve(self, coverages: tuple[float, ...] = COVERAGES) -> list[tuple[float, float]]:
        """Return (coverage, mean error of the kept pixels), most certain first; empty if no pixel is valid.

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
        requested = torch.tensor(coverages, dtype=torch.float64) * total
        bins = torch.searchsorted(kept, requested)
        before = requested - (kept[bins] - self._pixels[bins])
        errors = wrong[bins] - self._errors[bins] + self._errors[bins] * before / self._pixels[bins]
        return list(zip(coverages, (errors / requested).tolist(), strict=True))

    def compute(self) -> MetricValues:
        """Return the metrics over all images so far; all ``None`` if no pixel is valid."""
        used = self._pixels > 0
        pixels, errors = self._pixels[used], self._errors[used]
        values: MetricValues = dict.fromkeys(("risk", "aurc", "excess_aurc", "error_auroc"))
        if len(pixels):
            area = _area(pixels, errors)
            values |= {"risk": float(errors.sum() / pixels.sum()), "aurc": area}
            if self._binary:
                wrong = errors.sum()
                right = pixels.sum() - wrong
                best = _area(torch.stack([right, wrong]), torch.stack([torch.zeros_like(wrong), wrong]))
                values |= {"excess_aurc": area - best, "error_auroc": _auroc(pixels - errors, errors)}
        return values


def _area(pixels: Tensor, errors: Tensor) -> float:
    """Mean over i of the mean error of the first i pixels; errors are spread evenly over the pixels of a bin.

    After N pixels with E errors come n more with e errors: (E + j e/n) / (N + j) summed over j = 1..n is
    e + (E - N e/n) (H(N + n) - H(N)), with harmonic numbers H(m) = digamma(m + 1) + a constant.
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
