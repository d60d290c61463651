"""predict: the entry point of the command line and of Python, from sources to predictions or files."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, Unpack, get_args, overload

from densemble.ensemble.cascade import CascadeUse, Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.input_images import as_images
from densemble.ensemble.membership import UnusableMaps
from densemble.ensemble.state import fingerprint_of
from densemble.errors import DataError, UsageError, did_you_mean
from densemble.inference.compute import batch_predictor, choose_policy
from densemble.inference.failed_image import FailedImage
from densemble.inference.file_kinds import SAVE, require_fits, require_saved
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.journal import JOURNAL
from densemble.inference.files.pipeline import Seconds
from densemble.inference.files.predict_files import ONE_BY_ONE, finished_items, predict_files, predict_images
from densemble.inference.files.records import RECORDS, Records, write_folder_files
from densemble.inference.formats import FormatOptions
from densemble.inference.image_prediction import ImagePrediction
from densemble.inference.ranking import require_ranked, write_ranking
from densemble.inference.runtime.backends import BACKENDS, Precision
from densemble.inference.runtime.choose_backend import candidates
from densemble.inference.runtime.execution import Execution
from densemble.inference.runtime.fast_ensemble import execution_of, make_fast_ensemble
from densemble.inference.runtime.streamed import is_streamed, placed
from densemble.inference.saved import SavedPrediction
from densemble.inference.sources import Item, Source, make_items
from densemble.inference.tiles.predict_large import is_windowed, predict_large
from densemble.inference.tiles.resize_blocks import BLOCK
from densemble.inference.tiles.tile_members import measure_reaches
from densemble.nets.dense import DenseModel
from densemble.nets.network_arguments import unwrapped
from densemble.progress.phases import Phase, phase
from densemble.storage.folder_lock import alone_in, folder_lock
from densemble.storage.writing import require_writable
from densemble.tasks import Task

PRECISIONS = ("auto", *get_args(Precision))
_FOR_FILES = ("tile", "save", "formats", "rank_by", "again", "fingerprint")

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of :func:`predict`.

    Attributes:
        keep: stop early: run the fewest members that keep about this share of the ensemble's score, for instance 0.995.
        budget: stop early: spend at most this share of the ensemble's cost, for instance 0.4.
        batch: number of images of equal size that are computed together; default 1, with ``out`` 8, on a GPU 32. A
            larger batch is faster on a GPU, takes more memory, and may change the last bit of a map.
        tile: side of the windows of files too large for memory, in pixels. This and the following options need ``out``.
        save: kinds of files: ``map``, ``overlay``, ``uncertainty``, ``npy``, ``guarantee``, ``coco``,
            ``coco-polygons``, ``geojson``, ``labelstudio``, ``cvat``, ``csv``.
        formats: options of the last six kinds.
        rank_by: write ``ranking.csv``, the least certain image first: by ``entropy``, ``mutual_information``,
            ``disagreement`` or ``variance``.
        again: predict images again that an earlier run into the folder finished.
        fingerprint: identifies the ensemble in the folder, so that a later run continues only with the same one; the
            command uses :func:`densemble.storage.artifact.fingerprint`. Default: computed from tensors and settings.
    """

    keep: float | None = None
    budget: float | None = None
    batch: int | None = None
    tile: int = BLOCK
    save: tuple[str, ...] = ("map", "overlay")
    formats: FormatOptions = field(default_factory=FormatOptions)
    rank_by: str | None = None
    again: bool = False
    fingerprint: str | None = None


class PredictKeywords(TypedDict, total=False):
    """The fields of :class:`PredictOptions` as keyword arguments."""

    keep: float | None
    budget: float | None
    batch: int | None
    tile: int
    save: tuple[str, ...]
    formats: FormatOptions
    rank_by: str | None
    again: bool
    fingerprint: str | None


@overload
def predict(
    ensemble: Ensemble | DenseModel,
    source: Source | Iterable[Source],
    backend: str = ...,
    precision: str = ...,
    *,
    device: str = ...,
    out: None = ...,
    options: PredictOptions | None = ...,
    **more: Unpack[PredictKeywords],
) -> Iterator[ImagePrediction | FailedImage]: ...


