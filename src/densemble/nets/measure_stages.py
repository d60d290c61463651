"""Measure the feature maps that a network gives access to, for networks whose graph has no late maps (transformers)."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.nets.axis_order import Layout, is_tokens, output_layout, to_nchw, token_grid
from densemble.nets.counting import BATCH, counting, probe
from densemble.nets.cut import Cut, Kind
from densemble.nets.leaves import Leaves, settings, with_the_same_values, without_values
from densemble.nets.sizes import InputRule, find_rule, find_rule_above
from densemble.nets.stages import named_outputs, returned, stage_names, stages
from densemble.shapes import Size, size_of


@torch.no_grad()
def stage_rule(model: nn.Module, own_sizes: Sequence[Size], device: str) -> InputRule | None:
    """The sizes at which the stages have the same channels as at the size that the network is designed for.

    Some hybrids of convolutions and attention run at any size, but arrange tokens wrongly if it is not divisible.
    """
    names = stage_names(model)

    def channels(size: Size) -> list[int]:
        return [features.shape[1] for features in stages(model, probe(size, device), names)]

    expected = channels(own_sizes[0])

    def runs(size: Size) -> bool:
        try:
            return channels(size) == expected
        except Exception:  # networks reject sizes with assertions, value errors and errors of their layers
            return False

    return find_rule(runs, own_sizes)


def measure_stages(model: nn.Module, size: Size, device: str) -> list[Cut]:
    """Measure every stage of a network with timm's feature interface."""
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
    maps = stages(model, probe(size, device), names)  # again, because counting disables autograd
    leaves = Leaves(model)
    cuts, macs = [], 0
    for name, features in zip(names, maps, strict=True):
        macs = max(totals.get(name, 0) // (2 * BATCH), macs)
        cuts.append(_cut(name, features, size, macs, leaves.of(features), "stages"))
    return cuts


def _cut(
    name: str,
    features: Tensor,
    size: Size,
    macs: int,
    parameters: Sequence[nn.Parameter],
    kind: Kind,
    layout: Layout = "NCHW",
) -> Cut:
    """Cut with feature map ``(B, C, h, w)``, whose receptive field is unknown."""
    height, width = size_of(features)
    return Cut(
        node=name,
        channels=features.shape[1],
        height=height,
        width=width,
        stride=(size[0] / height, size[1] / width),
        macs=macs,
        parameters=sum(p.numel() for p in parameters),
        receptive_field=None,
        offset=None,
        separates=True,
        input_size=size,
        graph_node=name,
        kind=kind,
        layout=layout,
        listed=kind == "outputs",
    )


@dataclass(frozen=True)
class ReturnedMap:
    """Layout and number of channels of a feature map that a network returns."""

    layout: Layout
    channels: int


@torch.no_grad()
def returned_maps(model: nn.Module, images: Tensor) -> dict[str, ReturnedMap]:
    """The feature maps that the network returns in a list, tuple, dictionary or dataclass, by path."""
    size = size_of(images)
    maps = {}
    for path, tensor in returned(model, images).items():
        layout = output_layout(tuple(tensor.shape), size)
        if layout is not None:
            maps[path] = ReturnedMap(layout, int(to_nchw(tensor, layout, size).shape[1]))
    return maps


@torch.no_grad()
def output_rule(
    model: nn.Module,
    maps: Mapping[str, ReturnedMap],
    own_sizes: Sequence[Size],
    size: Size,
    device: str,
    channels: int,
) -> InputRule:
    """The sizes at which the returned maps keep their layouts and channels and the network keeps its settings.

    Some networks change permanently at a small size (Swin's windows) and return other maps afterwards.

    Raises:
        UsageError: no rule holds for ``size``.
    """

    def gives_maps(network: nn.Module, size: Size) -> bool:
        try:
            tensors = named_outputs(network, probe(size, device, channels), list(maps))
            pairs = zip(tensors, maps.values(), strict=True)
            return all(to_nchw(tensor, m.layout, size).shape[1] == m.channels for tensor, m in pairs)
        except Exception:  # networks reject sizes with assertions, value errors and errors of their layers
            return False

    def keeps_settings(size: Size) -> bool:
        network = with_the_same_values(model)
        before = settings(network)
        return gives_maps(network, size) and settings(network) == before

    def runs(size: Size) -> bool:
        return gives_maps(with_the_same_values(model), size)

    for holds in (keeps_settings, runs):
        for find, sizes in ((find_rule, ()), (find_rule_above, own_sizes), (find_rule, own_sizes)):
            rule = find(holds, sizes)
            if rule is not None and runs(rule.nearest(size)):
                return rule
    raise UsageError(
        f"{type(model).__name__} returns {', '.join(maps)}, whose axes are not those of the image at a smaller scale; "
        "pass a module that returns maps (B, C, h, w)"
    )


def measure_outputs(
    model: nn.Module, maps: Mapping[str, ReturnedMap], size: Size, device: str, channels: int
) -> list[Cut]:
    """Measure every returned map, sorted by the number of parameters; each map needs a run of the whole network."""
    images = probe(size, device, channels)
    _require_order(model, maps, images)
    with counting(model) as counter:
        named_outputs(model, images, list(maps))
    twin = _differentiable(model, device)
    macs = int(counter.get_total_flops()) // (2 * BATCH)
    cuts = []
    for (path, returned_map), tensor in zip(maps.items(), named_outputs(twin, images, list(maps)), strict=True):
        layout = returned_map.layout
        features = to_nchw(tensor, layout, size)
        cuts.append(_cut(path, features, size, macs, Leaves(twin).of(tensor), "outputs", layout))
    return sorted(cuts, key=lambda cut: cut.parameters)


def _differentiable(model: nn.Module, device: str) -> nn.Module:
    """A copy whose parameters all require gradients, so that autograd records every dependency."""
    twin = without_values(model) if device == "meta" else copy.deepcopy(model)
    return twin.requires_grad_(True)


@torch.no_grad()
def _require_order(model: nn.Module, maps: Mapping[str, ReturnedMap], images: Tensor) -> None:
    """Check that tokens are in the order of the patches: a changed patch changes its token or a neighbour most.

    Only the first map of tokens is checked.

    Raises:
        UsageError: another token changes most, for example because tokens are masked or shuffled.
    """
    name = next((path for path, returned_map in maps.items() if is_tokens(returned_map.layout)), None)
    if name is None:
        return
    if images.is_meta:
        raise NotImplementedError("tokens are compared by value")
    _require_repeatable(model, name, images)
    layout = maps[name].layout
    stride, _ = token_grid(layout)
    size = size_of(images)
    rows, columns = size[0] // stride, size[1] // stride
    patches = [(rows // 3, 2 * columns // 3), (2 * rows // 3, columns // 3), (0, 0)]
    batch = images[:1].repeat(1 + len(patches), 1, 1, 1)
    for image, (row, column) in zip(batch[1:], patches, strict=True):
        image[:, row * stride : (row + 1) * stride, column * stride : (column + 1) * stride] = 1
    (tokens,) = named_outputs(model, batch, [name])
    reference, *changed = to_nchw(tokens, layout, size).float()
    for (row, column), features in zip(patches, changed, strict=True):
        change = (features - reference).square().sum(0)
        most_changed = divmod(int(change.argmax()), change.shape[1])
        if max(abs(most_changed[0] - row), abs(most_changed[1] - column)) > 1:
            raise UsageError(
                f"the tokens '{name}' that {type(model).__name__} returns are not in the order of the image's patches: "
                f"a change of patch {(row, column)} changes token {most_changed} most; they may be masked or shuffled; "
                "pass a network that returns (B, C, h, w)"
            )


def _require_repeatable(model: nn.Module, name: str, images: Tensor) -> None:
    """Check that a network returns the same tokens for the same image twice.

    Raises:
        UsageError: the tokens differ, as in masked autoencoders.
    """
    image = torch.rand(images[:1].shape, generator=torch.Generator().manual_seed(0)).to(images)
    (tokens,) = named_outputs(model, image.repeat(2, 1, 1, 1), [name])
    if not torch.allclose(tokens[0], tokens[1], rtol=1e-3, atol=1e-4):
        raise UsageError(
            f"{type(model).__name__} returns different '{name}' for the same image: its forward is random, for example "
            "because it masks tokens; switch that off (mask_ratio=0), or pass another network"
        )
