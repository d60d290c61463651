"""An image too large for memory: read by windows, predicted, and its maps written by rows, all three at once."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.errors import DataError
from densemble.inference.files.job import Output
from densemble.inference.image_prediction import require_saved
from densemble.inference.saved import SavedPrediction
from densemble.inference.sources import value_range
from densemble.inference.stored_maps import no_data, required_maps, stored, with_no_data
from densemble.inference.tiles.planes import Rows
from densemble.inference.tiles.resize import BLOCK
from densemble.inference.tiles.small_overlay import SmallOverlay, read_valid_rows
from densemble.inference.tiles.streaming import stream
from densemble.nets.halo import Reach
from densemble.shapes import Array
from densemble.storage.images import write_png
from densemble.storage.large_image import LargeImage, MapWriter, is_large, open_large, tiff_writer, zarr_writer

MOST_PIXELS = 1 << 28
"""Of a map, all its channels and some more planes together, that is held in memory."""
MOST_PIXELS_SEEN = 1 << 23
"""Of an image that a network sees at its own size at once."""


def is_windowed(path: Path, ensemble: Ensemble) -> bool:
    """Whether an image is read by windows, for it is too large to be predicted as a whole; unreadable files are not."""
    own_size = any(member.spec.input_size is None for _, member in ensemble.named_members())
    most = MOST_PIXELS // (ensemble.task.out_channels + 4)
    try:
        return path.suffix == ".zarr" or is_large(path, min(most, MOST_PIXELS_SEEN) if own_size else most)
    except DataError:
        return False


def predict_large(
    ensemble: Ensemble,
    path: Path,
    name: str,
    output: Output,
    tile: int = BLOCK,
    reaches: Mapping[str, Reach] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SavedPrediction:
    """Predicts one image and writes ``NAME_map.tif`` and whatever else is asked for; of a Zarr ``NAME_map.zarr``.

    A member that gives no usable map of some window is left out of the whole image, or the image fails. Memory is
    that of a row of windows, however large the image is. ``npy`` gives the mean map as float32, in a file
    ``NAME_mean``; the overlay is made small, and the uncertainty is in its own unit instead of colours. Where the
    image holds no data, the files hold none.

    Args:
        ensemble: in eval mode.
        path: a TIFF, NPY or Zarr is read by windows, anything else as a whole.
        name: what the names of its files begin with.
        output: where to write, and what; nothing is ranked.
        tile: pixels along each axis of a window.
        reaches: of the members, see :func:`densemble.inference.tiles.tile_members.measure_reaches`; default: measured.
        progress: called with (rows done, all rows).

    Raises:
        UsageError: what the ensemble cannot give, or members that large images are not for.
        DataError: the image cannot be read.
        ResourceError: a file cannot be written.
        ArtifactError: a member that gives no usable map and cannot be done without.
    """
    require_saved(output.what, ensemble)
    able = ensemble
    planes = tuple(dict.fromkeys(plane for kind in output.what for plane in required_maps(kind, ensemble)))
    while True:
        try:
            with open_large(path, value_range(able)) as image:
                rows = stream(able, image, tile, planes=planes, reaches=reaches)
                files = _write_rows(able, image, rows, path, output.folder / name, output.what, progress)
        except UnusableMaps as error:
            found = error.at([0] * (max(error.images) + 1), 1)  # of the image, not of a window
            if "guarantee" in output.what:
                consequence = "and what is guaranteed holds for all members: leave 'guarantee' out of --save"
                raise found.final(able.members[error.member], consequence) from error
            able = able.without(found)
        except DataError as error:  # of a window
            raise DataError(str(error) if str(path) in str(error) else f"'{path}': {error}") from error
        else:
            return SavedPrediction(name, path, tuple(files), without=able.unusable)


def _write_rows(
    ensemble: Ensemble,
    image: LargeImage,
    rows: Iterator[Rows],
    source: Path,
    output: Path,
    what: tuple[str, ...],
    progress: Callable[[int, int], None],
) -> list[Path]:
    """Writes files ``OUTPUT_map`` and so on as rows come, behind a thread, and the overlay at the end."""
    kinds = [kind for kind in what if kind != "overlay"]
    overlay = SmallOverlay(image, ensemble.task, value_range(ensemble)) if "overlay" in what else None
    files: list[Path] = []
    writers: dict[str, MapWriter] = {}
    writing = None
    with ExitStack() as opened:
        background = opened.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write-rows"))
        for part in rows:
            layers = {kind: stored(kind, part.planes, ensemble.task, image.declares_validity) for kind in kinds}
            empty = {kind: no_data(layers[kind].dtype, ensemble.task, kind == "guarantee") for kind in kinds}
            if (valid := read_valid_rows(image, part.top, part.height)) is not None:
                layers = {kind: with_no_data(layer, valid, empty[kind]) for kind, layer in layers.items()}
            for kind in (kind for kind in kinds if kind not in writers):
                place = output.with_name(f"{output.name}_{_ENDINGS.get(kind, kind)}")
                nodata = None if valid is None else empty[kind]
                file, writer = _writer(source, place, image.size, layers[kind], nodata)
                files.append(file)
                writers[kind] = opened.enter_context(writer)
            if writing is not None:
                writing.result()
            writing = background.submit(_write, writers, layers)
            if overlay is not None:
                overlay.add(part, valid)
            progress(part.top + part.height, image.size[0])
        if writing is not None:
            writing.result()
        if overlay is not None:
            write_png(path := output.with_name(f"{output.name}_overlay.png"), overlay.drawn())
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
