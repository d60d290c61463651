"""A picture too large for memory: read by windows, predicted, and its maps written by rows, all three at once."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.errors import DataError
from densemble.inference.picture import require_saved
from densemble.inference.small_overlay import SmallOverlay, read_valid_rows
from densemble.inference.stored import no_data, required_maps, stored, with_no_data
from densemble.inference.streaming import stream
from densemble.nets.halo import Reach
from densemble.storage.images import write_png
from densemble.storage.large import MapWriter, open_large, tiff_writer, zarr_writer

Array = np.ndarray[Any, Any]

MOST_PIXELS = 1 << 28
"""Of a map, all its channels and some more planes together, that is held in memory."""
MOST_PIXELS_SEEN = 1 << 23
"""Of a picture that a network sees at its own size at once."""


def pixels_at_once(ensemble: Ensemble) -> int:
    """How many pixels a picture may have to be predicted as a whole; larger ones are read by windows."""
    own_size = any(member.spec.input_size is None for _, member in ensemble.named_members())
    most = MOST_PIXELS // (ensemble.task.out_channels + 4)
    return min(most, MOST_PIXELS_SEEN) if own_size else most


def predict_large(
    ensemble: Ensemble,
    path: Path,
    out: Path,
    name: str,
    what: tuple[str, ...],
    tile: int = 1024,
    reaches: Mapping[str, Reach] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    without: Callable[[Mapping[str, str]], None] = lambda members: None,
) -> list[Path]:
    """Predicts one picture and writes ``NAME_map.tif`` and whatever else is asked for; of a Zarr ``NAME_map.zarr``.

    A member that gives no usable map of some window is left out of the whole picture, or the picture fails. Memory is
    that of a row of windows, however large the picture is. ``npy`` gives the mean map as float32, in a file
    ``NAME_mean``; the overlay is made small, and the uncertainty is in its own unit instead of colours. Where the
    picture holds no data, the files hold none.

    Args:
        ensemble: in eval mode.
        path: a TIFF, NPY or Zarr is read by windows, anything else as a whole.
        out: folder that exists.
        name: what the files' names begin with.
        what: of ``SAVE``.
        tile: pixels along each axis of a window.
        reaches: of the members, see :func:`densemble.inference.tile_members.measure_reaches`; default: measured.
        progress: called with (rows done, all rows).
        without: called with the members that the picture had to be predicted without, and why.

    Returns:
        The files written.

    Raises:
        UsageError: what the ensemble cannot give, or members that large pictures are not for.
        DataError: the picture cannot be read.
        ResourceError: a file cannot be written.
        ArtifactError: a member that gives no usable map and cannot be done without.
    """
    able = ensemble
    while True:
        try:
            files = _predict_large(able, path, out, name, what, tile, reaches, progress)
        except UnusableMaps as error:
            found = error.at([0] * (max(error.images) + 1), 1)  # of the picture, not of a window
            if "guarantee" in what:
                consequence = "and what is guaranteed holds for all members: leave 'guarantee' out of --save"
                raise found.final(able.members[error.member], consequence) from error
        except DataError as error:  # of a window
            raise DataError(str(error) if str(path) in str(error) else f"'{path}': {error}") from error
        else:
            break
        able = able.without(found)
    if able is not ensemble:
        without(able.unusable)
    return files


def _predict_large(
    ensemble: Ensemble,
    path: Path,
    out: Path,
    name: str,
    what: tuple[str, ...],
    tile: int,
    reaches: Mapping[str, Reach] | None,
    progress: Callable[[int, int], None],
) -> list[Path]:
    require_saved(what, ensemble)
    planes = tuple(dict.fromkeys(plane for kind in what for plane in required_maps(kind, ensemble)))
    files: list[Path] = []
    with ExitStack() as opened:
        value_range = ensemble.reading.get("image_range")
        limits = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        picture = opened.enter_context(open_large(path, limits))
        background = opened.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write-rows"))
        writers: dict[str, MapWriter] = {}
        writing = None
        overlay = SmallOverlay(picture, ensemble.task, limits) if "overlay" in what else None
        kinds = [kind for kind in what if kind != "overlay"]
        for rows in stream(ensemble, picture, tile, planes=planes, reaches=reaches):
            layers = {kind: stored(kind, rows.planes, ensemble.task, picture.declares_validity) for kind in kinds}
            empty = {kind: no_data(layers[kind].dtype, ensemble.task, kind == "guarantee") for kind in kinds}
            if (valid := read_valid_rows(picture, rows.top, rows.height)) is not None:
                layers = {kind: with_no_data(layer, valid, empty[kind]) for kind, layer in layers.items()}
            for kind in (kind for kind in kinds if kind not in writers):
                place = out / f"{name}_{_ENDINGS.get(kind, kind)}"
                nodata = None if valid is None else empty[kind]
                file, writer = _writer(path, place, picture.size, layers[kind], nodata)
                files.append(file)
                writers[kind] = opened.enter_context(writer)
            if writing is not None:
                writing.result()
            writing = background.submit(_write, writers, layers)
            if overlay is not None:
                overlay.add(rows, valid)
            progress(rows.top + rows.height, picture.size[0])
        if writing is not None:
            writing.result()
        if overlay is not None:
            write_png(path := out / f"{name}_overlay.png", overlay.drawn())
            files.append(path)
    return files


_ENDINGS = {"npy": "mean"}


def _writer(source: Path, place: Path, size: tuple[int, int], layer: Array, nodata: float | None) -> tuple[Path, Any]:
    bands = 1 if layer.ndim == 2 else len(layer)
    if source.suffix == ".zarr":
        return (path := place.with_name(f"{place.name}.zarr")), zarr_writer(path, size, bands, layer.dtype)
    path = place.with_name(f"{place.name}.tif")
    return path, tiff_writer(path, size, bands, layer.dtype, source, nodata)


def _write(writers: Mapping[str, MapWriter], layers: Mapping[str, Array]) -> None:
    for kind, writer in writers.items():
        writer.write(layers[kind])
