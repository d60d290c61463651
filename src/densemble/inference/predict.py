"""predict: the one entry point of the command line and of Python, from sources to predictions or to files."""

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args, overload

import torch

from densemble.ensemble.cascade import CascadeUse, Policy
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.input_images import as_images
from densemble.ensemble.membership import UnusableMaps
from densemble.errors import DataError, UsageError
from densemble.inference.compute import choose_policy, computing
from densemble.inference.failed_image import FailedImage
from densemble.inference.files.job import Output, Pace
from densemble.inference.files.journal import JOURNAL
from densemble.inference.files.pipeline import Seconds
from densemble.inference.files.predict_files import ONE_BY_ONE, predict_files, predict_images
from densemble.inference.image_prediction import ImagePrediction, require_saved
from densemble.inference.ranking import require_ranked, write_ranking
from densemble.inference.runtime.backends import BACKENDS, Precision
from densemble.inference.runtime.choose_backend import candidates
from densemble.inference.runtime.execution import Execution, say_nothing
from densemble.inference.runtime.fast_ensemble import fast
from densemble.inference.saved import SavedPrediction
from densemble.inference.sources import Item, Source, make_items
from densemble.inference.tiles.predict_large import is_windowed, predict_large
from densemble.inference.tiles.resize import BLOCK
from densemble.inference.tiles.tile_members import measure_reaches
from densemble.nets.dense import DenseModel
from densemble.nets.network_arguments import unwrapped
from densemble.storage.runs import require_writable

PRECISIONS = ("auto", *get_args(Precision))
_FOR_FILES = ("tile", "save", "rank_by", "again", "fingerprint")


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """How :func:`predict` predicts, and what it writes.

    Attributes:
        keep: stop early: run as few members as keep about this share of the ensemble's score, for instance 0.995.
        budget: stop early: spend at most this share of the ensemble's cost, for instance 0.4.
        batch: images of equal size that are computed together; default 1, and 8 where files are written. A larger batch
            is faster on a GPU, takes more memory, and may change the last bit of a map.
        tile: pixels along a side of the windows of files too large for memory; this and the following only with
            ``out``.
        save: kinds of files: ``map``, ``overlay``, ``uncertainty``, ``npy``, ``guarantee``.
        rank_by: writes ``ranking.csv``, the least certain image first: by ``entropy``, ``mutual_information``,
            ``disagreement`` or ``variance``.
        again: predict what an earlier run into the folder finished once more.
        fingerprint: identifies the ensemble in the folder, so that a later run continues only with the same one; the
            command uses :func:`densemble.storage.artifact.fingerprint`. Default: computed from tensors and settings.
        say: called with remarks, a line each: what was chosen, how long it took.
    """

    keep: float | None = None
    budget: float | None = None
    batch: int | None = None
    tile: int = BLOCK
    save: tuple[str, ...] = ("map", "overlay")
    rank_by: str | None = None
    again: bool = False
    fingerprint: str | None = None
    say: Callable[[str], None] = say_nothing


@overload
def predict(
    ensemble: Ensemble | DenseModel,
    source: Source | Iterable[Source],
    backend: str = ...,
    precision: str = ...,
    *,
    device: str | None = ...,
    out: None = ...,
    options: PredictOptions | None = ...,
) -> Iterator[ImagePrediction | FailedImage]: ...


@overload
def predict(
    ensemble: Ensemble | DenseModel,
    source: Source | Iterable[Source],
    backend: str = ...,
    precision: str = ...,
    *,
    device: str | None = ...,
    out: str | Path,
    options: PredictOptions | None = ...,
) -> Iterator[SavedPrediction | FailedImage]: ...


