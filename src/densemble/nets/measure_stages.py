"""Measuring a network by the stages that it gives out itself, as transformers do, whose graph has no later maps."""

import torch
from torch import nn

from densemble.nets.counting import BATCH, counting, probe
from densemble.nets.cut import Cut
from densemble.nets.leaves import Leaves
from densemble.nets.sizes import InputRule, find_rule
from densemble.nets.trunks import stage_names, stages
from densemble.shapes import Size


@torch.no_grad()
def stage_rule(model: nn.Module, own_size: Size, device: str) -> InputRule | None:
    """The rule under which the stages have the channels that they have at the network's own size.

    Some hybrids of convolutions and attention run at any size and, where it does not divide, shape tokens wrongly.
    """
    indices = range(len(stage_names(model)))
    wanted = [found.shape[1] for found in stages(model, probe(own_size, device), indices)]

    def runs(tried: Size) -> bool:
        try:
            return [found.shape[1] for found in stages(model, probe(tried, device), indices)] == wanted
        except Exception:  # networks refuse sizes with assertions, value errors and errors of their layers
            return False

    return find_rule(runs, own_size)


def measure_stages(model: nn.Module, size: Size, device: str) -> list[Cut]:
    names = stage_names(model)
    totals: dict[str, int] = {}
    with counting(model) as counter:
        hooks = [
            module.register_forward_hook(lambda *_, name=name: totals.__setitem__(name, counter.get_total_flops()))
            for name, module in model.named_modules()
            if name in names
        ]
        try:
            stages(model, probe(size, device), range(len(names)))
        finally:
            for hook in hooks:
                hook.remove()
    maps = stages(model, probe(size, device), range(len(names)))  # again, for autograd's own graph of parameters
    reach = Leaves(model)
    cuts, macs = [], 0
    for name, found in zip(names, maps, strict=True):
        macs = max(totals.get(name, 0) // (2 * BATCH), macs)
        _, channels, height, width = found.shape
        cuts.append(
            Cut(
                node=name,
                channels=channels,
                height=height,
                width=width,
                stride=(size[0] / height, size[1] / width),
                macs=macs,
                parameters=sum(p.numel() for p in reach.of(found)),
                receptive_field=None,
                offset=None,
                separates=True,
                input_size=size,
                graph_node=name,
                kind="stages",
            )
        )
    return cuts