@overload
def predict(
    ensemble: Ensemble | DenseModel,
    source: Source | Iterable[Source],
    backend: str = ...,
    precision: str = ...,
    *,
    device: str = ...,
    out: str | Path,
    options: PredictOptions | None = ...,
    **more: Unpack[PredictKeywords],
) -> Iterator[SavedPrediction | FailedImage]: ...


def predict(
    ensemble: Ensemble | DenseModel,
    source: Source | Iterable[Source],
    backend: str = "auto",
    precision: str = "auto",
    *,
    device: str = "auto",
    out: str | Path | None = None,
    options: PredictOptions | None = None,
    **more: Unpack[PredictKeywords],
) -> Iterator[ImagePrediction | FailedImage] | Iterator[SavedPrediction | FailedImage]:
    """Predict images one by one; a generator that computes each prediction when it is requested.

    Without ``out``, it yields an :class:`ImagePrediction` at the size of each image, in the order of the source, and a
    folder needs no more memory than one image. With ``out``, it writes files and yields a :class:`SavedPrediction` for
    each image: first the images that an earlier run with the same settings finished, then the others, and last the
    files too large for memory, which are predicted in windows. Threads read files ahead and write in the background.

    An image that cannot be read or predicted gives a :class:`FailedImage`, whose ``failed`` holds the reason; it is
    ``None`` for all other results. What was selected and how long it took is logged by the loggers ``densemble.*``.

    Args:
        ensemble: see :class:`Ensemble`, or a single network; runs in eval mode and is not changed.
        source: a file, a folder, a glob, an array ``(H, W, 3)`` or ``(B, H, W, 3)``, a tensor ``(3, H, W)`` or
            ``(B, 3, H, W)``, a PIL image, a Dataset or DataLoader of images (or of images and targets), or a list of
            these.
        backend: ``eager``, ``cudagraph``, ``inductor``, ``onnxruntime``, ``openvino``; or ``auto``: for each member the
            fastest one with right outputs, measured on this machine if there are enough images to save time.
        precision: the lowest permitted precision: ``fp32``, ``bf16``, ``int8``; or ``auto``: bf16 if the hardware
            supports it. A member runs in a lower precision only if its maps stay within
            :data:`densemble.inference.runtime.choose_backend.DRIFT` of those in fp32.
        device: where to compute: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto``: the GPU if there is one. The ensemble
            itself is not moved.
        out: folder to write files into.
        options: further options.
        more: fields of :class:`PredictOptions`, such as ``keep=0.995``; they override those of ``options``.

    Raises:
        DataError: there is no image at a path.
        UsageError: a source that is not an image or has an unsupported shape or type; unknown backend, precision,
            device or kind of file; an option that the ensemble or the task does not support.
        ArtifactError: a member whose weights are not finite.
        ResourceError: the folder cannot be written.
    """
    check_execution(backend, precision)
    options = _with_keywords(options or PredictOptions(), more)
    items = make_items(source)
    ensemble = unwrapped(ensemble)
    plain = placed(Ensemble([ensemble]) if isinstance(ensemble, DenseModel) else ensemble, device)
    if len(items) == 1 and items[0].path is None and not callable(items[0].image):
        as_images(items[0].image, plain.in_channels)  # raise for a single wrong image instead of a FailedImage
    for_files = [name for name in _FOR_FILES if getattr(options, name) != getattr(PredictOptions(), name)]
    if out is None and for_files:
        raise UsageError(f"{for_files[0]} is for files: pass a folder, out=...")
    policy = choose_policy(plain, options.keep, options.budget)
    if out is None:
        pace = ONE_BY_ONE if options.batch is None else Pace(options.batch, readers=0, writers=0)
        fast = prepared(plain, backend, precision, len(items), policy is None)
        return predict_images(fast, items, batch_predictor(fast, True, policy), pace)
    require_saved(options.save, plain)
    if options.rank_by is not None:
        require_ranked(options.rank_by, plain.task)
    pace = Pace.for_device(next(plain.parameters()).device, options.batch)
    options = replace(options, fingerprint=options.fingerprint or fingerprint_of(plain))
    folder = require_writable(Path(out))
    with folder_lock(folder, deep=False):  # refused before the networks are prepared
        pass
    output = _output(folder, options, backend, precision, plain.min_members)
    large = {item: item.path for item in items if item.path is not None and is_windowed(item.path, plain)}
    for path in large.values():
        require_fits(options.save, path, plain)
    ordinary = [item for item in items if item not in large]
    fast = prepared(plain, backend, precision, len(ordinary), policy is None)

    def saved(output: Output) -> Iterator[SavedPrediction | FailedImage]:
        if ordinary:
            yield from _predict_whole(fast, ordinary, output, policy, pace)
        if large:
            for_windows = prepared(plain, backend, precision)
            names = [(path, item.name) for item, path in large.items()]
            yield from _predict_in_windows(for_windows, names, output, options.tile)

    return alone_in(folder, _with_folder_files(saved, items, output, plain.task, options.again))


