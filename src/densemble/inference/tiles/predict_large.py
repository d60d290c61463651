"""Prediction of an image too large for memory: windows are read, predicted and written concurrently."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.membership import UnusableMaps
from densemble.errors import DataError
from densemble.inference.file_kinds import SAVE, VIEW, formats_of, require_saved
from densemble.inference.files.job import Output
from densemble.inference.formats import Entry, MapRows, OutputFacts
from densemble.inference.formats.format import Collector
from densemble.inference.saved import SavedPrediction
from densemble.inference.sources import image_range
from densemble.inference.stored_maps import no_data, stored
from densemble.inference.tiles.planes import Rows
from densemble.inference.tiles.resize_blocks import BLOCK
from densemble.inference.tiles.small_drawings import SmallDrawings, read_valid_rows
from densemble.inference.tiles.streaming import stream
from densemble.nets.halo import Reach
from densemble.shapes import Array, Size
from densemble.storage.images import write_png
from densemble.storage.large_image import LargeImage, MapWriter, is_large, open_large, tiff_writer, zarr_writer

MOST_PIXELS = 1 << 28
"""Most pixels of a map in memory, summed over its channels and some more planes."""
MOST_PIXELS_SEEN = 1 << 23
"""Most pixels of an image that a network sees at the image size at once."""


def is_windowed(path: Path, ensemble: Ensemble) -> bool:
    """Whether an image is predicted in windows because it is too large as a whole; false for unreadable files."""
    sees_image_size = any(member.spec.input_size is None for _, member in ensemble.named_members())
    most = MOST_PIXELS // (ensemble.task.out_channels + 4)
    try:
        return path.suffix == ".zarr" or is_large(path, min(most, MOST_PIXELS_SEEN) if sees_image_size else most)
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
    """Predict one image and write ``NAME_map.tif`` and the other requested files; for a Zarr, ``NAME_map.zarr``.

    If a member gives no usable map of a window, it is left out for the whole image, or the image fails. Memory holds
    one row of windows for images of any size. ``npy`` writes the mean map as float32 to a file ``NAME_mean``. The
    uncertainty is stored as numbers; the overlay and the coloured views of map and uncertainty, ``NAME_KIND_view.png``,
    are subsampled. Where the image holds no data, the files hold none.

    Args:
        ensemble: in eval mode.
        path: a TIFF, NPY or Zarr is read in windows, other files as a whole.
        name: start of the names of its files.
        output: folder and kinds of files; nothing is ranked.
        tile: side of a window in pixels.
        reaches: see :func:`densemble.inference.tiles.tile_members.measure_reaches`; default: measured.
        progress: called with (rows done, all rows).

    Raises:
        UsageError: a kind of file that the ensemble cannot give, or members that cannot predict in windows.
        DataError: the image cannot be read.
        ResourceError: a file cannot be written.
        ArtifactError: a member that gives no usable map and cannot be left out.
    """
    require_saved(output.what, ensemble)
    usable = ensemble
    planes = tuple(dict.fromkeys(plane for kind in output.what for plane in SAVE[kind].maps(ensemble)))
    while True:
        try:
            with open_large(path, image_range(usable)) as image:
                rows = stream(usable, image, tile, planes=planes, reaches=reaches)
                files = _write_rows(usable, image, rows, (path, name), output, progress)
        except UnusableMaps as error:
            for_image = error.at([0] * (max(error.images) + 1), 1)  # index of the image instead of the window
            if "guarantee" in output.what:
                consequence = "and the guarantee holds only for all members: leave 'guarantee' out of --save"
                raise for_image.final(usable.members[error.member], consequence) from error
            usable = usable.without(for_image)
        except DataError as error:  # the message may lack the path
            raise DataError(str(error) if str(path) in str(error) else f"'{path}': {error}") from error
        else:
            return SavedPrediction(name, path, tuple(files), without=usable.unusable)


def _write_rows(
    ensemble: Ensemble,
    image: LargeImage,
    rows: Iterator[Rows],
    source: tuple[Path, str],
    output: Output,
    progress: Callable[[int, int], None],
) -> list[Path]:
    """Write files ``NAME_map`` and so on in a thread while rows come; the drawings and other formats at the end.

    ``source`` holds the path of the image and the name.
    """
    path, name = source
    kinds = [kind for kind in output.what if SAVE[kind].format is None and kind != "overlay"]
    drawn = [kind for kind in ("overlay", "map", "uncertainty") if kind in output.what]
    drawings = SmallDrawings(image, ensemble.task, drawn, len(ensemble.members), image_range(ensemble))
    facts = OutputFacts(path, output.folder, image.size, ensemble.task, output.formats)
    formats = {kind: row for kind in output.what if (row := SAVE[kind].format) is not None}
    collectors = {kind: row.collect(facts) for kind, row in formats.items()}
    files: list[Path] = []
    writers: dict[str, MapWriter] = {}
    writing = None
    with ExitStack() as opened:
        background = opened.enter_context(ThreadPoolExecutor(1, thread_name_prefix="write-rows"))
        for part in rows:
            valid = read_valid_rows(image, part.top, part.height)
            layers = {kind: stored(kind, part.planes, ensemble.task, valid) for kind in kinds}
            for kind in (kind for kind in kinds if kind not in writers):
                base = output.folder / f"{name}_{'mean' if kind == 'npy' else kind}"
                nodata = None if valid is None else no_data(layers[kind].dtype, ensemble.task, kind)
                file, writer = _writer(path, base, image.size, layers[kind], nodata)
                files.append(file)
                writers[kind] = opened.enter_context(writer)
            if writing is not None:
                writing.result()
            writing = background.submit(_write, writers, layers)
            drawings.add(part, valid)
            for collector in collectors.values():
                collector.add(_arrays(part, valid))
            progress(part.top + part.height, image.size[0])
        if writing is not None:
            writing.result()
        for kind in drawn:
            file = output.folder / f"{name}_{kind}{'.png' if kind == 'overlay' else VIEW}"
            write_png(file, drawings.drawn(kind).with_legend())
            files.append(file)
    return files + _write_formats(output, name, facts, collectors)


def _arrays(rows: Rows, valid: Array | None) -> MapRows:
    label = rows.planes.get("label")
    return MapRows(rows.top, rows.planes["mean"].numpy(), None if label is None else label.numpy(), valid)


def _write_formats(output: Output, name: str, facts: OutputFacts, collectors: Mapping[str, Collector]) -> list[Path]:
    """Write the formats with a file per image, and keep the records of the others."""
    files = []
    for kind, row in formats_of(output.what, per_image=True).items():
        assert facts.path is not None
        entry = Entry(facts.path.name, collectors[kind].record())
        row.write(file := output.folder / row.image_file(name), [entry], facts.task, facts.options)
        files.append(file)
    output.add_records(name, {kind: collectors[kind].record() for kind in output.folder_formats})
    return files


def _writer(source: Path, base: Path, size: Size, layer: Array, nodata: float | None) -> tuple[Path, Any]:
    bands = 1 if layer.ndim == 2 else len(layer)
    if source.suffix == ".zarr":
        return (path := base.with_name(f"{base.name}.zarr")), zarr_writer(path, size, bands, layer.dtype)
    path = base.with_name(f"{base.name}.tif")
    return path, tiff_writer(path, size, bands, layer.dtype, source, nodata)


def _write(writers: Mapping[str, MapWriter], layers: Mapping[str, Array]) -> None:
    for kind, writer in writers.items():
        writer.write(layers[kind])