def predict(
    ensemble: Ensemble | DenseModel,
    source: Source | Iterable[Source],
    backend: str = "auto",
    precision: str = "auto",
    *,
    device: str | None = None,
    out: str | Path | None = None,
    options: PredictOptions | None = None,
) -> Iterator[ImagePrediction | FailedImage] | Iterator[SavedPrediction | FailedImage]:
    """Predictions one by one, in the order of the source; a generator: each is computed when it is asked for.

    Without ``out``, each is a :class:`ImagePrediction` at its image's own size, and a folder needs no more memory
    than an image. With ``out``, files are written while the generator runs, and each is a :class:`SavedPrediction`:
    first those of images that an earlier run with the same settings finished, then the others, and last those of files
    too large for memory, which are predicted by windows. Threads read and write the files ahead and behind.

    An image that cannot be read or predicted gives a :class:`FailedImage`, whose ``failed`` says why; of the others
    ``failed`` is ``None``.

    Args:
        ensemble: see :class:`Ensemble`, or a single network; runs in eval mode and is left as it is.
        source: a file, a folder, a glob, an array ``(H, W, 3)`` or ``(B, H, W, 3)``, a tensor ``(3, H, W)`` or
            ``(B, 3, H, W)``, a PIL image, a Dataset or DataLoader of images (or of images and targets), or any mixture
            of these in a list.
        backend: ``eager``, ``inductor``, ``onnxruntime``, ``openvino``; or ``auto``: for each member the fastest one
            with right numbers, measured here if there are images enough to be worth it.
        precision: the lowest that may be chosen: ``fp32``, ``bf16``, ``int8``; or ``auto``: bf16 where the hardware
            computes in it. A member is run in a lower precision only if its maps stay within
            :data:`densemble.inference.runtime.choose_backend.DRIFT` of those in fp32.
        device: where to compute: ``cpu``, ``cuda``, ...; ``auto``: the GPU if there is one; default: where the ensemble
            is. The ensemble stays where it is.
        out: folder to write files into.
        options: all further ones.

    Raises:
        DataError: nothing at a path.
        UsageError: a source that is an array or image of another shape or type, or no image at all; unknown backend,
            precision, device or kind of file; an option that the ensemble or the task does not have.
        ArtifactError: a member whose weights are not finite.
        ResourceError: the folder cannot be written.
    """
    check_execution(backend, precision)
    options = options or PredictOptions()
    items = make_items(source)
    ensemble = unwrapped(ensemble)
    plain = on_device(Ensemble([ensemble]) if isinstance(ensemble, DenseModel) else ensemble, device)
    if len(items) == 1 and items[0].path is None and not callable(items[0].image):
        as_images(items[0].image, plain.in_channels)  # the only image is no failure among others
    for_files = [name for name in _FOR_FILES if getattr(options, name) != getattr(PredictOptions(), name)]
    if out is None and for_files:
        raise UsageError(f"{for_files[0]} is for files: give a folder, out=...")
    policy = choose_policy(plain, options.keep, options.budget, options.say)
    if out is None:
        pace = ONE_BY_ONE if options.batch is None else Pace(options.batch, readers=0, writers=0)
        lean = prepared(plain, backend, precision, len(items), options.say, policy is None)
        return predict_images(lean, items, computing(lean, True, policy), pace)
    require_saved(options.save, plain)
    if options.rank_by is not None:
        require_ranked(options.rank_by, plain.task)
    pace = Pace() if options.batch is None else Pace(options.batch)
    fingerprint = options.fingerprint or _fingerprint(plain)
    asked = {"artifact": fingerprint, "backend": backend, "precision": precision, "keep": options.keep,
             "budget": options.budget, "min_members": plain.min_members}  # fmt: skip
    output = Output(require_writable(Path(out)), options.save, options.rank_by, asked)
    large = {item: item.path for item in items if item.path is not None and is_windowed(item.path, plain)}
    ordinary = [item for item in items if item not in large]
    lean = prepared(plain, backend, precision, len(ordinary), options.say, policy is None)

    def written() -> Iterator[SavedPrediction | FailedImage]:
        if ordinary:
            yield from _predict_whole(lean, ordinary, output, policy, pace, options)
        if large:
            whole = prepared(plain, backend, precision, None, options.say)
            yield from _predict_large(whole, [(path, item.name) for item, path in large.items()], output, options)

    return written()


def on_device(ensemble: Ensemble, device: str | None) -> Ensemble:
    """The ensemble on a device: itself if it is there, else a copy.

    Raises:
        UsageError: no such device.
    """
    if device is None:
        return ensemble
    present = next(ensemble.parameters()).device
    try:
        wanted = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        if wanted.type == present.type and wanted.index in (None, present.index):
            return ensemble
        return copy.deepcopy(ensemble).to(wanted)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"cannot put the ensemble on device '{device}': {str(error).splitlines()[0]}") from error


