"""Prediction of one batch with all members or a cascade, in parts of limited size so that memory stays bounded."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from densemble.ensemble.cascade import Cascade, CascadeUse, Check, Policy, cascade_use
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.input_images import from_bytes
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.uncertainty import Asked
from densemble.errors import ResourceError, UsageError
from densemble.inference.cascade_runner import predict_cascade, require_policy
from densemble.inference.runtime.recorded_prediction import Launched, RecordedPrediction

PIXELS = {"cpu": 2_000_000, "cuda": 32_000_000}
"""Most pixels of images that are computed at once, by type of the device; on a GPU fewer if its memory is too small."""

log = logging.getLogger(__name__)


def choose_policy(ensemble: Ensemble, keep: float | None, budget: float | None) -> Policy | None:
    """Select the cascade policy for a share of the score or of the cost, and log its figures.

    Args:
        ensemble: with a cascade.
        keep: share of the ensemble's score that is kept.
        budget: share of the ensemble's cost that is spent.

    Returns:
        ``None`` if neither ``keep`` nor ``budget`` is given.

    Raises:
        UsageError: both are given, no policy is good or cheap enough, or the ensemble has no cascade.
    """
    if keep is None and budget is None:
        return None
    if keep is not None and budget is not None:
        raise UsageError(f"keep = {keep} and budget = {budget} contradict each other; give one of them")
    cascade = ensemble.cascade
    if cascade is None:
        raise UsageError("this ensemble has no cascade; make one with `densemble assemble` from two members or more")
    if keep is not None:
        policy, check = cascade.for_keep(keep), cascade.check_near("keep", keep)
    else:
        policy, check = cascade.for_budget(budget or 0.0), cascade.check_near("budget", budget or 0.0)
    stops = f"stops when {policy.measure} < {policy.threshold:.3g}" if policy.threshold else "always runs all of them"
    costs = f"costs {policy.cost:.2f} of all members{_kept(policy, cascade)}"
    log.info(f"cascade: {' -> '.join(policy.members)}, {stops}; {costs} (fitted on these {cascade.images} images)")
    if check is None:
        log.info("cascade: not cross-fitted: its cost and score on other images are unknown")
    else:
        log.info(
            f"cascade: fitted on one half of the images and measured on the other, --{check.asked} {check.share:g} "
            f"costs {check.cost:.2f} of all members{_kept(check, cascade)}"
        )
    return policy


def _kept(figures: Policy | Check, cascade: Cascade) -> str:
    return "" if figures.kept is None else f" and keeps {figures.kept:.4f} of {cascade.metric}"


def batch_predictor(
    ensemble: Ensemble,
    uncertainty: Asked,
    policy: Policy | None = None,
    used: Callable[[CascadeUse], None] = lambda use: None,
) -> "BatchPredictor":
    """Make a function that predicts a batch of images ``(B, C, H, W)`` on the ensemble's device.

    Images are float in [0, 1] or uint8. The function raises :class:`UnusableMaps` if a member gives no usable map of
    some images and they cannot be predicted without it; the other images of the batch can.

    Args:
        ensemble: in eval mode.
        uncertainty: uncertainty maps to compute.
        policy: a policy of the ensemble's cascade; ``None``: all members run on every image.
        used: called with the cost of each batch under a policy.

    Raises:
        UsageError: the ensemble lacks a member of the policy.
    """
    if policy is not None:
        require_policy(ensemble, policy)
    device = next(ensemble.parameters()).device
    recorded = RecordedPrediction(ensemble, uncertainty)

    def launch(images: Tensor) -> Launched:
        if policy is None and device.type == "cuda":
            return recorded.launch(images.pin_memory() if images.device.type == "cpu" else images)
        images = from_bytes(images.to(device, non_blocking=True))
        if policy is None:
            prediction = ensemble.predict_members(images, uncertainty)
        else:
            result = predict_cascade(ensemble, images, policy, uncertainty)
            assert ensemble.cascade is not None
            used(cascade_use(result.used, policy, ensemble.cascade.shares))
            prediction = result.prediction
        return lambda: prediction

    return BatchPredictor(launch, PIXELS.get(device.type, PIXELS["cpu"]), in_flight=2 if device.type == "cuda" else 1)


class BatchPredictor:
    """Predicts batches in parts of limited size; halves the size when a part does not fit into the memory of a GPU.

    Args:
        launch: starts the prediction of a part and returns a function that waits for it.
        pixels: most pixels of the images of a part.
        in_flight: number of batches that should be launched before the first of them is waited for.
    """

    def __init__(self, launch: Callable[[Tensor], Launched], pixels: int, in_flight: int = 1) -> None:
        self._launch, self.pixels, self.in_flight = launch, pixels, in_flight

    def __call__(self, images: Tensor) -> Prediction:
        """Predict images ``(B, C, H, W)``, see :meth:`launch`."""
        return self.launch(images)()

    def launch(self, images: Tensor) -> Launched:
        """Start the prediction of images ``(B, C, H, W)``; the returned function waits for it.

        Raises:
            UnusableMaps: see :func:`batch_predictor`; the returned function raises it too.
            ResourceError: a single image does not fit into the memory of the GPU.
        """
        parts: list[tuple[range, Launched]] = []
        first = 0
        while first < len(images):
            indices = range(first, min(first + self._at_once(images), len(images)))
            part = images[indices.start : indices.stop]
            try:
                with _counted_in(indices, len(images)):
                    parts.append((indices, self._launch(part)))
            except torch.OutOfMemoryError as error:
                self._halve(part, error)
                continue
            first = indices.stop
        return lambda: Prediction.cat([_waited_for(part, indices, len(images)) for indices, part in parts])

    def _at_once(self, images: Tensor) -> int:
        return max(self.pixels // (images.shape[-2] * images.shape[-1]), 1)

    def _halve(self, part: Tensor, error: Exception) -> None:
        size = "x".join(map(str, part.shape[-2:]))
        if len(part) == 1:
            raise ResourceError(
                f"one image of {size} does not fit into the memory of the GPU; use --device cpu, or smaller images"
            ) from error
        self.pixels = len(part) // 2 * part.shape[-2] * part.shape[-1]
        torch.cuda.empty_cache()
        log.warning(f"GPU memory is too small for {len(part)} images of {size}: continuing with {len(part) // 2}")


def _waited_for(part: Launched, indices: range, batch: int) -> Prediction:
    with _counted_in(indices, batch):
        return part()


@contextmanager
def _counted_in(indices: range, batch: int) -> Iterator[None]:
    """Raise :class:`UnusableMaps` of a part with the indices of its images in the whole batch."""
    try:
        yield
    except UnusableMaps as error:
        raise error.at(indices, batch) from error