def finished_earlier(
    source: Source | Iterable[Source], out: Path, backend: str, precision: str, options: PredictOptions
) -> list[SavedPrediction]:
    """Return the results of an earlier run of :func:`predict` into a folder, without loading the ensemble.

    Args:
        source, out, backend, precision: see :func:`predict`.
        options: as in the earlier run, with the fingerprint of the ensemble, all of whose members are required.

    Returns:
        The results; empty if an image is missing, or files of the whole folder have to be written again.
    """
    output = _output(out, options, backend, precision, None)
    if options.again or options.rank_by is not None or not SAVE.keys() >= set(options.save) or output.folder_formats:
        return []
    if not output.folder.is_dir():
        return []
    with folder_lock(output.folder, deep=False):
        return finished_items(make_items(source), output)


def _output(folder: Path, options: PredictOptions, backend: str, precision: str, min_members: int | None) -> Output:
    settings = {"artifact": options.fingerprint, "backend": backend, "precision": precision, "keep": options.keep,
                "budget": options.budget, "min_members": min_members}  # fmt: skip
    return Output(folder, options.save, options.rank_by, settings, options.formats)


def _with_keywords(options: PredictOptions, keywords: PredictKeywords) -> PredictOptions:
    """Return the options with some other values.

    Raises:
        UsageError: no option has this name.
    """
    for name in keywords:
        if name not in PredictKeywords.__annotations__:
            known = PredictKeywords.__annotations__
            hint = did_you_mean(name, known)
            raise UsageError(f"predict has no option '{name}'; {hint}there are: {', '.join(known)}")
    return replace(options, **keywords)


def _with_folder_files(
    saved: Callable[[Output], Iterator[SavedPrediction | FailedImage]],
    items: Sequence[Item],
    output: Output,
    task: Task,
    again: bool,
) -> Iterator[SavedPrediction | FailedImage]:
    """Yield the results of ``saved``, and write the files with one entry per image after the last one."""
    if again:
        for name in (JOURNAL, RECORDS):
            (output.folder / name).unlink(missing_ok=True)
    rows = output.folder_formats
    if not rows:
        yield from saved(output)
        return
    with Records(output.folder, output.all_settings) as records:
        done: set[str] = set()
        for result in saved(replace(output, records=records)):
            if isinstance(result, SavedPrediction):
                done.add(result.name)
            yield result
        images = [(item.name, item.path) for item in items if item.name in done]
        if images:
            version = output.formats.model_version or f"densemble {output.settings['artifact'][:8]}"
            options = replace(output.formats, model_version=version)
            for path in write_folder_files(output.folder, rows, images, records, task, options):
                log.info(f"{len(images)} images in '{path}'")


