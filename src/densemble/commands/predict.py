"""The command ``predict``: predict images with an artifact and write the maps to files."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.evaluate import require_all_members
from densemble.commands.named_values import BACKENDS, PRECISIONS, RANKINGS, SAVE, completed, listed
from densemble.commands.output import print_json, say, warn
from densemble.commands.progress import command_progress
from densemble.commands.shared_options import ArtifactPath, Device, Function, Json, MinMembers, Quiet

if TYPE_CHECKING:
    from densemble.ensemble.ensemble import Ensemble
    from densemble.inference.saved import SavedPrediction


def predict(
    artifact: ArtifactPath,
    source: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Image files, folders or globs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into.")],
    save: Annotated[
        str,
        typer.Option(
            autocompletion=completed(SAVE, several=True),
            help=f"Kinds of files to write, separated by commas: {listed(SAVE, 'and')}.",
        ),
    ] = "map,overlay",
    backend: Annotated[
        str, typer.Option(autocompletion=completed(BACKENDS), help=f"Backend: {listed(BACKENDS)}.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(autocompletion=completed(PRECISIONS), help=f"Lowest permitted precision: {listed(PRECISIONS)}."),
    ] = "auto",
    keep: Annotated[
        float | None,
        typer.Option(help="Stop early with a cascade that keeps about this share of the score, for example 0.995."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Stop early with a cascade that takes at most this share of the cost, for example 0.4."),
    ] = None,
    device: Device = "auto",
    batch: Annotated[
        int | None,
        typer.Option(help="Number of images that are computed together. Default: 8, on a GPU 32."),
    ] = None,
    tile: Annotated[int, typer.Option(help="Side of the windows of large images, in pixels.")] = 1024,
    again: Annotated[
        bool, typer.Option("--again", help="Also predict the images that an earlier run finished.")
    ] = False,
    rank_by: Annotated[
        str | None,
        typer.Option(
            autocompletion=completed(RANKINGS),
            help=f"Write ranking.csv, least certain image first, by {listed(RANKINGS)}.",
        ),
    ] = None,
    save_option: Annotated[
        list[str] | None,
        typer.Option(
            help="Option of a file format, NAME=VALUE: components=true, crs=wgs84, from_name=, to_name=, data_key=, "
            "image_url= or model_version=. Can be given several times."
        ),
    ] = None,
    function: Function = None,
    min_members: MinMembers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict images; maps and overlays are written at the size of each image.

    A second run with the same settings predicts only the missing images.
    """
    from densemble.commands.results import predict_values

    failed: list[str] = []
    saved: list[SavedPrediction] = []
    ensemble: Ensemble | None = None
    with command_progress():
        from densemble.commands.argument_order import require_artifact_first
        from densemble.commands.overrides import format_options
        from densemble.inference.predict import PredictOptions, finished_earlier
        from densemble.inference.predict import predict as predictions
        from densemble.inference.sources import find_images
        from densemble.storage.artifact import fingerprint, load

        require_artifact_first("predict", artifact, source)
        images = list(dict.fromkeys(path for item in source for path in find_images(item)))
        options = PredictOptions(
            keep=keep, budget=budget, batch=batch, tile=tile, rank_by=rank_by, again=again,
            save=tuple(kind.strip() for kind in save.split(",") if kind.strip()), fingerprint=fingerprint(artifact),
            formats=format_options(save_option or []),
        )  # fmt: skip
        if min_members is None:
            saved += finished_earlier(images, out, backend, precision, options)
        if not saved:
            ensemble = load(artifact, "cpu", function or (), min_members)
            results = predictions(ensemble, images, backend, precision, device=device, out=out, options=options)
            _collect(results, len(images), saved, failed)
    if json:
        print_json(predict_values(artifact, out, saved, failed))
    _conclude(len(images), sum(p.earlier for p in saved), failed, out)
    if ensemble is not None:
        require_all_members(ensemble, [(str(p.path), p.without) for p in saved])


def _collect(results: Iterable[Any], total: int, saved: "list[SavedPrediction]", failed: list[str]) -> None:
    """Show progress, sort the results into ``saved`` and ``failed``, and warn about each failure at once."""
    from densemble.inference.saved import SavedPrediction
    from densemble.progress.phases import phase

    with phase("predicting", total, "images") as predicting:
        for p in results:
            if p.failed is not None:
                failed.append(p.failed)
                warn(f"failed: {p.failed}")
            elif isinstance(p, SavedPrediction):
                saved.append(p)
                predicting.skipped += p.earlier
                for name, reason in p.without.items() if not p.earlier else ():
                    warn(f"'{p.path}': predicted without member '{name}', which {reason}")
            predicting.advance()


def _conclude(total: int, earlier: int, failed: list[str], out: Path) -> None:
    """Print the number of predicted images, and of those that an earlier run finished.

    Raises:
        DataError: no image could be read or predicted.
        PartialError: some images could not be read or predicted.
    """
    from densemble.errors import DataError, PartialError

    if earlier:
        all_of = "all " if earlier == total else ""
        say(f"{all_of}{earlier} images were finished earlier in {out} (--again predicts them again)")
    if earlier < total:
        say(f"{total - earlier - len(failed)} of {total} images predicted into {out}")
    if failed and len(failed) == total:
        raise DataError(f"no image could be predicted: {failed[0]}")
    if failed:
        raise PartialError(f"{len(failed)} of {total} images failed, the others are done: {failed[0]}")
