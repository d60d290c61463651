"""Trunks: a backbone up to its cut and no further, an image in, feature maps out."""

import contextlib
import copy
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from densemble.errors import UsageError
from densemble.nets.axis_order import Layout, to_nchw
from densemble.nets.checkpointing import SegmentedRun
from densemble.nets.leaves import settings, with_the_same_values
from densemble.nets.stages import named_outputs, stages
from densemble.shapes import Size


class CutBackbone(nn.Module, ABC):
    """A classifier up to some of its nodes: normalized images ``(B, C, H, W)`` -> one map ``(B, C', h, w)`` per node.

    ``network`` is the truncated classifier with the whole one's key names; ``adapter``, where there is one, turns
    other channels than RGB into three.
    """

    def __init__(self, network: nn.Module, nodes: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self.nodes = tuple(nodes)
        self.adapter: nn.Module | None = None

    @abstractmethod
    def maps(self, x: Tensor) -> list[Tensor]:
        """The network's maps, in the order of the nodes."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """From now on, inner maps are computed again for the gradient instead of kept: less memory, more time.

        Batch normalization that still gathers statistics sees each batch twice.

        Raises:
            UsageError: the network cannot.
        """

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps, in the order of the nodes."""
        return self.maps(x if self.adapter is None else self.adapter(x))

    @torch.no_grad()
    def gives_maps(self, x: Tensor, channels: Sequence[int]) -> bool:
        """Whether the maps of normalized images ``(B, C, H, W)`` have these channels, none of them empty."""
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # graph modules print where they stop
                found = self(x)
            return all(one.shape[1] == c and 0 not in one.shape for one, c in zip(found, channels, strict=True))
        except Exception:  # networks refuse sizes with assertions, value errors and errors of their layers
            return False


class GraphBackbone(CutBackbone):
    """Nodes of the traced graph; a node that computes with channels last is turned to NCHW."""

    network: fx.GraphModule

    def __init__(self, network: fx.GraphModule, nodes: Sequence[str], layouts: Sequence[Layout]) -> None:
        super().__init__(network, nodes)
        self.layouts = tuple(layouts)
        self.checkpointing = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphBackbone":
        """A copy in the same mode; torchvision's graph modules come out of a copy in training mode, whole and part."""
        copied = type(self).__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        copied.network.train(self.network.training)
        parts = dict(self.network.named_modules())
        for name, part in copied.network.named_modules():
            part.training = parts[name].training
        return copied

    def checkpoint_gradients(self) -> None:
        self.checkpointing = True

    def maps(self, x: Tensor) -> list[Tensor]:
        segmented = self.checkpointing and torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        found = SegmentedRun(self.network)(x) if segmented else self.network(x)
        size: Size = (int(x.shape[-2]), int(x.shape[-1]))
        return [to_nchw(found[node], layout, size) for node, layout in zip(self.nodes, self.layouts, strict=True)]


class StageBackbone(CutBackbone):
    """Stages that the network itself gives out."""

    def checkpoint_gradients(self) -> None:
        switch = getattr(self.network, "set_grad_checkpointing", None)
        switch = switch or getattr(self.network, "gradient_checkpointing_enable", None)
        if switch is None:
            raise UsageError(f"{type(self.network).__name__} has no gradient checkpointing; set it to false")
        switch()

    def maps(self, x: Tensor) -> list[Tensor]:
        return stages(self.network, x, self.nodes)


class OutputBackbone(StageBackbone):
    """Maps that the network returns in a list, dictionary or dataclass; it runs as a whole."""

    def __init__(self, network: nn.Module, nodes: Sequence[str], layouts: Sequence[Layout]) -> None:
        super().__init__(network, nodes)
        self.layouts = tuple(layouts)

    def gives_maps(self, x: Tensor, channels: Sequence[int]) -> bool:
        """As of any backbone, on a copy: a size at which the network's forward changes it for good is none of its."""
        tried = with_the_same_values(self)
        before = settings(tried)
        return super(OutputBackbone, tried).gives_maps(x, channels) and settings(tried) == before

    def maps(self, x: Tensor) -> list[Tensor]:
        size: Size = (int(x.shape[-2]), int(x.shape[-1]))
        found = named_outputs(self.network, x, self.nodes)
        return [to_nchw(tensor, layout, size) for tensor, layout in zip(found, self.layouts, strict=True)]


def drop_unused(network: nn.Module, used: set[str], called: set[str]) -> None:
    """Replaces modules that neither run nor lend their parameters by identities.

    What runs although the output does not depend on it (the other branch of a network with two) has to stay; it is no
    longer learned: its parameters become buffers.

    Args:
        network: changed in place.
        used: names of the parameters that the output depends on.
        called: names of the modules that run.
    """
    gone: tuple[str, ...] = ()
    for name, module in list(network.named_modules()):
        own = [f"{name}.{key}" for key, _ in module.named_parameters()]
        inside = {f"{name}.{child}" if child else name for child, _ in module.named_modules()}
        if not name or not own or used & set(own) or called & inside or name.startswith(gone):
            continue
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue  # it is gone through by the network's own code; what hangs in it is replaced instead
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Identity())
        gone = (*gone, f"{name}.")
    for name, parameter in list(network.named_parameters()):
        if name not in used:
            parent, _, last = name.rpartition(".")
            owner = network.get_submodule(parent)
            delattr(owner, last)
            owner.register_buffer(last, parameter.detach())


def called_modules(network: nn.Module, run: Callable[[], object]) -> set[str]:
    """Names of the modules that ``run`` calls."""
    called: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: called.add(name))
        for name, module in network.named_modules()
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return called
