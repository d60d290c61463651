"""DenseModel: normalization + cut backbone + head, the network of one member."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets import backbones as door
from densemble.nets.cuts import REFERENCE_SIZE, Cut, all_nodes, choose
from densemble.nets.heads import HEADS
from densemble.shapes import Size, format_size

DEFAULT_HEADS = {"resdeconv": "deconv"}


@dataclass(frozen=True)
class DenseSpec:
    """All that is needed to build the same network again, without its weights; plain values only."""

    backbone: str
    node: str
    channels: int
    head: str
    doublings: int
    out_channels: int
    out_size: Size | None
    input_size: Size | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DenseSpec":
        """The inverse of :meth:`as_dict`, lists from JSON turned back into tuples."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


class CutBackbone(nn.Module):
    """A backbone up to its cut: ``(B, 3, H, W)`` -> feature map ``(B, C, H', W')``."""

    def __init__(self, network: nn.Module, node: str) -> None:
        super().__init__()
        self.network = network
        self.node = node

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(x)[self.node]
        return features


class DenseModel(nn.Module):
    """A classifier turned into a dense predictor: images ``(B, 3, H, W)`` RGB in [0, 1] -> logits ``(B, K, h, w)``.

    Args:
        backbone: ``alexnet`` (torchvision), ``timm/NAME``, ``resdeconv``, or a module that takes ``(B, 3, H, W)``.
        out_channels: K.
        out_size: (h, w) of the map; ``None``: the image's own size.
        cut: node where the backbone ends, or ``"auto"``: the deepest whose map is at least ``min_size``.
        head: a name of ``HEADS``; ``None``: ``deconv`` for ``resdeconv``, else ``upsample``.
        weights: ``"DEFAULT"``, a torchvision weights name, a timm tag, a local file, or ``None`` for random weights.
        input_size: (H, W) that images are resized to first; ``None``: images are taken as they are, and the cut
            is measured at 240x320.
        min_size: smallest feature map permitted at the cut, (H, W); default half of ``out_size``, or an eighth
            of the input where ``out_size`` is ``None``.
        weights_dir: folder looked into before any download.
        mean, std: normalization; default that of the backbone's pretrained weights.

    Raises:
        UsageError: unknown backbone or head.
        CutError: a cut that does not exist or is too small.
        WeightsError: weights that are absent or do not fit.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: str | nn.Module,
        *,
        out_channels: int = 1,
        out_size: Size | None = (48, 64),
        cut: str = "auto",
        head: str | None = None,
        weights: str | Path | None = "DEFAULT",
        input_size: Size | None = None,
        min_size: Size | None = None,
        weights_dir: str | Path | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        name = backbone if isinstance(backbone, str) else f"module:{type(backbone).__qualname__}"
        if isinstance(backbone, str):
            door.require_name(backbone)
        size = input_size or REFERENCE_SIZE
        least, wanted = smallest_feature_map(size, out_size, min_size)
        found = choose(all_nodes(backbone, size), cut, least, name, wanted)
        own = door.normalization(name) if isinstance(backbone, str) else door.Normalization()
        self.cut: Cut = found
        self.spec = DenseSpec(
            backbone=name,
            node=found.graph_node,
            channels=found.channels,
            head=head or DEFAULT_HEADS.get(name, "upsample"),
            doublings=_doublings(found.size, out_size, size),
            out_channels=out_channels,
            out_size=out_size,
            input_size=input_size,
            mean=mean or own.mean,
            std=std or own.std,
        )
        classifier = door.build_classifier(backbone) if isinstance(backbone, str) else backbone
        self._assemble(classifier)
        self.loaded = "the module's own weights"
        if isinstance(backbone, str):
            self.loaded = door.load_weights(self.backbone.network, name, weights, weights_dir)

    def _assemble(self, classifier: nn.Module) -> None:
        spec = self.spec
        if spec.head not in HEADS:
            raise UsageError(f"no head is named '{spec.head}'; there are: {', '.join(HEADS)}")
        self.backbone = CutBackbone(door.truncate(classifier, spec.node), spec.node)
        self.head = HEADS[spec.head](spec.channels, spec.out_channels, spec.doublings)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1))

    @classmethod
    def from_spec(cls, spec: DenseSpec, device: Literal["cpu", "meta"] = "cpu") -> "DenseModel":
        """The network of a spec with random weights (``device="meta"``: with none), in eval mode."""
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.spec = spec
        model.loaded = "random weights"
        with torch.device(device):
            model._assemble(door.build_classifier(spec.backbone, device))
        return model.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 3, H, W)`` RGB in [0, 1] -> logits ``(B, K, h, w)``.

        Raises:
            UsageError: the images have another number of channels or of axes.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise UsageError(
                f"images must be (B, 3, H, W), got {tuple(images.shape)}; add the batch axis, convert to RGB"
            )
        spec = self.spec
        own_size: Size = (int(images.shape[-2]), int(images.shape[-1]))
        if spec.input_size is not None and own_size != spec.input_size:
            images = F.interpolate(images, size=spec.input_size, mode="bilinear", align_corners=False, antialias=True)
        features = self.backbone((images - self.mean) / self.std)
        logits: Tensor = self.head(features, spec.out_size or own_size)
        return logits

    def extra_repr(self) -> str:
        size = "own" if self.spec.out_size is None else format_size(self.spec.out_size)
        return f"{self.spec.backbone} cut at {self.spec.node}, {self.spec.out_channels} x {size}"


def smallest_feature_map(size: Size, out_size: Size | None, min_size: Size | None) -> tuple[Size, str]:
    """Smallest permitted feature map, and in words where that comes from."""
    if min_size is not None:
        return min_size, f"min_size {format_size(min_size)}"
    if out_size is None:
        return (max(size[0] // 8, 1), max(size[1] // 8, 1)), f"an eighth of the {format_size(size)} input"
    return (-(-out_size[0] // 2), -(-out_size[1] // 2)), f"half of the {format_size(out_size)} output"


def _doublings(feature_size: Size, out_size: Size | None, input_size: Size) -> int:
    """How often a head doubles the map; an output at the image's own size is refined up to a quarter of it."""
    target = out_size or (input_size[0] // 4, input_size[1] // 4)
    ratio = max(target[0] / feature_size[0], target[1] / feature_size[1])
    return max(0, math.ceil(math.log2(ratio) - 1e-9)) if ratio > 1 else 0
