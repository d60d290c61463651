"""Measuring: a classifier runs once on a probe image and every place in it notes what it is worth as a cut."""

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
    """What is known of a classifier.

    Attributes:
        cuts: every node with a feature map, in the order of the network, those inside blocks included.
        rule: the sizes it takes.
        macs: multiply-accumulates of the whole classifier for one image of the size that was asked for.
        parameters: of the whole classifier.
        channels: of the images that it takes.
    """

    cuts: tuple[Cut, ...]
    rule: InputRule
    macs: int
    parameters: int
    channels: int = 3


def measure(
    model: nn.Module, graph: "Traced | UsageError", size: Size, own_sizes: Sequence[Size], in_channels: int = 3
) -> Measured:
    """Measures all places of a classifier.

    Args:
        model: the classifier, in eval mode; best on the meta device, where nothing is computed.
        graph: its traced graph, or why there is none.
        size: (H, W) of the input; the nearest permitted one is taken.
        own_sizes: sizes that it may have been made for, tried where it does not run at any size.
        in_channels: of the images that it is wanted for; where it does not run on these, it is measured on RGB, or
            on what its first convolution takes.

    Raises:
        UsageError: it neither runs on an image nor can be traced.
    """
    device = _device(model)
    found, channels = _find_channels(model, own_sizes, device, in_channels)
    rule = found or InputRule()
    actual = rule.nearest(size)
    parameters = sum(p.numel() for p in model.parameters())
    cuts: list[Cut] = []
    macs, failure = 0, ""
    if not isinstance(graph, UsageError):
        cuts, macs, failure = measure_graph(graph, actual, device, channels)
    runs = found is not None and _failure(model, actual, device, channels) is None
    maps = returned_maps(model, probe(actual, device, channels)) if runs else {}
    if maps:
        if sorted(cut.channels for cut in cuts if cut.listed) == sorted(one.channels for one in maps.values()):
            return Measured(tuple(cuts), rule, macs, parameters, channels)
        rule = output_rule(model, maps, own_sizes or declared_sizes(model), size, device, channels)
        actual = rule.nearest(size)
        outputs = measure_outputs(model, maps, actual, device, channels)
        return Measured(tuple(outputs), rule, outputs[0].macs, parameters, channels)
    if found is None and not own_sizes and (not cuts or _goes_on(model, graph, failure)):
        raise UsageError(_why_it_does_not_run(model, size, device, channels))
    reach = max((cut.macs for cut in cuts if cut.separates), default=0)
    if (not macs or reach < GRAPH_SHARE * macs) and hasattr(model, "forward_intermediates"):
        # A transformer's graph has no map after its patches; its own stages do.
        rule = stage_rule(model, own_sizes or [actual], device) or rule
        actual = rule.nearest(size)
        macs = count_macs(model, actual, device)
        return Measured(tuple(measure_stages(model, actual, device)), rule, macs, parameters)
    listed = not isinstance(graph, UsageError) and bool(listed_nodes(graph.module.graph))
    if not runs and (not cuts or (failure and listed)):
        raise UsageError(_why_it_does_not_run(model, size, device, channels))
    if isinstance(graph, UsageError):
        shapes = [f"{path} {tuple(t.shape)}" for path, t in returned(model, probe(actual, device, channels)).items()]
        raise UsageError(f"{graph}; it returns {', '.join(shapes)}, of which none is a map" if shapes else str(graph))
    return Measured(tuple(cuts), rule, macs, parameters, channels)


def _goes_on(model: nn.Module, graph: "Traced | UsageError", failure: str) -> bool:
    """Whether a network that does not run has maps behind the place where it stops, and so none before it will do."""
    listed = not isinstance(graph, UsageError) and bool(listed_nodes(graph.module.graph))
    return hasattr(model, "forward_intermediates") or (bool(failure) and listed)


def _find_channels(
    model: nn.Module, own_sizes: Sequence[Size], device: str, wanted: int
) -> tuple[InputRule | None, int]:
    """The sizes that a network takes, ``None`` where it runs at none, and the channels of its images."""
    first = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), wanted)
    tried = _Tried(model, device)
    for channels in dict.fromkeys((wanted, 3, first)):
        found = find_rule(partial(tried.runs, channels), own_sizes)
        if found is not None:
            return found, channels
    return None, first


class _Tried:
    """A copy of a network to try sizes on, made anew where a size has changed it for good (Swin's windows)."""

    def __init__(self, model: nn.Module, device: str) -> None:
        self.model, self.device = model, device
        self.network, self.before = with_the_same_values(model), settings(model)

    def runs(self, channels: int, size: Size) -> bool:
        """Whether the network runs at a size."""
        failure = _failure(self.network, size, self.device, channels)
        if settings(self.network) != self.before:
            self.network = with_the_same_values(self.model)
        return failure is None


def _device(model: nn.Module) -> str:
    return next((str(p.device) for p in model.parameters()), "cpu")


@torch.no_grad()
def _failure(model: nn.Module, size: Size, device: str, channels: int) -> str | None:
    """Why a network does not run at a size, if it does not."""
    try:
        run(model, probe(size, device, channels))
    except Exception as error:  # networks refuse sizes with assertions, value errors and errors of their layers
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None


def _why_it_does_not_run(model: nn.Module, size: Size, device: str, channels: int) -> str:
    """What is said of a network that runs on no image: by its cause, with the remedy."""
    name = type(model).__name__
    try:
        signature(model.forward).bind(None)
    except TypeError as error:
        return (
            f"{name} does not run on an image alone ({error} in its forward): hand over a module that gives the other "
            f"arguments, as class Wrapped(nn.Module) whose forward(self, x) returns self.network(x, ...)"
        )
    dtypes = {p.dtype for p in model.parameters() if p.is_floating_point()} - {torch.float32}
    if dtypes:
        return f"the parameters of {name} are {', '.join(map(str, dtypes))}; hand over {name}.float()"
    larger = next((side for side in LARGER if _failure(model, (side, side), device, channels) is None), None)
    failure = _failure(model, size, device, channels)
    said = f"{name} does not run on a {channels}-channel image of {format_size(size)} ({failure})"
    if larger is not None:
        return f"{said}, but does at {format_size((larger, larger))}: take such a size as input_size"
    return f"{said}; it has to take float tensors (B, {channels}, H, W): try it on torch.zeros(2, {channels}, 224, 224)"