def _predict_whole(
    ensemble: Ensemble,
    items: Sequence[Item],
    output: Output,
    policy: Policy | None,
    pace: Pace,
) -> Iterator[SavedPrediction | FailedImage]:
    """Predict whole images into files, write the ranking, and log time and cost."""
    used: list[CascadeUse] = []
    compute = batch_predictor(ensemble, output.maps(ensemble), policy, used.append)
    seconds, done = Seconds(), 0
    uncertainty: dict[str, float | None] = {}
    for result in predict_files(ensemble, items, compute, output, pace, seconds):
        if isinstance(result, SavedPrediction):
            done += not result.earlier
            uncertainty[result.name] = result.unsure
        yield result
    ranked = [(item.path or Path(item.name), v) for item in items if (v := uncertainty.get(item.name)) is not None]
    if done:
        wall = seconds.spent["wall"]
        share = seconds.spent["compute"] / wall
        log.info(f"{done / wall:.3g} images per second, {share:.0%} of the time in networks ({execution_of(ensemble)})")
    if used:
        total = sum(used[1:], used[0])
        stages = ", ".join(f"{count} after {stage}" for stage, count in enumerate(total.images, 1) if count)
        log.info(f"cascade: {total.cost:.2f} of all members' cost, {total.members:.2f} members per image ({stages})")
    if output.rank_by is not None and ranked:
        log.info(f"least certain first: {write_ranking(output.folder / 'ranking.csv', ranked, output.rank_by)}")


def _predict_in_windows(
    ensemble: Ensemble, files: Sequence[tuple[Path, str]], output: Output, tile: int
) -> Iterator[SavedPrediction | FailedImage]:
    """Predict files in windows; ``files`` holds each path with the name of its results."""
    reaches = measure_reaches(ensemble)
    for name, reach in reaches.items():
        tiles = "exact tiles" if reach.halo is not None else f"blended tiles, because {reach.why}"
        log.info(f"{name}: {tiles}")
    for path, name in files:
        try:
            log.info(f"{path.name}: in windows of {tile} pixels")
            with phase(path.name, unit="rows") as rows:
                yield predict_large(ensemble, path, name, output, tile, reaches, _counter(rows))
        except DataError as error:
            yield FailedImage(name, path, str(error))
        except UnusableMaps as error:
            yield FailedImage(name, path, f"'{path}': {error}")


def _counter(rows: Phase) -> Callable[[int, int], None]:
    """Make a function that counts the finished rows of an image."""

    def progress(done: int, total: int) -> None:
        rows.total = total
        rows.start(done, "")

    return progress


def check_execution(backend: str, precision: str) -> None:
    """Check the names of a backend and a precision.

    Raises:
        UsageError: unknown name; the message lists the available ones.
    """
    if backend not in ("auto", *BACKENDS):
        hint = did_you_mean(backend, ("auto", *BACKENDS))
        raise UsageError(f"no backend is named '{backend}'; {hint}available: {', '.join(('auto', *BACKENDS))}")
    if precision not in PRECISIONS:
        hint = did_you_mean(precision, PRECISIONS)
        raise UsageError(f"no precision is named '{precision}'; {hint}available: {', '.join(PRECISIONS)}")


def prepared(
    ensemble: Ensemble,
    backend: str = "eager",
    precision: str = "fp32",
    expected: int | None = None,
    shared: bool = True,
) -> Ensemble:
    """Return a copy in eval mode that computes the same maps faster; it cannot be trained or saved.

    Networks are rewritten (:mod:`densemble.nets.rewrite`) and run on backends
    (:mod:`densemble.inference.runtime.fast_ensemble`).

    Args:
        ensemble: not changed.
        backend: see :func:`predict`.
        precision: see :func:`predict`.
        expected: number of images to come; with ``auto``, networks are tuned only if that saves time. ``None``: many.
        shared: members share computation; not for cascades, see :func:`.fast_ensemble.make_fast_ensemble`.

    Raises:
        UsageError: unknown backend or precision, or one that cannot be used here.
    """
    check_execution(backend, precision)
    if is_streamed(ensemble):
        return ensemble
    candidates(backend, precision, next(ensemble.parameters()).device)
    limit = expected if backend == "auto" and precision in ("auto", "fp32") else None
    return make_fast_ensemble(ensemble, Execution(backend, precision, ensemble.task.activation, limit), shared)
