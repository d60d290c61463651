"""Truncated backbones: an image in, feature maps out."""

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
from densemble.shapes import size_of


class CutBackbone(nn.Module, ABC):
    """A truncated classifier: normalized images ``(B, C, H, W)`` -> one map ``(B, C', h, w)`` per node.

    ``network`` is the truncated classifier, with the keys of the whole one; ``layouts`` are the layouts of its tensors
    at ``nodes``. ``adapter``, if it is not ``None``, projects the channels of the image to three channels.
    """

    def __init__(self, network: nn.Module, nodes: Sequence[str], layouts: Sequence[Layout]) -> None:
        super().__init__()
        self.network = network
        self.nodes, self.layouts = tuple(nodes), tuple(layouts)
        self.adapter: nn.Module | None = None

    @abstractmethod
    def node_tensors(self, x: Tensor) -> list[Tensor]:
        """Tensors of the network at the nodes, in their layouts."""

    @abstractmethod
    def checkpoint_gradients(self) -> None:
        """Enable gradient checkpointing: inner maps are recomputed for the gradient; less memory, more time.

        Batch normalization in training mode processes each batch twice.

        Raises:
            UsageError: the network does not support it.
        """

    def forward(self, x: Tensor) -> list[Tensor]:
        """Feature maps, in the order of the nodes."""
        tensors = self.node_tensors(x if self.adapter is None else self.adapter(x))
        return [to_nchw(tensor, layout, size_of(x)) for tensor, layout in zip(tensors, self.layouts, strict=True)]

    @torch.no_grad()
    def gives_maps(self, x: Tensor, channels: Sequence[int]) -> bool:
        """Whether the network maps normalized images ``(B, C, H, W)`` to non-empty maps of these channels."""
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # graph modules print their errors
                maps = self(x)
            return all(m.shape[1] == c and 0 not in m.shape for m, c in zip(maps, channels, strict=True))
        except Exception:  # networks reject sizes with assertions, value errors and errors of their layers
            return False


class GraphBackbone(CutBackbone):
    """Nodes of a traced graph."""

    network: fx.GraphModule
    checkpointing = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphBackbone":
        """A copy in the same mode; copies of torchvision's graph modules would be in training mode."""
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

    def node_tensors(self, x: Tensor) -> list[Tensor]:
        segmented = self.checkpointing and torch.is_grad_enabled() and any(p.requires_grad for p in self.parameters())
        maps = SegmentedRun(self.network)(x) if segmented else self.network(x)
        return [maps[node] for node in self.nodes]


class StageBackbone(CutBackbone):
    """Stages that timm's feature interface returns."""

    def checkpoint_gradients(self) -> None:
        switch = getattr(self.network, "set_grad_checkpointing", None)
        switch = switch or getattr(self.network, "gradient_checkpointing_enable", None)
        if switch is None:
            raise UsageError(
                f"{type(self.network).__name__} has no gradient checkpointing; set gradient_checkpointing to false"
            )
        switch()

    def node_tensors(self, x: Tensor) -> list[Tensor]:
        return stages(self.network, x, self.nodes)


class OutputBackbone(StageBackbone):
    """Maps that the network returns in a list, dictionary or dataclass; the whole network runs."""

    def gives_maps(self, x: Tensor, channels: Sequence[int]) -> bool:
        """Like :meth:`CutBackbone.gives_maps`, on a copy; ``False`` if the forward changes the network permanently."""
        copied = with_the_same_values(self)
        before = settings(copied)
        return super(OutputBackbone, copied).gives_maps(x, channels) and settings(copied) == before

    def node_tensors(self, x: Tensor) -> list[Tensor]:
        return named_outputs(self.network, x, self.nodes)


def drop_unused(network: nn.Module, used: set[str], called: set[str]) -> None:
    """Replace unused modules by identities: modules that do not run and whose parameters are not used elsewhere.

    Modules that run although the output does not depend on them (a second branch) stay. Their parameters become
    buffers, so that they are not trained.

    Args:
        network: changed in place.
        used: names of the parameters that the output depends on.
        called: names of the modules that run.
    """
    replaced: tuple[str, ...] = ()
    for name, module in list(network.named_modules()):
        parameters = {f"{name}.{key}" for key, _ in module.named_parameters()}
        modules = {f"{name}.{child}" if child else name for child, _ in module.named_modules()}
        if not name or not parameters or used & parameters or called & modules or name.startswith(replaced):
            continue
        if isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue  # the code of the network iterates over it; its children are replaced instead
        network.set_submodule(name, nn.Identity())
        replaced = (*replaced, f"{name}.")
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
