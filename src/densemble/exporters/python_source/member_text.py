"""Text of a member: its backbone, its head written out layer by layer, its sizes and its normalization."""

import re
from typing import Any

import torch
from torch import nn

from densemble.errors import UsageError
from densemble.exporters.python_source.code import call, numbers, quoted
from densemble.nets import backbones
from densemble.nets.dense import DenseModel
from densemble.nets.heads.aspp import SpatialPyramid
from densemble.nets.heads.deconv import DeconvStep
from densemble.nets.heads.fpn import PyramidHead
from densemble.nets.heads.layers import ResizeStep
from densemble.nets.heads.ppm import PoolingPyramid
from densemble.nets.heads.skip import SkipHead
from densemble.nets.heads.step_head import StepHead
from densemble.nets.heads.subpixel import SubpixelStep
from densemble.nets.node_names import short_names
from densemble.nets.stages import stage_names
from densemble.nets.trunks import GraphBackbone

INDENT = 12
"""Columns before the arguments of a member's ``super().__init__``."""
_STEPS: dict[type[nn.Module], str] = {
    ResizeStep: "ResizeStep",
    DeconvStep: "deconv_step",
    SubpixelStep: "subpixel_step",
}
_PYRAMIDS: dict[type[nn.Module], str] = {SpatialPyramid: "SpatialPyramid", PoolingPyramid: "PoolingPyramid"}


def refused(reason: str) -> UsageError:
    """Return the error for a part of an ensemble that is not written as Python code."""
    return UsageError(f"{reason}; export to another format, such as onnx, or assemble without it")


def backbone_text(name: str, model: DenseModel) -> str:
    """Return the code that makes the backbone of a member, with the tensor names of :attr:`DenseModel.backbone`.

    Raises:
        UsageError: the backbone cannot be written.
    """
    spec, network = model.spec, _network_text(name, model)
    layout, *others = dict.fromkeys(spec.layouts)
    if others or layout not in ("NCHW", "NHWC"):
        raise refused(f"member '{name}' reads its feature maps from tokens ({', '.join(spec.layouts)})")
    if spec.kind == "outputs":
        raise refused(f"member '{name}' takes maps that {spec.backbone} returns itself, which is not written")
    nodes = (spec.node, *spec.skip_nodes)
    classifier = backbones.build_classifier(spec.backbone, "meta", spec.in_channels)
    if spec.kind == "stages":
        return _stages_text(name, model, network, classifier)
    timm = spec.backbone.startswith("timm/")
    short = short_names(classifier, nodes)
    numbered = [re.fullmatch(r"features\.(\d+)", node) for node in short]
    if not timm and layout == "NCHW" and all(numbered) and isinstance(classifier.features, nn.Sequential):
        return _layers_text(network, classifier.features, [int(match[1]) for match in numbered if match])
    if _overwritten(model):
        network = f"not_in_place({network})"
    function = {"NCHW": "TimmNodes" if timm else "Nodes", "NHWC": "ChannelsLastNodes"}[layout]
    if timm and layout == "NHWC":
        raise refused(f"member '{name}' is a timm network with channels last, which is not written")
    return call(function, [network, *map(quoted, short)], INDENT, used=len("backbone=,"))


def _network_text(name: str, model: DenseModel) -> str:
    """Return the call that makes the classifier, changed for the channels of the images."""
    spec = model.spec
    if not backbones.is_published(spec.backbone):
        raise refused(f"member '{name}' is made by {spec.backbone}, and the file cannot contain code of the user")
    if model.backbone.adapter is not None:
        raise refused(f"member '{name}' projects its images to three channels, which is not written")
    if spec.backbone.startswith("timm/"):
        architecture = spec.backbone.removeprefix("timm/")
        options = [f"{key}={value}" for key, value in backbones.timm_options(architecture).items()]
        text = f"timm.create_model({', '.join([quoted(architecture), *options])})"
    elif spec.backbone == "resdeconv":
        text = "ResidualNetwork()"
    elif spec.backbone in backbones.OWN or hasattr(model.backbone.network, "forward_intermediates"):
        raise refused(f"member '{name}' has the backbone {spec.backbone} of densemble, which is not written")
    elif spec.backbone in backbones.PORTED:
        text = f"models.{spec.backbone}(transform_input={spec.in_channels == 3}, init_weights=False)"
    else:
        text = f"models.{spec.backbone}()"
    for stem in spec.stem:
        text = f"widened({text}, {quoted(stem)}, {spec.in_channels})"
    return text


