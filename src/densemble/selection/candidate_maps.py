"""Evidence: predictions of the candidates of a run on held-out images: small maps, sampled pixels, and served maps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from densemble.data.folder import FolderData
from densemble.ensemble.resize import resize_maps, resize_to_target
from densemble.evaluation.scores import Target, images_with_targets
from densemble.nets.dense import DenseModel
from densemble.progress.phases import track
from densemble.selection.held_out_predictions import HeldOut
from densemble.selection.held_out_targets import full_size_targets
from densemble.selection.map_sources import MAX_PIXELS, Maps, SampledMaps, SampledPixels, ServedMaps, sample_pixels
from densemble.selection.variants import Candidate
from densemble.shapes import Size
from densemble.storage.tensor_file import TensorFile
from densemble.tasks import Task

MAX_VALUES = 2**25
"""Maximum number of sampled values (pixels times channels) of all images together; fits keep them in memory."""
MIN_PIXELS = 256
"""Minimum number of pixels that are sampled from one image."""


@dataclass(frozen=True)
class Evidence:
    """Predictions of the same candidates on the same images, in three forms.

    Attributes:
        kept: small maps that the training stored; members and weights are selected on them.
        sampled: served maps at a random sample of the target's pixels; temperatures, rule and calibration are fitted
            on them.
        served: whole served maps, with targets at full size; all reported scores are measured on them, and guarantees
            are fitted and checked on them.
        scratch: folder for temporary files.
    """

    kept: HeldOut
    sampled: HeldOut
    served: HeldOut
    scratch: Path

    @property
    def pixelwise(self) -> bool:
        """Whether metrics are sums over pixels, so that a sample of pixels is enough to compare rules."""
        return self.served.task.target_kind in ("labels", "masks", "values")

    @property
    def known(self) -> list[int]:
        """Images with at least one known pixel in the target."""
        return [image for image in self.sampled.images if self.sampled.targets[image][0].numel()]

    def only(self, images: Sequence[int]) -> "Evidence":
        """Return the same candidates on some of the images."""
        return replace(
            self, kept=self.kept.only(images), sampled=self.sampled.only(images), served=self.served.only(images)
        )


def sampled_pixels(channels: int, images: int) -> int:
    """Return the maximum number of sampled pixels per image for maps with ``channels`` channels."""
    return min(MAX_PIXELS, max(MAX_VALUES // (channels * max(images, 1)), MIN_PIXELS))


def gather(kept: HeldOut, candidates: Sequence[Candidate], data: FolderData, scratch: Path) -> Evidence:
    """Run the candidates on the images of ``kept`` and store their logits and a sample of pixels on disk.

    Args:
        kept: small maps of the candidates, in the same order.
        candidates: candidates to run; one network at a time is in memory.
        data: images and targets.
        scratch: folder for the files: for each candidate, float32 logits at the size of its head's output, and the
            sampled pixels.
    """
    images = kept.images
    max_pixels = sampled_pixels(kept.task.out_channels, len(images))
    sizes: dict[int, Size] = {}
    pixels: dict[int, SampledPixels] = {}
    targets: dict[int, Target] = {}
    served, sampled = list[Maps](), list[Maps]()
    for number, candidate in enumerate(_counted(candidates)):
        logits, values = TensorFile(scratch / f"{number}-logits.bin"), TensorFile(scratch / f"{number}-pixels.bin")
        for image, coarse, size, target in track(run_candidate(candidate, data, images), "", len(images)):
            if image not in pixels:
                sizes[image] = size
                pixels[image] = sample_pixels(kept.task.as_maps(target)[1].any(0), size, image, max_pixels)
                targets[image] = pixels[image].of_target(target), None
            logits.append(image, coarse)
            values.append(image, _sampled_values(pixels[image], coarse, size, target, kept.task))
        served.append(ServedMaps(logits, sizes, kept.task))
        sampled.append(SampledMaps(values, pixels, kept.task))
    return Evidence(
        kept,
        replace(kept, maps=tuple(sampled), targets=targets),
        replace(kept, maps=tuple(served), targets=full_size_targets(data, "val")),
        scratch,
    )


def _counted(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Yield candidates, and show which of them is run, as ``member 1/2``."""
    only_members = all(candidate.kind == "member" for candidate in candidates)
    return track(candidates, "member" if only_members else "candidate", len(candidates), steps=True)


class ServedLogits(NamedTuple):
    """Output of a candidate for one image.

    Attributes:
        image: index of the image.
        logits: logits ``(K, h', w')`` at the size of the head's output.
        size: (h, w) of the served map.
        target: target of the image.
    """

    image: int
    logits: Tensor
    size: Size
    target: Tensor


@torch.no_grad()
def run_candidate(candidate: Candidate, data: FolderData, images: Sequence[int]) -> Iterator[ServedLogits]:
    """Run a candidate on validation images one by one; batches would round differently than ``evaluate``."""
    network: DenseModel = candidate.network()
    member = candidate.member(network).eval()
    for index, (image, target, _) in zip(images, images_with_targets(data, "val", images), strict=True):
        yield ServedLogits(index, member.coarse(image)[0].float(), network.map_size(image), target)


def _sampled_values(pixels: SampledPixels, coarse: Tensor, size: Size, target: Tensor, task: Task) -> Tensor:
    """Return the values of one image that :class:`SampledMaps` stores."""
    logits = resize_maps(coarse[None], size)
    if task.has_temperature:
        return logits[0].flatten(1)[:, pixels.sources]
    maps = resize_to_target(task.activation(logits), target, task)
    return maps[0].flatten(1)[:, pixels.target][..., None]
