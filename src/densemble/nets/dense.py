"""DenseModel: normalization + cut backbone + head, the network of one member."""

import copy
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets import backbones as door
from densemble.nets.automatic_cut import Limits, choose
from densemble.nets.axis_order import Layout
from densemble.nets.channels import adapt, projection, widen
from densemble.nets.cut import Cut, Kind
from densemble.nets.cuts import REFERENCE_SIZE, SAME_LEVEL, levels, measured
from densemble.nets.heads import HEADS, require_head
from densemble.nets.heads.head import DenseHead
from densemble.nets.local_weights import HUB
from densemble.nets.measure_cuts import Measured
from densemble.nets.network_arguments import (
    channel_values,
    count_of,
    limit_of,
    require_channels,
    require_network,
    size_of,
    unwrapped,
    weights_name,
)
from densemble.nets.sizes import InputRule, with_smallest
from densemble.nets.truncate import truncate
from densemble.shapes import Size, format_size

DEFAULT_HEAD = "fpn"

_RULES: dict[tuple[object, ...], InputRule] = {}
"""Input rules that were found by trying, by backbone, nodes and channels."""


def default_head(backbone: str) -> str:
    """The head that a backbone gets where none is named."""
    return str(getattr(door.OWN.get(backbone), "default_head", DEFAULT_HEAD))


