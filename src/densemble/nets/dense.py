"""DenseModel: normalization, truncated backbone and head; the network of one member."""

import copy
import math
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets import backbones
from densemble.nets.automatic_cut import choose
from densemble.nets.axis_order import Layout
from densemble.nets.channels import adapt, projection, widen
from densemble.nets.cut import Cut, Kind
from densemble.nets.cuts import REFERENCE_SIZE, SAME_LEVEL, levels, measured
from densemble.nets.heads import head_row
from densemble.nets.heads.head import DenseHead, Head
from densemble.nets.heads.user_head import MakeModule
from densemble.nets.local_weights import HUB
from densemble.nets.measure_cuts import Measured
from densemble.nets.network_arguments import (
    channel_values,
    count_argument,
    limit_arguments,
    require_channels,
    require_network,
    size_argument,
    unwrapped,
    weights_name,
)
from densemble.nets.resizing import resize_exactly
from densemble.nets.sizes import InputRule, with_smallest
from densemble.nets.truncate import truncate
from densemble.shapes import Size, format_size, is_size, size_of
from densemble.user_code import is_user_function, name_of

DEFAULT_HEAD = "fpn"

_RULES: dict[tuple[object, ...], InputRule] = {}
"""Measured input rules by backbone, nodes and channels."""


def default_head(backbone: str) -> str:
    """Head of a backbone if the user names none."""
    return str(getattr(backbones.OWN.get(backbone), "default_head", DEFAULT_HEAD))


