"""Measuring: a classifier runs once on a probe image and every place in it notes what it is worth as a cut."""

from dataclasses import dataclass

import torch
from torch import nn

from densemble.errors import UsageError
from densemble.nets.counting import count_macs, probe
from densemble.nets.cut import Cut
from densemble.nets.measure_graph import Traced, measure_graph
from densemble.nets.measure_stages import measure_stages, stage_rule
from densemble.nets.sizes import InputRule, find_rule
from densemble.shapes import Size, format_size

GRAPH_SHARE = 0.5


@dataclass(frozen=True)
class Measured:
    """What is known of a classifier.

    Attributes:
        cuts: every node with a feature map, in the order of the network, those inside blocks included.
        rule: the sizes it takes.
        macs: multiply-accumulates of the whole classifier for one image of the size that was asked for.
        parameters: of the whole classifier.
    """

    cuts: tuple[Cut, ...]
    rule: InputRule
    macs: int
    parameters: int


def measure(model: nn.Module, graph: "Traced | UsageError", size: Size, own_size: Size | None) -> Measured:
    """Measures all places of a classifier.

    Args:
        model: the classifier, in eval mode; best on the meta device, where nothing is computed.
        graph: its traced graph, or why there is none.
        size: (H, W) of the input; the nearest permitted one is taken.
        own_size: the size it was pretrained at.

    Raises:
        UsageError: it neither runs on an image nor can be traced.
    """
    device = _device(model)

    def runs(tried: Size) -> bool:
        return _failure(model, tried, device) is None

    found = find_rule(runs, own_size)
    rule = found or InputRule()
    actual = rule.nearest(size)
    parameters = sum(p.numel() for p in model.parameters())
    cuts: list[Cut] = []
    macs, failure = 0, ""
    if not isinstance(graph, UsageError):
        cuts, macs, failure = measure_graph(graph, actual, device)
    reach = max((cut.macs for cut in cuts if cut.separates), default=0)
    if (not macs or reach < GRAPH_SHARE * macs) and hasattr(model, "forward_intermediates"):
        # A transformer's graph has no map after its patches; its own stages do.
        rule = stage_rule(model, own_size or actual, device) or rule
        actual = rule.nearest(size)
        macs = count_macs(model, actual, device)
        return Measured(tuple(measure_stages(model, actual, device)), rule, macs, parameters)
    if isinstance(graph, UsageError):
        raise graph
    if failure and not cuts:
        raise UsageError(
            f"{type(model).__name__} does not run on a 3-channel image of {format_size(size)} ({failure}); "
            "take a larger one"
        )
    return Measured(tuple(cuts), rule, macs, parameters)


def _device(model: nn.Module) -> str:
    return next((str(p.device) for p in model.parameters()), "cpu")


@torch.no_grad()
def _failure(model: nn.Module, size: Size, device: str) -> str | None:
    try:
        model(probe(size, device))
    except Exception as error:  # networks refuse sizes with assertions, value errors and errors of their layers
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return None
