"""predict: what an artifact says about pictures, few or thousands, small or larger than memory."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densemble.commands.evaluate import require_everyone
from densemble.commands.output import say
from densemble.commands.progress import PictureProgress
from densemble.commands.settings import ArtifactPath, Function, MinMembers

if TYPE_CHECKING:
    from densemble.ensemble.cascade import Cascade, Policy
    from densemble.ensemble.ensemble import Ensemble
    from densemble.inference.batch import Job, Progress, Report


def predict(
    artifact: ArtifactPath,
    source: Annotated[list[str], typer.Argument(help="Pictures, folders, globs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into.")],
    save: Annotated[
        str, typer.Option(help="Of map, overlay, uncertainty, npy, guarantee; joined by commas.")
    ] = "map,overlay",
    backend: Annotated[str, typer.Option(help="auto, eager, inductor, onnxruntime or openvino.")] = "auto",
    precision: Annotated[str, typer.Option(help="The lowest permitted: auto, fp32, bf16 or int8.")] = "auto",
    keep: Annotated[
        float | None,
        typer.Option(help="Stop early; keep about this share of the ensemble's score, for instance 0.995."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Stop early so that it costs at most this share, for instance 0.4.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    batch: Annotated[int, typer.Option(help="Pictures that are computed together.")] = 8,
    tile: Annotated[int, typer.Option(help="Pixels along a side of the windows of large pictures.")] = 1024,
    again: Annotated[bool, typer.Option("--again", help="Predict what an earlier run finished once more.")] = False,
    rank_by: Annotated[
        str | None,
        typer.Option(
            help="Write ranking.csv, the least sure picture first: entropy, mutual_information, disagreement, variance."
        ),
    ] = None,
    function: Function = None,
    min_members: MinMembers = None,
) -> None:
    """Predict pictures; maps and overlays are written at each picture's own size.

    A second run with the same settings does only what is missing.
    """
    from densemble.errors import UsageError
    from densemble.inference.batch import Job
    from densemble.inference.names import output_names
    from densemble.inference.picture import SAVE, require_saved
    from densemble.inference.predictor import check_execution, find_pictures, prepared
    from densemble.inference.ranking import require_ranked, write_ranking
    from densemble.storage.artifact import fingerprint, load
    from densemble.storage.runs import require_writable

    check_execution(backend, precision)
    what = tuple(kind.strip() for kind in save.split(",") if kind.strip())
    unknown = [kind for kind in what if kind not in SAVE]
    if unknown or not what:
        raise UsageError(f"--save {save}: there are: {', '.join(SAVE)}, joined by commas")
    pictures = list(dict.fromkeys(path for item in source for path in find_pictures(item)))
    require_writable(out)
    plain = load(artifact, device, function or (), min_members)
    policy = _policy(plain, keep, budget)
    if rank_by is not None:
        require_ranked(rank_by, plain.task)
    require_saved(what, plain)
    large, ordinary = _by_size(pictures, plain)
    ensemble = prepared(plain, backend, precision, len(ordinary), say, policy is None)
    asked = {"artifact": fingerprint(artifact), "backend": backend, "precision": precision, "keep": keep,
             "budget": budget, "min_members": min_members}  # fmt: skip
    names = dict(zip(pictures, output_names(pictures), strict=True))
    failed: list[str] = []
    without: list[tuple[str, Mapping[str, str]]] = []
    if ordinary:
        job = Job(ordinary, [names[path] for path in ordinary], out, what, rank_by, asked)
        report = _predict_files(ensemble, job, policy, batch, again)
        failed += report.failed
        without += [(str(path), members) for path, members in report.without]
        if rank_by is not None and report.ranked:
            say(f"least sure first: {write_ranking(out / 'ranking.csv', report.ranked, rank_by)}")
    if large:
        quick = prepared(plain, backend, precision, None, say)
        failed += _predict_large(quick, large, names, out, what, tile, without)
    _conclude(len(pictures), failed, out)
    require_everyone(plain, without)


def _policy(ensemble: "Ensemble", keep: float | None, budget: float | None) -> "Policy | None":
    """When to stop early.

    Raises:
        UsageError: both are asked for, or an ensemble without a cascade.
    """
    from densemble.errors import UsageError

    if keep is None and budget is None:
        return None
    if keep is not None and budget is not None:
        raise UsageError("--keep and --budget contradict each other; give one of them")
    if ensemble.cascade is None:
        raise UsageError("this artifact has no cascade; make one with `densemble assemble` from two members or more")
    policy = ensemble.cascade.for_keep(keep) if keep is not None else ensemble.cascade.for_budget(budget or 0.0)
    for line in _policy_lines(ensemble.cascade, policy, keep, budget):
        say(line)
    return policy


def _policy_lines(cascade: "Cascade", policy: "Policy", keep: float | None, budget: float | None) -> list[str]:
    """What is known about a chosen policy: on the images that it was fitted on, and cross-fitted."""
    stops = f"stops when {policy.measure} < {policy.threshold:.3g}" if policy.threshold else "all members that it has"
    kept = "" if policy.kept is None else f" and keeps {policy.kept:.4f} of {cascade.metric}"
    fitted = f"costs {policy.cost:.2f} of all members{kept} (fitted on these {cascade.pictures} images)"
    check = cascade.check_near("keep", keep) if keep is not None else cascade.check_near("budget", budget or 0.0)
    if check is None:
        checked = "not cross-fitted: its cost and score on other images are unknown"
    else:
        kept = "" if check.kept is None else f" and keeps {check.kept:.4f} of {cascade.metric}"
        checked = (
            f"fitted on one half of the images and measured on the other, --{check.asked} {check.share:g} "
            f"costs {check.cost:.2f} of all members{kept}"
        )
    return [f"cascade: {' -> '.join(policy.members)}, {stops}; {fitted}", f"cascade: {checked}"]


def _by_size(pictures: list[Path], ensemble: "Ensemble") -> tuple[list[Path], list[Path]]:
    """Those that are read by windows, and the others; what cannot be opened is told of with the others."""
    from densemble.errors import DataError
    from densemble.inference.large import pixels_at_once
    from densemble.storage.large import is_large

    large, most = [], pixels_at_once(ensemble)
    for path in pictures:
        try:
            if path.suffix == ".zarr" or is_large(path, most):
                large.append(path)
        except DataError:
            continue
    chosen = set(large)
    return large, [path for path in pictures if path not in chosen]


def _predict_files(ensemble: "Ensemble", job: "Job", policy: "Policy | None", batch: int, again: bool) -> "Report":
    from densemble.ensemble.cascade import CascadeUse
    from densemble.inference.batch import Pace, predict_files
    from densemble.inference.batch_journal import JOURNAL
    from densemble.inference.computing import computing

    if again:
        (job.out / JOURNAL).unlink(missing_ok=True)
    used: list[CascadeUse] = []
    compute = computing(ensemble, job.uncertainty(ensemble.task), policy, used.append)
    with PictureProgress() as bar:

        def progress(made: "Progress") -> None:
            bar.update(made.done, made.total, made.skipped)

        report = predict_files(ensemble, job, compute, Pace(batch), progress, bar.say)
    if report.skipped:
        say(f"{report.skipped} pictures were finished earlier (--again: predict them once more)")
    if report.done:
        wall = report.seconds["wall"]
        say(
            f"{report.done / wall:.3g} pictures per second; {report.seconds['compute'] / wall:.0%} of the time networks"
        )
    if used:
        total = sum(used[1:], used[0])
        stages = ", ".join(f"{count} after {stage}" for stage, count in enumerate(total.pictures, 1) if count)
        say(f"cascade: {total.cost:.2f} of all members' cost, {total.members:.2f} members an image ({stages})")
    return report


def _predict_large(
    ensemble: "Ensemble",
    pictures: list[Path],
    names: dict[Path, str],
    out: Path,
    what: tuple[str, ...],
    tile: int,
    without: list[tuple[str, Mapping[str, str]]],
) -> list[str]:
    """Predicts pictures by windows; gives why some could not be, and adds those that lack members to ``without``."""
    from densemble.ensemble.membership import UnusableMaps
    from densemble.errors import DataError
    from densemble.inference.large import predict_large
    from densemble.inference.tile_members import measure_reaches

    reaches = measure_reaches(ensemble)
    for name, reach in reaches.items():
        say(f"{name}: {'exact tiles' if reach.halo is not None else f'blended tiles, for {reach.why}'}")
    failed = []
    for path in pictures:

        def told(members: Mapping[str, str], picture: str = str(path)) -> None:
            without.append((picture, members))
            for name, reason in members.items():
                say(f"'{picture}': predicted without member '{name}', which {reason}")

        try:
            predict_large(ensemble, path, out, names[path], what, tile, reaches, _rows_done(path.name), told)
        except (DataError, UnusableMaps) as error:
            failed.append(f"'{path}': {error}" if isinstance(error, UnusableMaps) else str(error))
            say(f"failed: {failed[-1]}")
    return failed


def _rows_done(name: str) -> Callable[[int, int], None]:
    told = [0]

    def progress(done: int, total: int) -> None:
        if done - told[0] >= total / 10 or done == total:
            told[0] = done
            say(f"{name}: {done}/{total} rows")

    return progress


def _conclude(total: int, failed: list[str], out: Path) -> None:
    """Says how it went.

    Raises:
        DataError: none could be read or predicted.
        PartialError: some could not.
    """
    from densemble.errors import DataError, PartialError

    say(f"{total - len(failed)} of {total} pictures predicted into {out}")
    if failed and len(failed) == total:
        raise DataError(f"no picture could be predicted: {failed[0]}")
    if failed:
        raise PartialError(f"{len(failed)} of {total} pictures failed, the others are done: {failed[0]}")