@dataclass(frozen=True)
class DenseSpec:
    """Description of a :class:`DenseModel` from which it can be built again, without weights; plain values only.

    Attributes:
        backbone: name.
        node, channels: node of the cut and its number of channels.
        head: row of ``HEADS``, or ``module:NAME`` of a class or function of the user.
        doublings: how often the head doubles its largest feature map.
        out_channels, out_size: number of channels and (h, w) of the logits; ``None``: the size of the image.
        input_size: images are resized to this (H, W); ``None``: to the nearest size that the backbone accepts.
        mean, std: normalization, one value per channel.
        skip_nodes, skip_channels: nodes and channels of the earlier maps, deepest first, for a multi-level head.
        kind: where the nodes are: in the traced ``graph``, among the ``stages`` of the network, or in the
            ``outputs`` that it returns.
        layouts: order of the axes at each node, the cut first.
        in_channels: number of channels of the images.
        own_channels: number of channels that the backbone accepts without an adaptation.
        stem: first convolutions that were widened to ``in_channels``; empty if a projection to RGB precedes the
            backbone instead.
        multiple, smallest, fixed: sizes that the backbone accepts, see :class:`InputRule`.
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

    def with_rule(self, rule: InputRule) -> "DenseSpec":
        """A copy with another rule of accepted sizes."""
        return replace(self, multiple=rule.multiple, smallest=rule.smallest, fixed=rule.fixed)

    @property
    def rule(self) -> InputRule:
        """Sizes that the backbone accepts."""
        return InputRule(self.multiple, self.smallest, self.fixed)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DenseSpec":
        """The inverse of :meth:`as_dict`; lists from JSON become tuples."""
        plain: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**plain)


class DenseModel(nn.Module):
    """A dense predictor made from a classifier: images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``.

    The model accepts images of any size from 1x1 up. An image whose size the backbone does not accept is resized to
    the nearest accepted size (``model.spec.rule``).

    Args:
        backbone: a name (see :func:`densemble.backbones`), ``package.module:function`` that returns a classifier, or
            a classifier itself, whose weights are kept.
        out_channels: K.
        out_size: (h, w) of the map, default (48, 64); ``None``: the H x W of the image. Sizes may be text: ``48x64``.
        cut: a node, or ``"auto"``: the deepest node that ``min_size``, ``max_stride`` and ``max_macs`` permit;
            without these limits, the deepest node with a stride of at most 32 for a multi-level head and of at most
            16 for any other head. ``model.cut.why`` gives the reason.
        head: row of :data:`HEADS`; or a class or function of ``(channels, out_channels)`` that returns a module, itself
            or as ``package.module:NAME``, see :class:`UserHead`; default ``fpn``, for ``resdeconv`` ``deconv``.
        weights: ``"DEFAULT"``, torchvision weights or their name, a timm tag, an ``hf-hub:`` id, a local file, or
            ``None``.
        input_size: images are first resized to this (H, W); ``None``: they are not resized.
        min_size: smallest (H, W) permitted at the cut.
        max_stride: largest number of input pixels per feature pixel at an automatic cut.
        max_macs: largest number of multiply-accumulates per image up to an automatic cut.
        in_channels: C; if it is not 3, the pretrained first convolution is adapted, see ``model.spec.stem``.
        weights_dir: folder that is searched before any download.
        allow_partial: accept weights that cover less than 90 % of the tensors up to the cut or contain unknown tensors.
        mean, std: normalization, one value per channel; default: that of the weights. If it is not known, a warning
            names the values that are used (``model.assumed``).

    Raises:
        UsageError: unknown backbone or head.
        CutError: the cut does not exist or is too small.
        WeightsError: the weights do not exist or do not fit.
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
        head: str | MakeModule | None = None,
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
        in_channels = count_argument("in_channels", in_channels)
        out_channels = count_argument("out_channels", out_channels)
        out_size, input_size = size_argument("out_size", out_size), size_argument("input_size", input_size)
        limits = limit_arguments(min_size, max_stride, max_macs)
        backbone, name, weights, pretrained_weights = _resolve(backbone, weights_name(weights))
        head = head or default_head(name)
        size = input_size or REFERENCE_SIZE
        limits = limits.for_head(head, size, out_size)
        measurement = _measured(backbone, name, size, in_channels)
        self.cut: Cut = choose(measurement.cuts, cut, limits, name)
        chain = levels(measurement.cuts, self.cut, out_size or size) if limits.levels else [self.cut]
        classifier = _classifier(backbone, self.cut.kind, in_channels)
        expected = backbones.normalization(name, in_channels, pretrained_weights, classifier)
        self.spec = DenseSpec(
            backbone=name,
            node=self.cut.graph_node,
            channels=self.cut.channels,
            head=name_of(head, "head"),
            doublings=_doublings(chain[-1].size, out_size, size),
            out_channels=out_channels,
            out_size=out_size,
            input_size=input_size,
            mean=channel_values("mean", mean, in_channels, expected.mean),
            std=channel_values("std", std, in_channels, expected.std),
            skip_nodes=tuple(level.graph_node for level in chain[1:]),
            skip_channels=tuple(level.channels for level in chain[1:]),
            kind=self.cut.kind,
            layouts=tuple(level.layout for level in chain),
            in_channels=in_channels,
            own_channels=measurement.channels,
        ).with_rule(measurement.rule)
        self._assemble(classifier, head_row(head))
        self.loaded = "the module's own weights"
        if isinstance(backbone, str):
            self.loaded = backbones.load_weights(self.backbone.network, name, weights, weights_dir, allow_partial)
        self.assumed = "" if mean is not None and std is not None else expected.announced(backbones.is_published(name))
        self._adapt_channels()
        self.spec = self.spec.with_rule(self._rule_to_cut())

    def _assemble(self, classifier: nn.Module, head: Head) -> None:
        spec = self.spec
        runs_at = spec.rule.nearest(spec.input_size or REFERENCE_SIZE)
        nodes = (spec.node, *spec.skip_nodes)
        self.backbone = truncate(classifier, spec.kind, nodes, spec.layouts, runs_at, spec.own_channels)
        channels = (spec.channels, *spec.skip_channels)
        self.head: DenseHead = head.make(channels, spec.out_channels, spec.doublings)
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1))

    def _adapt_channels(self) -> None:
        """Make the pretrained backbone accept images of ``in_channels``."""
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

    def _rule_to_cut(self) -> InputRule:
        """The rule of the classifier with the smallest size at which the truncated backbone still gives a map.

        The result depends on the architecture only, so it is measured once per published backbone and nodes.
        """
        spec = self.spec
        published = backbones.is_published(spec.backbone)
        key = (spec.backbone, spec.node, spec.skip_nodes, spec.in_channels, spec.stem, spec.rule)
        if published and key in _RULES:
            return _RULES[key]
        was_training = self.backbone.training
        self.backbone.eval()  # once for all sizes: a change of the mode compiles the graph again
        truncated_rule = with_smallest(spec.rule, self._runs_at)
        self.backbone.train(was_training)
        if published:
            _RULES[key] = truncated_rule
        return truncated_rule

    def _runs_at(self, size: Size) -> bool:
        """Whether the backbone, in eval mode, returns the expected maps for images of a size."""
        images = torch.zeros(1, self.spec.in_channels, *size, device=self.mean.device)
        return self.backbone.gives_maps(images, (self.spec.channels, *self.spec.skip_channels))

    @classmethod
    def from_spec(cls, spec: DenseSpec, device: Literal["cpu", "meta"] = "cpu") -> "DenseModel":
        """Build the network of a spec with random weights (``device="meta"``: without weights), in eval mode."""
        has_user_code = is_user_function(spec.backbone) or is_user_function(spec.head)
        if device == "meta" and cls is DenseModel and not has_user_code:
            return copy.deepcopy(_without_weights(spec))  # three to five times faster than tracing the network again
        return cls._built(spec, device)

    @classmethod
    def _built(cls, spec: DenseSpec, device: Literal["cpu", "meta"]) -> "DenseModel":
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.spec = spec
        model.loaded, model.assumed = "random weights", ""
        with torch.device(device):
            classifier = backbones.build_classifier(spec.backbone, device, spec.in_channels)
            model._assemble(classifier, head_row(spec.head))
            if spec.stem:
                widen(model.backbone.network, list(spec.stem), spec.in_channels)
            elif spec.in_channels != spec.own_channels:
                model.backbone.adapter = projection(spec.in_channels)
        return model.eval()

    def network_size(self, size: Size) -> Size:
        """(H, W) to which images of ``size`` are resized for the backbone."""
        return self.spec.rule.nearest(self.spec.input_size or size)

    def resized(self, images: Tensor) -> Tensor:
        """Resize images ``(B, C, H, W)`` in [0, 1] to the size that the backbone gets (:meth:`network_size`).

        Raises:
            UsageError: the images have another shape or dtype.
        """
        spec = self.spec
        if images.ndim != 4 or images.shape[1] != spec.in_channels or 0 in images.shape:
            remedy = "add the batch axis" if images.ndim == 3 else f"give {spec.in_channels} channels first"
            if images.ndim == 4 and 0 in images.shape:
                remedy = "give at least one image with at least one pixel"
            raise UsageError(
                f"images must be (B, {spec.in_channels}, H, W), got {tuple(images.shape)}; {remedy}"
                + (", convert to RGB" if spec.in_channels == 3 else "")
            )
        if not images.is_floating_point():
            raise UsageError(f"images must be float in [0, 1], got {images.dtype}; divide by 255")
        size = size_of(images)
        target_size = self.network_size(size)
        if target_size is size or is_size(images, target_size):
            return images
        images = images if images.dtype == torch.float64 else images.float()  # CPUs cannot resize half precision
        return resize_exactly(images, target_size, antialias=True)

    def normalized(self, images: Tensor) -> Tensor:
        """Resize and normalize images ``(B, C, H, W)`` in [0, 1] for the backbone.

        Raises:
            UsageError: the images have another shape or dtype.
        """
        return ((self.resized(images) - self.mean) / self.std).to(self.mean.dtype)

    def features(self, images: Tensor) -> list[Tensor]:
        """Input of the head: images ``(B, C, H, W)`` in [0, 1] -> feature maps ``(B, C', h, w)``, deepest first.

        Raises:
            UsageError: the images have another shape or dtype.
        """
        maps: list[Tensor] = self.backbone(self.normalized(images))
        return maps

    def grid(self, normalized: Tensor, size: Size | None = None) -> Tensor:
        """Output of :meth:`normalized` -> logits ``(B, K, h, w)`` before the last resize of the head.

        Args:
            normalized: ``(B, C, H, W)``.
            size: (h, w) of the output; ``None`` if it is at least as large as the head's result before the resize.
        """
        logits: Tensor = self.head.grid(self.backbone(normalized), size)
        return logits

    def coarse(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)`` before the last resize of the head.

        Raises:
            UsageError: the images have another shape or dtype.
        """
        return self.grid(self.normalized(images), self.map_size(images))

    def map_size(self, images: Tensor) -> Size:
        """(h, w) of the output for images ``(B, C, H, W)``."""
        return self.spec.out_size or size_of(images)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``.

        Raises:
            UsageError: the images have another shape or dtype.
        """
        logits: Tensor = self.head(self.backbone(self.normalized(images)), self.map_size(images))
        return logits

    def extra_repr(self) -> str:
        size = "image size" if self.spec.out_size is None else format_size(self.spec.out_size)
        return f"{self.spec.backbone} cut at {self.spec.node}, {self.spec.out_channels} x {size}"


