"""Evidence: what the candidates of a run predict on held-out images, small, sampled, and as served."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.ensemble.resize import resize_maps, resize_to_target
from densemble.evaluation.scores import Target, images_with_targets
from densemble.nets.dense import DenseModel
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.held_out_targets import full_size_targets
from densemble.selection.map_sources import MAX_PIXELS, Maps, SampledMaps, SampledPixels, ServedMaps, sample_pixels
from densemble.selection.variants import Candidate
from densemble.shapes import Size
from densemble.storage.runs import require_writable
from densemble.storage.tensor_file import TensorFile
from densemble.tasks import Task

MOST_VALUES = 2**25
"""Values, pixels times channels, that are sampled of all images together: fits hold them in memory."""
FEWEST_PIXELS = 256
"""Pixels that are sampled of an image at least."""


@dataclass(frozen=True)
class Evidence:
    """Predictions of the same candidates on the same images, in three forms.

    Attributes:
        kept: small maps that the trainings left; members and weights are selected on them.
        sampled: the maps as served, at a random sample of the target's pixels; temperatures, the rule and the
            calibration are fitted on them.
        served: whole maps as served, beside targets at their own size; everything reported is measured on them, and
            guarantees are fitted and checked on them.
        scratch: folder for temporary files.
    """

    kept: HeldOut
    sampled: HeldOut
    served: HeldOut
    scratch: Path

    @property
    def pixelwise(self) -> bool:
        """Whether metrics are sums over pixels, so that a sample of pixels is enough to compare rules by."""
        return self.served.task.target_kind in ("labels", "masks", "values")

    @property
    def known(self) -> list[int]:
        """Images whose target is known at some pixel."""
        return [image for image in self.sampled.images if self.sampled.targets[image][0].numel()]

    def only(self, images: Sequence[int]) -> "Evidence":
        """The same candidates on some of the images."""
        return replace(
            self, kept=self.kept.only(images), sampled=self.sampled.only(images), served=self.served.only(images)
        )


@contextmanager
def scratch_folder(cache: Path) -> Iterator[Path]:
    """A temporary folder inside the run's cache.

    Raises:
        ResourceError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=require_writable(cache), prefix="assembly-") as folder:
        yield Path(folder)


def sampled_pixels(channels: int, images: int) -> int:
    """How many pixels of each image are sampled at most, for maps of some channels."""
    return min(MAX_PIXELS, max(MOST_VALUES // (channels * max(images, 1)), FEWEST_PIXELS))


def gather(
    kept: HeldOut,
    candidates: Sequence[Candidate],
    data: FolderData,
    scratch: Path,
    report: Callable[[str], None] = lambda line: None,
) -> Evidence:
    """Runs the candidates on the images of ``kept`` and keeps their logits and a sample of pixels on disk.

    Args:
        kept: small maps of the candidates, in the same order.
        candidates: whose networks are run, one in memory at a time.
        data: images and targets.
        scratch: gets the files: per candidate float32 logits at its head's own size, and the sampled pixels.
        report: called with one line of text.
    """
    images = kept.images
    most = sampled_pixels(kept.task.out_channels, len(images))
    sizes: dict[int, Size] = {}
    pixels: dict[int, SampledPixels] = {}
    targets: dict[int, Target] = {}
    served, sampled = list[Maps](), list[Maps]()
    report(f"computing the maps of {len(candidates)} candidates on {len(images)} validation images as they are served")
    for number, candidate in enumerate(candidates):
        logits, values = TensorFile(scratch / f"{number}-logits.bin"), TensorFile(scratch / f"{number}-pixels.bin")
        for image, coarse, size, target in run_candidate(candidate, data, images):
            if image not in pixels:
                sizes[image] = size
                pixels[image] = sample_pixels(kept.task.as_maps(target)[1].any(0), size, image, most)
                targets[image] = pixels[image].of_target(target), None
            logits.append(image, coarse)
            values.append(image, _at(pixels[image], coarse, size, target, kept.task))
        served.append(ServedMaps(logits, sizes, kept.task))
        sampled.append(SampledMaps(values, pixels, kept.task))
    own = full_size_targets(data, "val")
    return Evidence(
        kept,
        replace(kept, maps=tuple(sampled), targets=targets),
        replace(kept, maps=tuple(served), targets=own),
        scratch,
    )


class ServedLogits(NamedTuple):
    """A candidate on one image: its number, logits ``(K, h', w')``, (h, w) of the served map, and the target."""

    image: int
    logits: Tensor
    size: Size
    target: Tensor


@torch.no_grad()
def run_candidate(candidate: Candidate, data: FolderData, images: Sequence[int]) -> Iterator[ServedLogits]:
    """Runs a candidate on validation images one by one: in batches, rounding would differ from that of ``evaluate``."""
    network: DenseModel = candidate.network()
    member = candidate.member(network).eval()
    for number, (image, target, _) in zip(images, images_with_targets(data, "val", images), strict=True):
        yield ServedLogits(number, member.coarse(image)[0].float(), network.map_size(image), target)


def _at(pixels: SampledPixels, coarse: Tensor, size: Size, target: Tensor, task: Task) -> Tensor:
    """What :class:`SampledMaps` keeps of an image."""
    logits = resize_maps(coarse[None], size)
    if task.has_temperature:
        return logits[0].flatten(1)[:, pixels.places]
    maps = resize_to_target(task.activation(logits), target, task)
    return maps[0].flatten(1)[:, pixels.target][..., None]
