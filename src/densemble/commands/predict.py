"""predict: prediction of images with an artifact; few or thousands, small or larger than memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from densemble.commands.evaluate import require_all_members
from densemble.commands.named_values import BACKENDS, PRECISIONS, RANKINGS, SAVE, completed, listed
from densemble.commands.output import print_json, say
from densemble.commands.progress import ImageProgress
from densemble.commands.shared_options import ArtifactPath, Function, Json, MinMembers, Quiet


def predict(
    artifact: ArtifactPath,
    source: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, globs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into.")],
    save: Annotated[
        str,
        typer.Option(
            autocompletion=completed(SAVE, several=True),
            help=f"Kinds of files, separated by commas: {listed(SAVE, 'and')}.",
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
        typer.Option(help="Stop early; keep about this share of the ensemble's score, for instance 0.995."),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(help="Stop early; spend at most this share of the cost, for instance 0.4."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    batch: Annotated[int, typer.Option(help="Number of images that are computed together.")] = 8,
    tile: Annotated[int, typer.Option(help="Side of the windows of large images, in pixels.")] = 1024,
    again: Annotated[bool, typer.Option("--again", help="Predict images again that an earlier run finished.")] = False,
    rank_by: Annotated[
        str | None,
        typer.Option(
            autocompletion=completed(RANKINGS),
            help=f"Write ranking.csv, least certain image first: {listed(RANKINGS)}.",
        ),
    ] = None,
    save_option: Annotated[
        list[str] | None,
        typer.Option(
            help="Option of the formats, NAME=VALUE: components=true, crs=wgs84, from_name=, to_name=, data_key=, "
            "image_url=, model_version=."
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
    from densemble.commands.argument_order import require_artifact_first
    from densemble.commands.overrides import format_options
    from densemble.commands.results import predict_values
    from densemble.inference.predict import PredictOptions
    from densemble.inference.predict import predict as predictions
    from densemble.inference.saved import SavedPrediction
    from densemble.inference.sources import find_images
    from densemble.storage.artifact import fingerprint, load

    require_artifact_first("predict", artifact, source)
    images = list(dict.fromkeys(path for item in source for path in find_images(item)))
    ensemble = load(artifact, device, function or (), min_members)
    failed: list[str] = []
    saved: list[SavedPrediction] = []
    left_out: list[tuple[str, Mapping[str, str]]] = []
    earlier = 0
    with ImageProgress() as bar:
        options = PredictOptions(
            keep=keep, budget=budget, batch=batch, tile=tile, rank_by=rank_by, again=again,
            save=tuple(kind.strip() for kind in save.split(",") if kind.strip()), fingerprint=fingerprint(artifact),
            formats=format_options(save_option or []),
        )  # fmt: skip
        bar.update(0, len(images), 0)
        for done, p in enumerate(predictions(ensemble, images, backend, precision, out=out, options=options), 1):
            if p.failed is not None:
                failed.append(p.failed)
                bar.say(f"failed: {p.failed}")
            elif isinstance(p, SavedPrediction):
                saved.append(p)
                earlier += p.earlier
                left_out.append((str(p.path), p.without))
                for name, reason in p.without.items() if not p.earlier else ():
                    bar.say(f"'{p.path}': predicted without member '{name}', which {reason}")
            bar.update(done, len(images), earlier)
    if earlier:
        say(f"{earlier} images were finished earlier (--again predicts them again)")
    if json:
        print_json(predict_values(artifact, out, saved, failed))
    _conclude(len(images), failed, out)
    require_all_members(ensemble, left_out)


def _conclude(total: int, failed: list[str], out: Path) -> None:
    """Print the number of predicted images.

    Raises:
        DataError: no image could be read or predicted.
        PartialError: some images could not.
    """
    from densemble.errors import DataError, PartialError

    say(f"{total - len(failed)} of {total} images predicted into {out}")
    if failed and len(failed) == total:
        raise DataError(f"no image could be predicted: {failed[0]}")
    if failed:
        raise PartialError(f"{len(failed)} of {total} images failed, the others are done: {failed[0]}")