def _doublings(feature_size: Size, out_size: Size | None, input_size: Size) -> int:
    """Number of doublings of the head; for outputs of the image size, the head stops at a quarter of it."""
    target = out_size or (input_size[0] // 4, input_size[1] // 4)
    ratio = max(target[0] / feature_size[0], target[1] / feature_size[1]) / SAME_LEVEL
    return max(0, math.ceil(math.log2(ratio))) if ratio > 1 else 0


def _measured(backbone: str | nn.Module, name: str, size: Size, in_channels: int) -> Measured:
    """Measure a backbone and check that it takes images of ``in_channels``, or RGB images."""
    measurement = measured(backbone, size, in_channels)
    require_channels(name, measurement.channels, in_channels)
    return measurement


def _resolve(
    backbone: str | nn.Module, weights: str | Path | None
) -> tuple[str | nn.Module, str, str | Path | None, str | Path | None]:
    """(backbone, its name, its weights, the weights whose normalization applies), without wrappers and hub ids."""
    if not isinstance(backbone, str):
        backbone = unwrapped(backbone)
        return backbone, f"module:{type(backbone).__qualname__}", weights, weights
    name, resolved_weights = backbones.resolve(backbone, weights)
    return name, name, resolved_weights, backbone if backbone.startswith(HUB) else weights


def _classifier(backbone: str | nn.Module, kind: Kind, in_channels: int) -> nn.Module:
    """Network to truncate: a new one for a name; a copy of a user's network if truncation would change it."""
    if isinstance(backbone, str):
        return backbones.build_classifier(backbone, str(torch.get_default_device()), in_channels)
    return backbone if kind == "graph" else copy.deepcopy(backbone)


@lru_cache(maxsize=16)
def _without_weights(spec: DenseSpec) -> DenseModel:
    """The network of a spec on the meta device; callers copy it and never change it."""
    return DenseModel._built(spec, "meta")
