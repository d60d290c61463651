"""Sets of classes that hold what is true: on average (ConformalSet), or certified (RiskControl)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance
from densemble.ensemble.guarantee.curve import MissCurve
from densemble.ensemble.guarantee.held_out_images import Pictures, observations
from densemble.errors import UsageError
from densemble.tasks import Distribution, Task

_KINDS = ("labels", "masks")


@dataclass(frozen=True)
class ConformalSet:
    """Sets of classes: of a new picture's pixels, an expected share of at most ``miscoverage`` misses its true class.

    A pixel's set holds each class of at least the probability ``threshold`` (Sadinle et al. 2019), and always the most
    probable one. The promise is a mean over pictures, each of which counts the same, and it is one of a picture as a
    whole: a picture that is harder than most is covered less, and so is a rare class.

    Attributes:
        threshold: least probability of a class in a set; 0: all classes are.
        miscoverage: what was promised.
        pictures: how many it was fitted on.
    """

    threshold: float
    miscoverage: float
    pictures: int

    kind: ClassVar[str] = "conformal_set"

    def apply(self, maps: Tensor) -> Tensor:
        """Probabilities ``(B, K, h, w)`` -> which classes are in each pixel's set, bool ``(B, K, h, w)``."""
        return _included(maps, self.threshold, "categorical")

    def describe(self) -> dict[str, Any]:
        """Plain values from which the same is made."""
        values = {"threshold": self.threshold, "miscoverage": self.miscoverage, "pictures": self.pictures}
        return {"kind": self.kind, **values}


@dataclass(frozen=True)
class RiskControl:
    """Sets of classes that miss at most ``risk`` of what is there, in the mean over new pictures, with ``confidence``.

    What a picture misses is its false-negative rate: the share of its true pixels, over all classes, that are not
    marked. Pictures where nothing is true count nowhere. ``confidence`` is the probability that the held-out pictures
    were such that the promise holds; it holds for the mean over pictures and not for each single one.

    Attributes:
        threshold: least probability of a class that is marked; 0: all are.
        risk: the mean false-negative rate that is promised.
        confidence: in the promise.
        pictures: how many it was fitted on.
        distribution: ``categorical``: the most probable class of a pixel is marked too.
    """

    threshold: float
    risk: float
    confidence: float
    pictures: int
    distribution: Distribution

    kind: ClassVar[str] = "risk_control"

    def apply(self, maps: Tensor) -> Tensor:
        """Probabilities ``(B, K, h, w)`` -> which classes are marked at each pixel, bool ``(B, K, h, w)``."""
        return _included(maps, self.threshold, self.distribution)

    def describe(self) -> dict[str, Any]:
        """Plain values from which the same is made."""
        promise = {"risk": self.risk, "confidence": self.confidence, "pictures": self.pictures}
        return {"kind": self.kind, "threshold": self.threshold, **promise, "distribution": self.distribution}


def fit_set(pictures: Pictures, task: Task, miscoverage: float = 0.1) -> ConformalSet:
    """The smallest sets whose expected miscoverage can be promised, by conformal risk control; one pass.

    It holds for maps resized to their target's size (bilinear), and for pictures drawn as those here were. These must
    not have been used to train, choose or calibrate, or sets come out too small.

    Raises:
        UsageError: a task of other than one class per pixel, or ``miscoverage`` is not in (0, 1).
        DataError: too few pictures.
    """
    if task.target_kind != "labels":
        raise UsageError(f"conformal sets are for tasks of one class per pixel, as segmentation is, not '{task.name}'")
    curve = _miss_curve(pictures, task)
    allowance = expected_allowance(miscoverage, curve.pictures)
    return ConformalSet(_threshold(curve, allowance), miscoverage, curve.pictures)


def fit_risk_control(pictures: Pictures, task: Task, risk: float = 0.1, confidence: float = 0.95) -> RiskControl:
    """The largest threshold that keeps the mean false-negative rate at most ``risk``, with ``confidence``; one pass.

    The false-negative rate only grows with the threshold, so that the largest certified one is found without paying
    for the many that are tried: risk-controlling prediction sets (Bates et al. 2021). The conditions are those of
    :func:`fit_set`.

    Raises:
        UsageError: a task of other targets than classes, or ``risk`` or ``confidence`` is not in (0, 1).
        DataError: too few pictures to certify any threshold.
    """
    if task.target_kind not in _KINDS:
        raise UsageError(f"risk control is for tasks of classes, segmentation and multilabel, not '{task.name}'")
    curve = _miss_curve(pictures, task)
    allowance = certified_allowance(risk, confidence, curve.pictures)
    return RiskControl(_threshold(curve, allowance), risk, confidence, curve.pictures, task.distribution)


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


def _miss_curve(pictures: Pictures, task: Task) -> MissCurve:
    """Of the probability of everything that is true; of what is in the set anyway, infinity."""
    curve = MissCurve()
    for maps, ideal, valid in observations(pictures, task):
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
