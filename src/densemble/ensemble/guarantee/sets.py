"""Prediction sets of classes: with expected coverage (ConformalSet), or certified (RiskControl)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from densemble.ensemble.described import Described
from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance
from densemble.ensemble.guarantee.curve import MissCurve
from densemble.ensemble.guarantee.held_out_images import Images, observations
from densemble.errors import UsageError
from densemble.tasks import Distribution, Task


@dataclass(frozen=True)
class ConformalSet(Described):
    """Sets of classes: the expected share of a new image's pixels without their true class is <= ``miscoverage``.

    The set of a pixel holds each class with at least the probability ``threshold`` (Sadinle et al. 2019), and always
    the most probable one. The guarantee is a mean over images, each with the same weight, and concerns whole images:
    difficult images and rare classes are covered less.

    Attributes:
        threshold: smallest probability of a class in a set; 0: sets hold all classes.
        miscoverage: guaranteed share.
        images: number of images used for fitting.
    """

    threshold: float
    miscoverage: float
    images: int

    kind = "conformal_set"

    def apply(self, maps: Tensor) -> Tensor:
        """Return which classes are in each pixel's set, bool ``(B, K, h, w)``, for probabilities of that shape."""
        return _included(maps, self.threshold, "categorical")


@dataclass(frozen=True)
class RiskControl(Described):
    """Sets of classes that miss at most the share ``risk`` of the target, in the mean over images, with ``confidence``.

    The loss of an image is its false-negative rate: the share of its positive pixels, over all classes, that are not
    marked. Images without a positive pixel are not counted. ``confidence`` is the probability, over the draw of the
    held-out images, that the guarantee holds; it concerns the mean over images, not each single image.

    Attributes:
        threshold: smallest probability of a marked class; 0: all classes are marked.
        risk: guaranteed mean false-negative rate.
        confidence: probability that the guarantee holds.
        images: number of images used for fitting.
        distribution: distribution of the maps; if ``categorical``, a pixel's most probable class is always marked.
    """

    threshold: float
    risk: float
    confidence: float
    images: int
    distribution: Distribution

    kind = "risk_control"

    def apply(self, maps: Tensor) -> Tensor:
        """Return which classes are marked at each pixel, bool ``(B, K, h, w)``, for probabilities of that shape."""
        return _included(maps, self.threshold, self.distribution)


def fit_set(images: Images, task: Task, miscoverage: float = 0.1) -> ConformalSet:
    """Fit the smallest sets with a guaranteed expected miscoverage, by conformal risk control, in one pass.

    The guarantee holds for maps resized to the size of the target (bilinear), and for images drawn from the same
    distribution as these. These images must not have been used for training, selection or calibration: otherwise the
    sets are too small.

    Raises:
        UsageError: the task does not have one class per pixel, or ``miscoverage`` is not in (0, 1).
        DataError: there are too few images.
    """
    if task.target_kind != "labels":
        raise UsageError(
            f"conformal sets are for tasks with one class per pixel, such as segmentation, not '{task.name}'"
        )
    curve = _miss_curve(images, task)
    allowance = expected_allowance(miscoverage, curve.images)
    return ConformalSet(_threshold(curve, allowance), miscoverage, curve.images)


def fit_risk_control(images: Images, task: Task, risk: float = 0.1, confidence: float = 0.95) -> RiskControl:
    """Fit the largest threshold with a mean false-negative rate of at most ``risk``, with ``confidence``, in one pass.

    The false-negative rate grows with the threshold, so the largest certified threshold needs no correction for
    multiple tests: risk-controlling prediction sets (Bates et al. 2021). The conditions are those of :func:`fit_set`.

    Raises:
        UsageError: the targets of the task are not classes, or ``risk`` or ``confidence`` is not in (0, 1).
        DataError: there are too few images to certify any threshold.
    """
    if task.target_kind not in ("labels", "masks"):
        raise UsageError(f"risk control is for tasks of classes, segmentation and multilabel, not '{task.name}'")
    curve = _miss_curve(images, task)
    allowance = certified_allowance(risk, confidence, curve.images)
    return RiskControl(_threshold(curve, allowance), risk, confidence, curve.images, task.distribution)


def _miss_curve(images: Images, task: Task) -> MissCurve:
    """Return the curve of the probabilities of true classes; classes that are always in the set count as infinity."""
    curve = MissCurve()
    for maps, ideal, valid in observations(images, task):
        always = _included(maps, torch.inf, task.distribution)[0]
        positive = valid & (ideal > 0.5)
        curve.add(torch.where(always, torch.inf, maps[0])[positive])
    return curve


def _threshold(curve: MissCurve, allowance: float) -> float:
    """Return the threshold, at most 1: if the most probable classes suffice, every threshold is valid."""
    return min(curve.largest_below(allowance), 1.0)


def _included(maps: Tensor, threshold: float, distribution: Distribution) -> Tensor:
    included = maps.float() >= threshold
    return included.scatter_(1, maps.argmax(1, keepdim=True), True) if distribution == "categorical" else included