def _layers_text(network: str, features: nn.Sequential, layers: list[int]) -> str:
    """Return the code of a backbone that is the first layers of a sequential network."""
    overwritten = any(getattr(layer, "inplace", False) for layer in (features[n + 1] for n in layers[1:]))
    text = f"not_in_place({network}.features)" if overwritten else f"{network}.features"
    return call("Layers", [text, *map(str, layers)], INDENT, used=len("backbone=,"))


def _overwritten(model: DenseModel) -> bool:
    """Whether the network changes a returned map in place afterwards, so that densemble returns a copy."""
    assert isinstance(model.backbone, GraphBackbone)
    return any(node.target is torch.clone for node in model.backbone.network.graph.nodes)


def _stages_text(name: str, model: DenseModel, network: str, classifier: nn.Module) -> str:
    """Return the code of a backbone that returns stages of timm's feature interface."""
    known = stage_names(classifier)
    indices = [known.index(node) for node in (model.spec.node, *model.spec.skip_nodes)]
    if indices != sorted(set(indices), reverse=True):
        raise refused(f"member '{name}' reads its stages in another order than {model.spec.backbone} makes them")
    if set(model.spec.layouts) != {"NCHW"}:
        raise refused(f"member '{name}' has stages with channels last, which is not written")
    kept = dict(model.backbone.network.named_modules())
    removed = [
        path for path, module in classifier.named_modules()
        if isinstance(kept.get(path), nn.Identity) and not isinstance(module, nn.Identity)
    ]  # fmt: skip
    if removed:
        text = call("without_modules", [network, *map(quoted, removed)], INDENT + 4, used=1)
        return call("Stages", [text, *map(str, indices)], INDENT, used=len("backbone=,"))
    return call("Stages", [network, *map(str, indices)], INDENT, used=len("backbone=,"))


def head_text(name: str, model: DenseModel) -> str:
    """Return the code that makes the head of a member, with the tensor names of :attr:`DenseModel.head`.

    Raises:
        UsageError: the head cannot be written.
    """
    head, channels = model.head, numbers((model.spec.channels, *model.spec.skip_channels))
    if isinstance(head, PyramidHead):
        arguments = {"channels": channels, "grow": _steps_text(name, model, head.grow)}
        return _head_call("PyramidHead", arguments, head.logits)
    if isinstance(head, SkipHead):
        widths = numbers([head.first[0].out_channels, *(step[0].out_channels for step in head.steps)])  # type: ignore[index]
        arguments = {"channels": channels, "widths": widths, "grow": _steps_text(name, model, head.grow)}
        return _head_call("SkipHead", arguments, head.logits)
    if isinstance(head, StepHead):
        first: Any = head.first
        kind = _PYRAMIDS.get(type(first))
        width = (first.joined if kind else first)[0].out_channels
        plain = f"conv_bn_relu(nn.Conv2d({model.spec.channels}, {width}, 3, padding=1, bias=False))"
        arguments = {
            "first": f"{kind}({model.spec.channels}, {width})" if kind else plain,
            "steps": _steps_text(name, model, head.steps),
        }
        resizing = all(isinstance(step, ResizeStep) for step in head.steps)
        return _head_call("StepHead" if resizing else "DoublingHead", arguments, head.logits)
    detail = " because it needs segmentation-models-pytorch" if model.spec.head.startswith("smp-") else ""
    raise refused(f"the head '{model.spec.head}' of member '{name}' is not written{detail}")


def _head_call(function: str, arguments: dict[str, str], logits: nn.Module) -> str:
    assert isinstance(logits, nn.Conv2d)
    arguments = {**arguments, "logits": f"nn.Conv2d({logits.in_channels}, {logits.out_channels}, 1)"}
    return call(function, [f"{key}={value}" for key, value in arguments.items()], INDENT, used=len("head=,"))


def _steps_text(name: str, model: DenseModel, steps: nn.ModuleList) -> str:
    """Return the list of the doubling steps of a head."""
    texts = []
    for step in steps:
        if type(step) not in _STEPS:
            raise refused(f"the head '{model.spec.head}' of member '{name}' has unknown steps")
        widths = [layer for layer in step.modules() if isinstance(layer, nn.BatchNorm2d)]
        convolution: Any = step[0]  # type: ignore[index]
        texts.append(f"{_STEPS[type(step)]}({convolution.in_channels}, {widths[-1].num_features})")
    return call("[", texts, INDENT + 4, used=len("steps=,"))
