"""Kinds of files that a prediction can be saved as: ``SAVE``."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval
from densemble.errors import UsageError, did_you_mean
from densemble.inference.formats import FORMATS, Format, content_of
from densemble.inference.formats.whole_map import MOST_PIXELS
from densemble.shapes import format_size
from densemble.storage.large_image import is_large
from densemble.tasks import Task

VIEW = "_view.png"
"""End of the name of the coloured view that is written beside a file of numbers."""
NO_GUARANTEE = (
    "the ensemble has no guarantee, or was loaded without a member; make one with `densemble assemble RUN -o "
    "NAME.safetensors` and --guarantee set or risk for classes, interval for values"
)


@dataclass(frozen=True)
class FileKind:
    """A row of ``SAVE``.

    Attributes:
        maps: names of the prediction maps that the file needs.
        format: format of another program; ``None``: the pixels of a map.
    """

    maps: Callable[[Ensemble], tuple[str, ...]]
    format: Format | None = None

    def suits(self, task: Task) -> bool:
        """Whether the file can hold the maps of a task."""
        return self.format is None or content_of(task) in self.format.contents


def _map(ensemble: Ensemble) -> tuple[str, ...]:
    return ("label",) if ensemble.task.distribution == "categorical" else ("mean",)


def _uncertainty(ensemble: Ensemble) -> tuple[str, ...]:
    return (ensemble.task.uncertainty,)


def _guarantee(ensemble: Ensemble) -> tuple[str, ...]:
    return ("lower", "upper") if isinstance(ensemble.guarantee, ConformalInterval) else ("included",)


def _with_probabilities(ensemble: Ensemble) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*_map(ensemble), "mean")))


SAVE: dict[str, FileKind] = {
    "map": FileKind(_map),
    "overlay": FileKind(_map),
    "uncertainty": FileKind(_uncertainty),
    "npy": FileKind(lambda ensemble: ("mean",)),
    "guarantee": FileKind(_guarantee),
    **{name: FileKind(_with_probabilities, row) for name, row in FORMATS.items()},
}
"""Kinds of files by name."""


def formats_of(what: Collection[str], per_image: bool) -> dict[str, Format]:
    """The formats among the kinds of files that have a file per image, or those that have one per folder."""
    rows = {kind: SAVE[kind].format for kind in what}
    return {kind: row for kind, row in rows.items() if row is not None and row.per_image == per_image}


def require_kinds(what: Sequence[str], task: Task) -> None:
    """Check the kinds of files to save.

    Raises:
        UsageError: an unknown kind, one that the task does not have, or one whose library is not installed; the message
            lists the available ones.
    """
    available = [kind for kind, row in SAVE.items() if row.suits(task)]
    for kind in what:
        if kind not in SAVE:
            raise UsageError(f"cannot save '{kind}'; {did_you_mean(kind, available)}available: {', '.join(available)}")
        if kind not in available:
            raise UsageError(
                f"a map of task '{task.name}' cannot be saved as '{kind}'; available: {', '.join(available)}"
            )
        row = SAVE[kind].format
        if row is not None:
            row.require()


def require_saved(what: Sequence[str], ensemble: Ensemble) -> None:
    """Check that an ensemble can give the requested kinds of files.

    Raises:
        UsageError: no kind, a kind that :func:`require_kinds` refuses, or a guarantee that the ensemble does not have.
    """
    require_kinds(what, ensemble.task)
    if not what:
        raise UsageError(f"no kind of file to save; available: {', '.join(SAVE)}")
    if "guarantee" in what and (ensemble.guarantee is None or ensemble.left_out):
        raise UsageError(NO_GUARANTEE)


def require_fits(what: Sequence[str], path: Path, ensemble: Ensemble) -> None:
    """Check that the requested formats can hold an image that is predicted in windows.

    Raises:
        UsageError: a format needs the whole map in memory, and the image is too large.
    """
    most = MOST_PIXELS // (1 if ensemble.task.distribution == "categorical" else ensemble.task.out_channels)
    whole = [kind for kind in what if (row := SAVE[kind].format) is not None and row.whole_map]
    if whole and is_large(path, most):
        side = int(most**0.5)
        raise UsageError(
            f"'{path}' is too large for '{whole[0]}', which needs the whole map in memory: at most "
            f"{format_size((side, side))} pixels; save geojson or csv, or cut the image into tiles"
        )
