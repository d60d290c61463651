"""Prediction of batches with all members in one recorded graph per shape of the images."""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.input_images import from_bytes
from densemble.ensemble.membership import deferred_checks
from densemble.ensemble.prediction import Prediction
from densemble.ensemble.uncertainty import Asked
from densemble.inference.runtime.fast_ensemble import is_recordable
from densemble.inference.runtime.recording import Recording
from densemble.inference.runtime.tuned_network import padded_batch
from densemble.nets.modes import eval_mode
from densemble.shapes import size_of

MOST_SHAPES = 4
"""Most shapes of batches that are recorded at once; a further one replaces the least recently used."""

log = logging.getLogger(__name__)


Launched = Callable[[], Prediction]
"""Waits for a prediction that is being computed."""


class _Checked(NamedTuple):
    """A prediction, and whether all members gave usable maps: a scalar bool tensor."""

    prediction: Prediction
    usable: Tensor


class RecordedPrediction:
    """Predicts batches; resizing, networks, combination and uncertainty of all members are one recorded graph.

    The first batch of a shape runs unrecorded, because networks are tuned on it. When the shape comes again, it is
    recorded. A smaller batch of recorded images is padded with its last image. A batch in which a member gives no
    usable map is predicted again without the recording, which finds the images and members concerned.

    Args:
        ensemble: fast ensemble in eval mode.
        uncertainty: uncertainty maps to compute.
        most: most recorded shapes.
    """

    def __init__(self, ensemble: Ensemble, uncertainty: Asked, most: int = MOST_SHAPES) -> None:
        self.ensemble, self.uncertainty, self.most = ensemble, uncertainty, most
        self._met: set[tuple[int, ...]] = set()
        self._recordings: OrderedDict[tuple[int, ...], Recording[_Checked]] = OrderedDict()
        self._device = next(ensemble.parameters()).device
        self._refused = False

    def launch(self, images: Tensor) -> Launched:
        """Start the prediction of images ``(B, C, H, W)``, float in [0, 1] or uint8, on any device.

        Returns:
            A function that waits for the prediction and returns it on the CPU. Later launches do not change it.

        Raises:
            ArtifactError: see :meth:`Ensemble.predict_members`; the returned function raises it too.
        """
        recording = self._recording(images)
        if recording is None:
            prediction = self._unrecorded(images)
            return lambda: prediction
        checked = recording(padded_batch(images, recording.shape[0]))
        host = checked.prediction.map(lambda maps: _copied(maps[: len(images)]))
        usable, event = _copied(checked.usable), None
        if self._device.type == "cuda":
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()

        def wait() -> Prediction:
            if event is not None:
                event.synchronize()
            return host if bool(usable) else self._unrecorded(images)

        return wait

    def _unrecorded(self, images: Tensor) -> Prediction:
        images = from_bytes(images.to(self._device, non_blocking=True))
        return self.ensemble.predict_members(images, self.uncertainty).map(Tensor.cpu)

    def _recording(self, images: Tensor) -> Recording[_Checked] | None:
        """Return the recording for a batch; ``None`` for the first batch of a shape, and if nothing can be recorded."""
        shape = tuple(images.shape)
        fitting = [known for known in self._recordings if known[1:] == shape[1:] and known[0] >= shape[0]]
        if fitting:
            best = min(fitting)
            self._recordings.move_to_end(best)
            return self._recordings[best]
        if self._refused or shape not in self._met or not is_recordable(self.ensemble):
            self._met.add(shape)
            return None
        recording = self._record(images)
        if recording is not None:
            self._recordings[shape] = recording
            while len(self._recordings) > self.most:
                self._recordings.popitem(last=False)
        return recording

    def _record(self, images: Tensor) -> Recording[_Checked] | None:
        try:
            return Recording(self._checked, images.to(self._device))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # an operation of a rule or of a user's network that cannot be recorded
            self._refused = True
            reason = str(error).splitlines()[0]
            log.warning(f"warning: predicted without a CUDA graph, because this ensemble cannot be recorded: {reason}")
            return None

    @torch.no_grad()
    def _checked(self, images: Tensor) -> _Checked:
        ensemble, images = self.ensemble, from_bytes(images)
        with eval_mode(ensemble), deferred_checks() as usable:
            maps = ensemble.member_maps(images)
            prediction = ensemble.combination.predict(maps, self.uncertainty, size_of(images))
        return _Checked(prediction, torch.stack(usable).all())


def _copied(maps: Tensor) -> Tensor:
    """Start a copy to the CPU; from a GPU into pinned memory, so that nothing waits for it."""
    copy = torch.empty(maps.shape, dtype=maps.dtype, pin_memory=maps.is_cuda)
    return copy.copy_(maps, non_blocking=True)
