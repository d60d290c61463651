"""Measuring a network by the feature maps that it gives out itself: transformers, whose graph has no later maps."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets.axis_order import Layout, is_tokens, output_layout, to_nchw, token_grid
from densemble.nets.counting import BATCH, counting, probe
from densemble.nets.cut import Cut
from densemble.nets.leaves import Leaves, settings, with_the_same_values, without_values
from densemble.nets.sizes import InputRule, find_rule, find_rule_above
from densemble.nets.stages import named_outputs, returned, stage_names, stages
from densemble.shapes import Size


@torch.no_grad()
def stage_rule(model: nn.Module, own_sizes: Sequence[Size], device: str) -> InputRule | None:
    """The rule under which the stages have the channels that they have at the network's own size.

    Some hybrids of convolutions and attention run at any size and, where it does not divide, shape tokens wrongly.
    """
    names = stage_names(model)
    wanted = [found.shape[1] for found in stages(model, probe(own_sizes[0], device), names)]

    def runs(tried: Size) -> bool:
        try:
            return [found.shape[1] for found in stages(model, probe(tried, device), names)] == wanted
        except Exception:  # networks refuse sizes with assertions, value errors and errors of their layers
            return False

    return find_rule(runs, own_sizes)


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
            stages(model, probe(size, device), names)
        finally:
            for hook in hooks:
                hook.remove()
    maps = stages(model, probe(size, device), names)  # again, for autograd's own graph of parameters
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


@dataclass(frozen=True)
class ReturnedMap:
    """What is known of a feature map that a network returns: the order of its axes, and its channels."""

    layout: Layout
    channels: int


@torch.no_grad()
def returned_maps(model: nn.Module, images: Tensor) -> dict[str, ReturnedMap]:
    """The feature maps that the network returns in a list, tuple, dictionary or dataclass, by path."""
    size: Size = (int(images.shape[-2]), int(images.shape[-1]))
    found = {}
    for path, tensor in returned(model, images).items():
        layout = output_layout(tuple(tensor.shape), size)
        if layout is not None:
            found[path] = ReturnedMap(layout, int(to_nchw(tensor, layout, size).shape[1]))
    return found


@torch.no_grad()
def output_rule(
    model: nn.Module,
    maps: Mapping[str, ReturnedMap],
    own_sizes: Sequence[Size],
    size: Size,
    device: str,
    channels: int,
) -> InputRule:
    """The rule under which the returned maps keep their layouts and channels, and the network its settings.

    Some networks change themselves for good at a small size (Swin's windows), and give other maps afterwards.

    Raises:
        UsageError: there is none that holds for ``size``.
    """

    def gives_maps(network: nn.Module, tried: Size) -> bool:
        try:
            found = named_outputs(network, probe(tried, device, channels), list(maps))
            pairs = zip(found, maps.values(), strict=True)
            return all(to_nchw(tensor, one.layout, tried).shape[1] == one.channels for tensor, one in pairs)
        except Exception:  # networks refuse sizes with assertions, value errors and errors of their layers
            return False

    def keeps_settings(tried: Size) -> bool:
        network = with_the_same_values(model)
        before = settings(network)
        return gives_maps(network, tried) and settings(network) == before

    def runs(tried: Size) -> bool:
        return gives_maps(with_the_same_values(model), tried)

    for holds in (keeps_settings, runs):
        for find, sizes in ((find_rule, ()), (find_rule_above, own_sizes), (find_rule, own_sizes)):
            rule = find(holds, sizes)
            if rule is not None and runs(rule.nearest(size)):
                return rule
    raise UsageError(_no_maps(model, list(maps)))


def _no_maps(model: nn.Module, paths: Sequence[str]) -> str:
    return (
        f"{type(model).__name__} returns {', '.join(paths)}, whose axes are not those of the image at a smaller scale; "
        "hand over a module that returns maps (B, C, h, w)"
    )


def measure_outputs(
    model: nn.Module, maps: Mapping[str, ReturnedMap], size: Size, device: str, channels: int
) -> list[Cut]:
    """Every returned map, that with the most parameters behind it last; each needs a run of the whole network."""
    images = probe(size, device, channels)
    _require_order(model, maps, images)
    with counting(model) as counter:
        named_outputs(model, images, list(maps))
    twin = _differentiable(model, device)
    found = named_outputs(twin, images, list(maps))
    cuts = []
    for (path, one), tensor in zip(maps.items(), found, strict=True):
        height, width = to_nchw(tensor, one.layout, size).shape[2:]
        cuts.append(
            Cut(
                node=path,
                channels=one.channels,
                height=height,
                width=width,
                stride=(size[0] / height, size[1] / width),
                macs=int(counter.get_total_flops()) // (2 * BATCH),
                parameters=sum(p.numel() for p in Leaves(twin).of(tensor)),
                receptive_field=None,
                offset=None,
                separates=True,
                input_size=size,
                graph_node=path,
                kind="outputs",
                layout=one.layout,
                listed=True,
            )
        )
    return sorted(cuts, key=lambda cut: cut.parameters)


def _differentiable(model: nn.Module, device: str) -> nn.Module:
    """A copy whose parameters all learn, so that autograd tells what a tensor was computed from."""
    twin = without_values(model) if device == "meta" else copy.deepcopy(model)
    return twin.requires_grad_(True)


@torch.no_grad()
def _require_order(model: nn.Module, maps: Mapping[str, ReturnedMap], images: Tensor) -> None:
    """Checks on the first tokens that those change most that stand for the patch that changes, or for one beside it.

    Raises:
        UsageError: others do: tokens that are masked, shuffled, or followed by others.
    """
    name = next((path for path, one in maps.items() if is_tokens(one.layout)), None)
    if name is None:
        return
    if images.is_meta:
        raise NotImplementedError("tokens are compared by value")
    _require_repeatable(model, name, images)
    layout = maps[name].layout
    stride, _ = token_grid(layout)
    size: Size = (int(images.shape[-2]), int(images.shape[-1]))
    rows, columns = size[0] // stride, size[1] // stride
    places = [(rows // 3, 2 * columns // 3), (2 * rows // 3, columns // 3), (0, 0)]
    batch = images[:1].repeat(1 + len(places), 1, 1, 1)
    for image, (row, column) in zip(batch[1:], places, strict=True):
        image[:, row * stride : (row + 1) * stride, column * stride : (column + 1) * stride] = 1
    (found,) = named_outputs(model, batch, [name])
    plain, *others = to_nchw(found, layout, size).float()
    for (row, column), other in zip(places, others, strict=True):
        change = (other - plain).square().sum(0)
        most = divmod(int(change.argmax()), change.shape[1])
        if max(abs(most[0] - row), abs(most[1] - column)) > 1:
            raise UsageError(
                f"'{name}' that {type(model).__name__} returns is no row of tokens in the order of the image's "
                f"patches: where patch {(row, column)} changes, token {most} does most; are they masked or shuffled? "
                "Hand over a network that returns (B, C, h, w)"
            )


def _require_repeatable(model: nn.Module, name: str, images: Tensor) -> None:
    """Checks that a network gives the same for the same image twice.

    Raises:
        UsageError: it does not: masked autoencoders take other tokens each time.
    """
    image = torch.rand(images[:1].shape, generator=torch.Generator().manual_seed(0)).to(images)
    (found,) = named_outputs(model, image.repeat(2, 1, 1, 1), [name])
    if not torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-4):
        raise UsageError(
            f"{type(model).__name__} returns another '{name}' for the same image: its forward is random, as where "
            "tokens are masked; switch that off (mask_ratio=0), or hand over another network"
        )
