"""Measure all nodes of a classifier as cuts, with one run on a probe image."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature

import torch
from torch import nn

from densemble.errors import UsageError
from densemble.nets.counting import count_macs, probe
from densemble.nets.cut import Cut
from densemble.nets.leaves import settings, with_the_same_values
from densemble.nets.measure_graph import Traced, listed_nodes, measure_graph
from densemble.nets.measure_stages import measure_outputs, measure_stages, output_rule, returned_maps, stage_rule
from densemble.nets.sizes import InputRule, declared_sizes, find_rule
from densemble.nets.stages import returned, run
from densemble.shapes import Size, format_size

GRAPH_SHARE = 0.5
LARGER = (640, 1024)


@dataclass(frozen=True)
class Measured:
    """Measurements of a classifier.

    Attributes:
        cuts: every node with a feature map, in network order, including nodes inside blocks.
        rule: the sizes that it accepts.
        macs: multiply-accumulates of the whole classifier for one image of the requested size.
        parameters: number of parameters of the whole classifier.
        channels: number of channels of the images that it accepts.
    """

    cuts: tuple[Cut, ...]
    rule: InputRule
    macs: int
    parameters: int
    channels: int = 3


def measure(
    model: nn.Module, graph: "Traced | UsageError", size: Size, own_sizes: Sequence[Size], in_channels: int = 3
) -> Measured:
    """Measure all nodes of a classifier.

    Args:
        model: the classifier in eval mode; on the meta device nothing is computed.
        graph: its traced graph, or the reason why it has none.
        size: (H, W) of the input; the nearest accepted size is used.
        own_sizes: sizes that the network may be designed for, tried if no small multiple works.
        in_channels: number of channels of the images; if the network does not run on them, it is measured on RGB
            images, or on images with the input channels of its first convolution.

    Raises:
        UsageError: the network does not run on an image and cannot be traced.
    """
    device = next((str(p.device) for p in model.parameters()), "cpu")
    accepted, channels = _accepted_inputs(model, own_sizes, device, in_channels)
    rule = accepted or InputRule()
    actual = rule.nearest(size)
    parameters = sum(p.numel() for p in model.parameters())
    cuts: list[Cut] = []
    macs, failure = 0, ""
    if not isinstance(graph, UsageError):
        cuts, macs, failure = measure_graph(graph, actual, device, channels)
    runs = accepted is not None and _failure(model, actual, device, channels) is None
    maps = returned_maps(model, probe(actual, device, channels)) if runs else {}
    if maps:
        if sorted(cut.channels for cut in cuts if cut.listed) == sorted(m.channels for m in maps.values()):
            return Measured(tuple(cuts), rule, macs, parameters, channels)
        rule = output_rule(model, maps, own_sizes or declared_sizes(model), size, device, channels)
        actual = rule.nearest(size)
        outputs = measure_outputs(model, maps, actual, device, channels)
        return Measured(tuple(outputs), rule, outputs[0].macs, parameters, channels)
    listed = not isinstance(graph, UsageError) and bool(listed_nodes(graph.module.graph))
    # If the network has maps after the operation that fails, the maps before it are no substitute.
    later_maps = hasattr(model, "forward_intermediates") or (bool(failure) and listed)
    if accepted is None and not own_sizes and (not cuts or later_maps):
        raise UsageError(_failure_message(model, size, device, channels))
    reach = max((cut.macs for cut in cuts if cut.separates), default=0)
    if (not macs or reach < GRAPH_SHARE * macs) and hasattr(model, "forward_intermediates"):
        # The graph of a transformer has no map after the patch embedding; its stages do.
        rule = stage_rule(model, own_sizes or [actual], device) or rule
        actual = rule.nearest(size)
        macs = count_macs(model, actual, device)
        return Measured(tuple(measure_stages(model, actual, device)), rule, macs, parameters)
    if not runs and (not cuts or (failure and listed)):
        raise UsageError(_failure_message(model, size, device, channels))
    if isinstance(graph, UsageError):
        shapes = [f"{path} {tuple(t.shape)}" for path, t in returned(model, probe(actual, device, channels)).items()]
        raise UsageError(f"{graph}; it returns {', '.join(shapes)}, but no feature map" if shapes else str(graph))
    return Measured(tuple(cuts), rule, macs, parameters, channels)


def _accepted_inputs(
    model: nn.Module, own_sizes: Sequence[Size], device: str, in_channels: int
) -> tuple[InputRule | None, int]:
    """(accepted sizes, accepted channels); the sizes are ``None`` if the network runs at no size."""
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), in_channels)
    trial = _Trial(model, device)
    for channels in dict.fromkeys((in_channels, 3, first)):
        rule = find_rule(partial(trial.runs, channels), own_sizes)
        if rule is not None:
            return rule, channels
    return None, first


class _Trial:
    """A copy of a network to test sizes on, replaced if a size has changed it permanently (Swin's windows)."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model, self.device = model, device
        self.network, self.before = with_the_same_values(model), settings(model)

    def runs(self, channels: int, size: Size) -> bool:
        """Whether the network runs at a size."""
        failure = _failure(self.network, size, self.device, channels)
        if settings(self.network) != self.before:
            self.network = with_the_same_values(self.model)
        return failure is None


@torch.no_grad()
def _failure(model: nn.Module, size: Size, device: str, channels: int) -> str | None:
    """The error of a network at a size; ``None`` if it runs."""
    try:
        run(model, probe(size, device, channels))
    except Exception as error:  # networks reject sizes with assertions, value errors and errors of their layers
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _failure_message(model: nn.Module, size: Size, device: str, channels: int) -> str:
    """Message for a network that runs on no image: the cause and the remedy."""
    name = type(model).__name__
    try:
        signature(model.forward).bind(None)
    except TypeError as error:
        return (
            f"{name} does not run on an image alone ({error} in its forward); pass a module that adds the other "
            f"arguments, such as class Wrapped(nn.Module) whose forward(self, x) returns self.network(x, ...)"
        )
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if dtypes:
        return f"the parameters of {name} are {', '.join(map(str, dtypes))}; pass {name}.float()"
    larger = next((side for side in LARGER if _failure(model, (side, side), device, channels) is None), None)
    failure = _failure(model, size, device, channels)
    problem = f"{name} does not run on a {channels}-channel image of {format_size(size)} ({failure})"
    if larger is not None:
        return f"{problem}, but it runs at {format_size((larger, larger))}; set input_size to such a size"
    return (
        f"{problem}; it must accept float tensors (B, {channels}, H, W): try it on torch.zeros(2, {channels}, 224, 224)"
    )
