"""Sets of classes that hold what is true: on average (ConformalSet), or certified (RiskControl)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance
from densemble.ensemble.guarantee.curve import MissCurve
from densemble.ensemble.guarantee.held_out_images import Images, observations
from densemble.errors import UsageError
from densemble.tasks import Distribution, Task

_KINDS = ("labels", "masks")


@dataclass(frozen=True)
class ConformalSet:
    """Sets of classes: of a new image's pixels, an expected share of at most ``miscoverage`` misses its true class.

    A pixel's set holds each class of at least the probability ``threshold`` (Sadinle et al. 2019), and always the most
    probable one. The promise is a mean over images, each of which counts the same, and it is one of an image as a
    whole: an image that is harder than most is covered less, and so is a rare class.

    Attributes:
        threshold: least probability of a class in a set; 0: all classes are.
        miscoverage: what was promised.
        images: how many it was fitted on.
    """

    threshold: float
    miscoverage: float
    images: int

    kind: ClassVar[str] = "conformal_set"

    def apply(self, maps: Tensor) -> Tensor:
        """Probabilities ``(B, K, h, w)`` -> which classes are in each pixel's set, bool ``(B, K, h, w)``."""
        return _included(maps, self.threshold, "categorical")

    def describe(self) -> dict[str, Any]:
        """Plain values from which the same is made."""
        values = {"threshold": self.threshold, "miscoverage": self.miscoverage, "pictures": self.images}
        return {"kind": self.kind, **values}


@dataclass(frozen=True)
class RiskControl:
    """Sets of classes that miss at most ``risk`` of what is there, in the mean over new images, with ``confidence``.

    What an image misses is its false-negative rate: the share of its true pixels, over all classes, that are not
    marked. Images where nothing is true count nowhere. ``confidence`` is the probability that the held-out images
    were such that the promise holds; it holds for the mean over images and not for each single one.

    Attributes:
        threshold: least probability of a class that is marked; 0: all are.
        risk: the mean false-negative rate that is promised.
        confidence: in the promise.
        images: how many it was fitted on.
        distribution: ``categorical``: the most probable class of a pixel is marked too.
    """

    threshold: float
    risk: float
    confidence: float
    images: int
    distribution: Distribution

    kind: ClassVar[str] = "risk_control"

    def apply(self, maps: Tensor) -> Tensor:
        """Probabilities ``(B, K, h, w)`` -> which classes are marked at each pixel, bool ``(B, K, h, w)``."""
        return _included(maps, self.threshold, self.distribution)

    def describe(self) -> dict[str, Any]:
        """Plain values from which the same is made."""
        promise = {"risk": self.risk, "confidence": self.confidence, "pictures": self.images}
        return {"kind": self.kind, "threshold": self.threshold, **promise, "distribution": self.distribution}


def fit_set(images: Images, task: Task, miscoverage: float = 0.1) -> ConformalSet:
    """The smallest sets whose expected miscoverage can be promised, by conformal risk control; one pass.

    It holds for maps resized to their target's size (bilinear), and for images drawn as those here were. These must
    not have been used to train, choose or calibrate, or sets come out too small.

    Raises:
        UsageError: a task of other than one class per pixel, or ``miscoverage`` is not in (0, 1).
        DataError: too few images.
    """
    if task.target_kind != "labels":
        raise UsageError(f"conformal sets are for tasks of one class per pixel, as segmentation is, not '{task.name}'")
    curve = _miss_curve(images, task)
    allowance = expected_allowance(miscoverage, curve.images)
    return ConformalSet(_threshold(curve, allowance), miscoverage, curve.images)


def fit_risk_control(images: Images, task: Task, risk: float = 0.1, confidence: float = 0.95) -> RiskControl:
    """The largest threshold that keeps the mean false-negative rate at most ``risk``, with ``confidence``; one pass.

    The false-negative rate only grows with the threshold, so that the largest certified one is found without paying
    for the many that are tried: risk-controlling prediction sets (Bates et al. 2021). The conditions are those of
    :func:`fit_set`.

    Raises:
        UsageError: a task of other targets than classes, or ``risk`` or ``confidence`` is not in (0, 1).
        DataError: too few images to certify any threshold.
    """
    if task.target_kind not in _KINDS:
        raise UsageError(f"risk control is for tasks of classes, segmentation and multilabel, not '{task.name}'")
    curve = _miss_curve(images, task)
    allowance = certified_allowance(risk, confidence, curve.images)
    return RiskControl(_threshold(curve, allowance), risk, confidence, curve.images, task.distribution)


def make_set(values: dict[str, Any]) -> ConformalSet:
    """From the plain values of ``describe``."""
    return ConformalSet(float(values["threshold"]), float(values["miscoverage"]), int(values["pictures"]))


def make_risk_control(values: dict[str, Any]) -> RiskControl:
    """From the plain values of ``describe``."""
    return RiskControl(
        float(values["threshold"]),
        float(values["risk"]),
        float(values["confidence"]),
        int(values["pictures"]),
        values["distribution"],
    )


def _miss_curve(images: Images, task: Task) -> MissCurve:
    """Of the probability of everything that is true; of what is in the set anyway, infinity."""
    curve = MissCurve()
    for maps, ideal, valid in observations(images, task):
        always = _included(maps, torch.inf, task.distribution)[0]
        true = valid & (ideal > 0.5)
        curve.add(torch.where(always, torch.inf, maps[0])[true])
    return curve


def _threshold(curve: MissCurve, allowance: float) -> float:
    """At most 1: where the most probable classes are enough, any threshold would do."""
    return min(curve.largest_below(allowance), 1.0)


def _included(maps: Tensor, threshold: float, distribution: Distribution) -> Tensor:
    included = maps.float() >= threshold
    return included.scatter_(1, maps.argmax(1, keepdim=True), True) if distribution == "categorical" else included
