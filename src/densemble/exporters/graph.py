"""Graph of a whole ensemble: from image files' pixels to maps at the size of the image, traced by ``torch.export``."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from densemble.ensemble.combine import rule_row
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import ExportError, UsageError
from densemble.shapes import Size, format_size, size_of

InputType = Literal["uint8", "float32"]
"""Pixels of a graph's input: ``uint8`` ``(B, H, W, C)`` in 0..255, or ``float32`` ``(B, C, H, W)`` in [0, 1]."""

_EXAMPLE_SIZE: Size = (240, 320)
"""Size of the images that the graph is traced with, unless the size is fixed."""


@dataclass(frozen=True)
class GraphOptions:
    """What a graph takes and returns.

    Attributes:
        input_type: see :data:`InputType`.
        size: the only accepted (H, W); ``None``: images of any size.
        maps: names of the maps to return, of :class:`Prediction`; ``None``: all that the ensemble has. The mean is
            always returned.
    """

    input_type: InputType = "uint8"
    size: Size | None = None
    maps: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.input_type not in get_args(InputType):
            raise UsageError(f"input type '{self.input_type}' is unknown; there are: {', '.join(get_args(InputType))}")
        if self.maps == ():
            raise UsageError("no map is named; name some, as in 'mean,entropy', or leave the option out")


class TracedView(nn.Module):
    """A view whose network is one of its modules, as tracing requires; :class:`ViewedMember` makes it for every call.

    Args:
        name: name of the member.
        viewed: the member.
        size: (H, W) of all images; ``None``: images of any size.

    Raises:
        ExportError: the view scales images of any size.
    """

    def __init__(self, name: str, viewed: ViewedMember, size: Size | None) -> None:
        super().__init__()
        if viewed.view.scale != 1 and viewed.spec.input_size is None and size is None:
            raise ExportError(
                f"member '{name}' scales images of any size (view '{viewed.view.name}'), which a graph cannot express; "
                "fix the size of the images (--size HEIGHTxWIDTH)"
            )
        self.view = viewed.view
        self.network = viewed.network_for(viewed.view.turned(size or _EXAMPLE_SIZE))

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``(B, K, h, w)`` of images ``(B, C, H, W)`` in [0, 1]."""
        logits: Tensor = self.view.undo(self.network(self.view.change(images)))
        return logits


class EnsembleGraph(nn.Module):
    """The computation of ``de.predict``: pixels -> maps of the prediction at the size of the image, by name.

    Args:
        ensemble: in eval mode; on the CPU.
        options: what the graph takes and returns.

    Raises:
        UsageError: the ensemble does not have a requested map.
    """

    def __init__(self, ensemble: Ensemble, options: GraphOptions) -> None:
        super().__init__()
        self.ensemble = ensemble
        self.members = nn.ModuleDict({
            name: TracedView(name, member, options.size) if isinstance(member, ViewedMember) else member
            for name, member in ensemble.named_members()
        })  # fmt: skip
        self.options = options
        self.names = self._map_names()

    def _map_names(self) -> tuple[str, ...]:
        """Names of the maps that the graph returns, in the order of :class:`Prediction`."""
        member_maps = torch.full((len(self.ensemble.members), 1, self.ensemble.task.out_channels, 1, 1), 0.5)
        available = self.ensemble.combination.predict_at(member_maps, (1, 1)).maps()
        requested = available if self.options.maps is None else ("mean", *self.options.maps)
        missing = [name for name in requested if name not in available]
        if missing:
            raise UsageError(f"the ensemble has no map '{missing[0]}'; it has: {', '.join(available)}")
        return tuple(name for name in available if name in requested)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps ``names`` of images; see :data:`InputType`. Labels are int64, sets are bool."""
        if self.options.input_type == "uint8":
            images = images.permute(0, 3, 1, 2).float() / 255
        ensemble = self.ensemble
        member_maps = (
            (name, ensemble.activated(name, member(images).float(), images)) for name, member in self.members.items()
        )
        maps = ensemble.combination.predict_at(member_maps, size_of(images)).maps()
        return tuple(maps[name] for name in self.names)

    def example(self, batch: int = 2) -> Tensor:
        """Return black images that the graph accepts."""
        size, channels = self.options.size or _EXAMPLE_SIZE, self.ensemble.in_channels
        if self.options.input_type == "uint8":
            return torch.zeros(batch, *size, channels, dtype=torch.uint8)
        return torch.zeros(batch, channels, *size)


def require_exportable(ensemble: Ensemble) -> None:
    """Check that a graph can hold the ensemble.

    Raises:
        UsageError: members are missing, because they were damaged or left out, or no other runtime computes the
            combination rule exactly.
    """
    if rule_row(ensemble.combine).jumps:
        raise UsageError(
            f"the rule '{ensemble.combine}' depends on the order of nearly equal pixels, which other runtimes round in "
            "other ways; assemble again with another rule, for example --combine mean"
        )
    if ensemble.left_out:
        names = ", ".join(ensemble.left_out)
        raise UsageError(f"the ensemble was loaded without {names}; assemble it again without these members")


def trace(graph: EnsembleGraph) -> ExportedProgram:
    """Trace the graph with a dynamic batch and, unless its size is fixed, a dynamic height and width.

    Raises:
        ExportError: an operation of a member or of the combination rule cannot be traced for images of any size.
    """
    options = graph.options
    height, width = (1, 2) if options.input_type == "uint8" else (2, 3)
    dynamic = {0: Dim.DYNAMIC} | ({} if options.size else {height: Dim.DYNAMIC, width: Dim.DYNAMIC})
    try:
        with quiet(), torch.no_grad():
            return torch.export.export(graph, (graph.example(),), dynamic_shapes={"images": dynamic}, strict=False)
    except Exception as error:  # torch.export raises errors of many types
        raise ExportError(
            f"the ensemble cannot be traced{_for_which(options)}: {first_line(error)}; {remedy(options)}"
        ) from error


def remedy(options: GraphOptions) -> str:
    """What to try when a graph cannot be exported."""
    if options.size is None:
        return "fix the size of the images (--size HEIGHTxWIDTH), or leave the member out (`densemble assemble`)"
    return "leave the member out, or select another combination rule (`densemble assemble`)"


def _for_which(options: GraphOptions) -> str:
    return " for images of any size" if options.size is None else f" for images of {format_size(options.size)}"


def first_line(error: Exception) -> str:
    """The first line of an error's text that says something, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Hide warnings and log messages of the exporters, which do not concern the user."""
    names = (None, "torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")  # onnxruntime logs to the root
    loggers = [logging.getLogger(name) for name in names]
    handler = logging.NullHandler()  # without a handler, the first message to the root installs one that stays
    levels = [logger.level for logger in loggers]
    try:
        loggers[0].addHandler(handler)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        loggers[0].removeHandler(handler)