def _fingerprint(ensemble: Ensemble) -> str:
    digest = hashlib.sha256()
    for name, tensor in ensemble.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _predict_whole(
    ensemble: Ensemble,
    items: Sequence[Item],
    output: Output,
    policy: Policy | None,
    pace: Pace,
    options: PredictOptions,
) -> Iterator[SavedPrediction | FailedImage]:
    """Predicts images as a whole into files, writes the ranking, and says what it took."""
    if options.again:
        (output.folder / JOURNAL).unlink(missing_ok=True)
    used: list[CascadeUse] = []
    compute = computing(ensemble, output.maps(ensemble), policy, used.append)
    seconds, done = Seconds(), 0
    unsure: dict[str, float | None] = {}
    for result in predict_files(ensemble, items, compute, output, pace, options.say, seconds):
        if isinstance(result, SavedPrediction):
            done += not result.earlier
            unsure[result.name] = result.unsure
        yield result
    ranked = [(item.path or Path(item.name), value) for item in items if (value := unsure.get(item.name)) is not None]
    if done:
        wall = seconds.spent["wall"]
        share = seconds.spent["compute"] / wall
        options.say(f"{done / wall:.3g} images per second; {share:.0%} of the time networks")
    if used:
        total = sum(used[1:], used[0])
        stages = ", ".join(f"{count} after {stage}" for stage, count in enumerate(total.images, 1) if count)
        options.say(f"cascade: {total.cost:.2f} of all members' cost, {total.members:.2f} members an image ({stages})")
    if output.rank_by is not None and ranked:
        options.say(f"least sure first: {write_ranking(output.folder / 'ranking.csv', ranked, output.rank_by)}")


def _predict_large(
    ensemble: Ensemble, files: Sequence[tuple[Path, str]], output: Output, options: PredictOptions
) -> Iterator[SavedPrediction | FailedImage]:
    """Predicts files by windows; each comes with the name of its results."""
    reaches = measure_reaches(ensemble)
    for name, reach in reaches.items():
        how = "exact tiles" if reach.halo is not None else f"blended tiles, for {reach.why}"
        options.say(f"{name}: {how}")
    for path, name in files:
        told = _rows_done(path.name, options.say)
        try:
            yield predict_large(ensemble, path, name, output, options.tile, reaches, told)
        except DataError as error:
            yield FailedImage(name, path, str(error))
        except UnusableMaps as error:
            yield FailedImage(name, path, f"'{path}': {error}")


def _rows_done(name: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Says how many rows are done, about ten times for an image."""
    said = 0

    def progress(done: int, total: int) -> None:
        nonlocal said
        if done - said >= total / 10 or done == total:
            said = done
            say(f"{name}: {done}/{total} rows")

    return progress


def check_execution(backend: str, precision: str) -> None:
    """Checks a backend's and a precision's name.

    Raises:
        UsageError: unknown; those that are get listed.
    """
    if backend not in ("auto", *BACKENDS):
        raise UsageError(f"no backend is named '{backend}'; there are: {', '.join(('auto', *BACKENDS))}")
    if precision not in PRECISIONS:
        raise UsageError(f"no precision is named '{precision}'; there are: {', '.join(PRECISIONS)}")


def prepared(
    ensemble: Ensemble,
    backend: str = "eager",
    precision: str = "fp32",
    expected: int | None = None,
    say: Callable[[str], None] = say_nothing,
    together: bool = True,
) -> Ensemble:
    """A copy in eval mode that gives the same maps with less work; only for use.

    Networks are rewritten (:mod:`densemble.nets.rewrite`) and run on backends
    (:mod:`densemble.inference.runtime.fast_ensemble`).

    Args:
        ensemble: left as it is.
        backend: see :func:`predict`.
        precision: see :func:`predict`.
        expected: images that will come, for ``auto``: few are not worth tuning for; ``None``: many.
        say: told what was chosen.
        together: members share what they can; not for cascades, see :func:`.fast_ensemble.fast`.

    Raises:
        UsageError: unknown backend or precision, or one that cannot be used here.
    """
    check_execution(backend, precision)
    candidates(backend, precision, next(ensemble.parameters()).device)
    few = expected if backend == "auto" and precision in ("auto", "fp32") else None
    return fast(ensemble, Execution(backend, precision, ensemble.task.activation, few, say), together)