@dataclass(frozen=True)
class DenseSpec:
    """All that is needed to build the same network again, without its weights; plain values only.

    Attributes:
        backbone: name.
        node, channels: of the cut.
        head: row of ``HEADS``.
        doublings: how often the head doubles the map, for a head with skips the largest one.
        out_channels, out_size: of the logits; ``None``: the input's own size.
        input_size: images are resized to it; ``None``: to the nearest size that the backbone takes.
        mean, std: normalization, one value per channel.
        skip_nodes, skip_channels: of the earlier maps, deepest first, for a head with skips.
        kind: where nodes are looked for: in the traced ``graph``, among the network's own ``stages``, or in the
            ``outputs`` that it returns.
        layouts: axes of each node, the cut's first.
        in_channels: of the images.
        own_channels: of the images that the backbone takes by itself.
        stem: the first convolutions that were widened for them; empty where a projection to RGB was put before.
        multiple, smallest, fixed: sizes that the backbone takes, see :class:`InputRule`.
    """

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
    skip_nodes: tuple[str, ...] = ()
    skip_channels: tuple[int, ...] = ()
    kind: Kind = "graph"
    layouts: tuple[Layout, ...] = ("NCHW",)
    in_channels: int = 3
    own_channels: int = 3
    stem: tuple[str, ...] = ()
    multiple: int = 1
    smallest: int = 1
    fixed: Size | None = None

    def of_maps(self, chain: Sequence[Cut], known: Measured) -> "DenseSpec":
        """The spec with the maps that the head sees, deepest first, and what the backbone takes."""
        skips = chain[1:]
        return replace(
            self.with_rule(known.rule),
            skip_nodes=tuple(level.graph_node for level in skips),
            skip_channels=tuple(level.channels for level in skips),
            kind=chain[0].kind,
            layouts=tuple(level.layout for level in chain),
            own_channels=known.channels,
        )

    def with_rule(self, rule: InputRule) -> "DenseSpec":
        """The spec with another rule of sizes."""
        return replace(self, multiple=rule.multiple, smallest=rule.smallest, fixed=rule.fixed)

    @property
    def rule(self) -> InputRule:
        """Sizes that the backbone takes."""
        return InputRule(self.multiple, self.smallest, self.fixed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DenseSpec":
        """The inverse of :meth:`as_dict`, lists from JSON turned back into tuples."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


class DenseModel(nn.Module):
    """A dense predictor made from a classifier: images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``.

    Images of any size from 1x1 up are taken: those that the backbone cannot take are resized to the nearest size
    that it can (``model.spec.rule``).

    Args:
        backbone: a name (see :func:`densemble.backbones`), ``package.module:function`` that returns a classifier, or
            a classifier itself, whose own weights are kept.
        out_channels: K.
        out_size: (h, w) of the map, default (48, 64); ``None``: the input's own H x W. Sizes may be text: ``48x64``.
        cut: a node, or ``"auto"``: the deepest place that ``min_size``, ``max_stride`` and ``max_macs`` permit,
            without them the deepest with a stride of at most 32 where the head sees several maps, else 16;
            ``model.cut.why`` says how it was chosen.
        head: row of :data:`HEADS`; default ``fpn``, for ``resdeconv`` ``deconv``.
        weights: ``"DEFAULT"``, torchvision weights or their name, a timm tag, an ``hf-hub:`` id, a local file, or
            ``None``.
        input_size: images are resized to this (H, W) first; ``None``: they are taken as they are.
        min_size: smallest (H, W) permitted at the cut.
        max_stride: most input pixels per feature pixel at an automatic cut.
        max_macs: most multiply-accumulates up to an automatic cut, for one image.
        in_channels: C; for other than three the pretrained first convolution is adapted, see ``model.spec.stem``.
        weights_dir: folder looked into before any download.
        allow_partial: take weights that cover less than 90 % of the tensors up to the cut, or hold others.
        mean, std: normalization, one value per channel; default that of the weights; a warning says which
            one is taken where it is not known (``model.assumed``).

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
        weights: str | Path | Enum | None = "DEFAULT",
        input_size: Size | None = None,
        min_size: Size | None = None,
        max_stride: float | None = None,
        max_macs: float | None = None,
        in_channels: int = 3,
        weights_dir: str | Path | None = None,
        allow_partial: bool = False,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
    ) -> None:
        super().__init__()
        require_network(backbone)
        in_channels, out_channels = count_of("in_channels", in_channels), count_of("out_channels", out_channels)
        out_size, input_size = size_of("out_size", out_size), size_of("input_size", input_size)
        asked = Limits(
            size_of("min_size", min_size), limit_of("max_stride", max_stride), limit_of("max_macs", max_macs)
        )
        described = weights = weights_name(weights)
        if isinstance(backbone, str):
            described = backbone if backbone.startswith(HUB) else weights
            backbone, weights = door.resolve(backbone, weights)
            name = backbone
        else:
            backbone = unwrapped(backbone)
            name = f"module:{type(backbone).__qualname__}"
        head = head or default_head(name)
        require_head(head)
        size = input_size or REFERENCE_SIZE
        known = measured(backbone, size, in_channels)
        require_channels(name, known.channels, in_channels)
        self.cut: Cut = choose(known.cuts, cut, asked.for_head(head, size, out_size), name)
        chain = levels(known.cuts, self.cut, out_size or size) if HEADS[head].multi_level else [self.cut]
        device = str(torch.get_default_device())
        classifier = door.build_classifier(backbone, device, in_channels) if isinstance(backbone, str) else backbone
        own = door.normalization(name, in_channels, described, classifier)
        self.spec = DenseSpec(
            backbone=name,
            node=self.cut.graph_node,
            channels=self.cut.channels,
            head=head,
            doublings=_doublings(chain[-1].size, out_size, size),
            out_channels=out_channels,
            out_size=out_size,
            input_size=input_size,
            mean=channel_values("mean", mean, in_channels, own.mean),
            std=channel_values("std", std, in_channels, own.std),
            in_channels=in_channels,
        ).of_maps(chain, known)
        if not isinstance(backbone, str) and self.cut.kind != "graph":
            classifier = copy.deepcopy(classifier)  # taken apart below, and it is the user's
        self._assemble(classifier)
        self.loaded = "the module's own weights"
        if isinstance(backbone, str):
            self.loaded = door.load_weights(self.backbone.network, name, weights, weights_dir, allow_partial)
        self.assumed = own.notice if mean is None or std is None else ""
        if self.assumed and not name.startswith("module:") and not door.is_user_function(name):
            warnings.warn(self.assumed, stacklevel=2)
        self._take_channels()
        self.spec = self.spec.with_rule(self._rule_to_cut(known.rule))

    def _assemble(self, classifier: nn.Module) -> None:
        spec = self.spec
        require_head(spec.head)
        runs_at = spec.rule.nearest(spec.input_size or REFERENCE_SIZE)
        nodes = (spec.node, *spec.skip_nodes)
        self.backbone = truncate(classifier, spec.kind, nodes, spec.layouts, runs_at, spec.own_channels)
        channels = (spec.channels, *spec.skip_channels)
        self.head: DenseHead = HEADS[spec.head].make(channels, spec.out_channels, spec.doublings)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1))

    def _take_channels(self) -> None:
        """Makes the backbone, whose weights are loaded, take images of other channels than its own."""
        channels = self.spec.in_channels
        if channels == self.spec.own_channels:
            return
        self.backbone.eval()
        stem = adapt(
            self.backbone.network, channels, lambda: self._runs_at(self.spec.rule.nearest(self.cut.input_size))
        )
        self.backbone.train()
        if not stem:
            self.backbone.adapter = projection(channels)
        self.spec = replace(self.spec, stem=stem)

    def _rule_to_cut(self, rule: InputRule) -> InputRule:
        """The classifier's rule with the smallest size at which the backbone, which ends earlier, gives a map.

        It depends on the architecture alone, so it is searched once for each named backbone and its nodes.
        """
        spec = self.spec
        named = not spec.backbone.startswith("module:") and not door.is_user_function(spec.backbone)
        key = (spec.backbone, spec.node, spec.skip_nodes, spec.in_channels, spec.stem, rule)
        found = _RULES.get(key) if named else None
        if found is None:
            was_training = self.backbone.training
            self.backbone.eval()  # once: to change the mode compiles the graph anew
            found = with_smallest(rule, self._runs_at)
            self.backbone.train(was_training)
        if named:
            _RULES[key] = found
        return found

    def _runs_at(self, size: Size) -> bool:
        """Whether the backbone, in eval mode, gives maps for images of a size."""
        images = torch.zeros(1, self.spec.in_channels, *size, device=self.mean.device)
        return self.backbone.gives_maps(images, (self.spec.channels, *self.spec.skip_channels))

    @classmethod
    def from_spec(cls, spec: DenseSpec, device: Literal["cpu", "meta"] = "cpu") -> "DenseModel":
        """The network of a spec with random weights (``device="meta"``: with none), in eval mode."""
        if device == "meta" and cls is DenseModel and not door.is_user_function(spec.backbone):
            return copy.deepcopy(_empty(spec))  # three to five times faster than to trace the network again
        return cls._built(spec, device)

    @classmethod
    def _built(cls, spec: DenseSpec, device: Literal["cpu", "meta"]) -> "DenseModel":
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.spec = spec
        model.loaded, model.assumed = "random weights", ""
        with torch.device(device):
            model._assemble(door.build_classifier(spec.backbone, device, spec.in_channels))
            if spec.stem:
                widen(model.backbone.network, list(spec.stem), spec.in_channels)
            elif spec.in_channels != spec.own_channels:
                model.backbone.adapter = projection(spec.in_channels)
        return model.eval()

    def seen_size(self, size: Size) -> Size:
        """(H, W) at which the backbone sees images of a size."""
        return self.spec.rule.nearest(self.spec.input_size or size)

    def resized(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] at the size at which the backbone sees them (:meth:`seen_size`).

        Raises:
            UsageError: the images have another number of channels or of axes.
        """
        spec = self.spec
        if images.ndim != 4 or images.shape[1] != spec.in_channels or 0 in images.shape:
            remedy = "add the batch axis" if images.ndim == 3 else f"give {spec.in_channels} channels first"
            if images.ndim == 4 and 0 in images.shape:
                remedy = "give at least one image, of at least one pixel"
            raise UsageError(
                f"images must be (B, {spec.in_channels}, H, W), got {tuple(images.shape)}; {remedy}"
                + (", convert to RGB" if spec.in_channels == 3 else "")
            )
        if not images.is_floating_point():
            raise UsageError(f"images must be float in [0, 1], got {images.dtype}; divide by 255")
        own_size: Size = (int(images.shape[-2]), int(images.shape[-1]))
        seen = self.seen_size(own_size)
        if own_size == seen:
            return images
        images = images if images.dtype == torch.float64 else images.float()  # no CPU resizes half precision
        return F.interpolate(images, size=seen, mode="bilinear", align_corners=False, antialias=True)

    def normalized(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] as the backbone takes them: resized and normalized.

        Raises:
            UsageError: the images have another number of channels or of axes.
        """
        return ((self.resized(images) - self.mean) / self.std).to(self.mean.dtype)

    def features(self, images: Tensor) -> list[Tensor]:
        """What the head sees: images ``(B, C, H, W)`` in [0, 1] -> maps ``(B, C', h, w)``, deepest first.

        Raises:
            UsageError: the images have another number of channels or of axes.
        """
        maps: list[Tensor] = self.backbone(self.normalized(images))
        return maps

    def grid(self, normalized: Tensor, size: Size | None = None) -> Tensor:
        """What :meth:`normalized` gives -> logits ``(B, K, h, w)`` before the head's last resize.

        Args:
            normalized: ``(B, C, H, W)``.
            size: (h, w) that is wanted in the end; ``None`` where it is no smaller than the head's own.
        """
        logits: Tensor = self.head.grid(self.backbone(normalized), size)
        return logits

    def coarse(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)`` at the head's own size, before its last resize.

        Raises:
            UsageError: the images have another number of channels or of axes.
        """
        return self.grid(self.normalized(images), self.map_size(images))

    def map_size(self, images: Tensor) -> Size:
        """(h, w) of the map of images ``(B, C, H, W)``."""
        return self.spec.out_size or (int(images.shape[-2]), int(images.shape[-1]))

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1], RGB unless ``in_channels`` says otherwise -> logits ``(B, K, h, w)``.

        Raises:
            UsageError: the images have another number of channels or of axes.
        """
        logits: Tensor = self.head(self.backbone(self.normalized(images)), self.map_size(images))
        return logits

    def extra_repr(self) -> str:
        size = "the image's own size" if self.spec.out_size is None else format_size(self.spec.out_size)
        return f"{self.spec.backbone} cut at {self.spec.node}, {self.spec.out_channels} x {size}"


def _doublings(feature_size: Size, out_size: Size | None, input_size: Size) -> int:
    """How often a head doubles the map; an output at the image's own size is refined up to a quarter of it."""
    target = out_size or (input_size[0] // 4, input_size[1] // 4)
    ratio = max(target[0] / feature_size[0], target[1] / feature_size[1]) / SAME_LEVEL
    return max(0, math.ceil(math.log2(ratio))) if ratio > 1 else 0


@lru_cache(maxsize=16)
def _empty(spec: DenseSpec) -> DenseModel:
    """The network of a spec without values; to be copied, never changed."""
    return DenseModel._built(spec, "meta")
