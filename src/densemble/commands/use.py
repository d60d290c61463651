"""evaluate, predict: what an artifact is worth and what it says."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.output import print_json, print_scores, say
from densemble.commands.settings import ArtifactPath, DataPath, Function, Json, MinMembers, Set

if TYPE_CHECKING:
    from densemble.ensemble.ensemble import Ensemble


def evaluate(
    artifact: ArtifactPath,
    data: DataPath,
    split: Annotated[str | None, typer.Option(help="test, val or train; default test if there, else val.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    function: Function = None,
    min_members: MinMembers = None,
    setting: Set = None,
    json: Json = False,
) -> None:
    """Score an ensemble and each of its members on a split."""
    from densemble.config import make_config, with_settings
    from densemble.data.folder import FolderData
    from densemble.errors import UsageError
    from densemble.evaluation import evaluate as score
    from densemble.storage.artifact import load

    if split not in (None, "train", "val", "test"):
        raise UsageError(f"no split is named '{split}'; there are: train, val, test")
    ensemble = load(artifact, device, function or (), min_members)
    config = make_config(with_settings({"task": ensemble.task.name, "data": _reading(ensemble)}, setting or []))
    folder = FolderData(data, ensemble.task.name, **config.data.model_dump())

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            say(f"{done}/{total} pictures")

    scores = {"artifact": str(artifact), "data": str(data), **score(ensemble, folder, split, progress)}
    if json:
        print_json(scores)
    else:
        print_scores(scores)
    require_everyone(ensemble)


def require_everyone(ensemble: "Ensemble") -> None:
    """Says that something was done without some of the members.

    Raises:
        PartialError: it was.
    """
    from densemble.errors import PartialError

    if ensemble.left_out:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in ensemble.left_out.items())
        raise PartialError(f"done, but without {len(ensemble.left_out)} of the members: {reasons}")


def _reading(ensemble: "Ensemble") -> dict[str, Any]:
    """How the data is read: as in training."""
    task = ensemble.task.describe()
    names = {"classes": "classes", "ignore_index": "ignore_index", "file_scale": "scale", "mode": "heatmap"}
    known = {ours: task[theirs] for theirs, ours in names.items() if theirs in task}
    return {**known, "invalid_below": task.get("invalid_below", 0.0), **ensemble.reading}


def predict(
    artifact: ArtifactPath,
    source: Annotated[list[str], typer.Argument(help="Pictures, folders, globs.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write into.")],
    save: Annotated[
        str, typer.Option(help="Of map, overlay, uncertainty, npy, guarantee; joined by commas.")
    ] = "map,overlay",
    backend: Annotated[str, typer.Option(help="auto or eager.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32 or bf16.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    rank_by: Annotated[
        str | None,
        typer.Option(
            help="Write ranking.csv, the least sure picture first: entropy, mutual_information, disagreement, variance."
        ),
    ] = None,
    function: Function = None,
    min_members: MinMembers = None,
) -> None:
    """Predict pictures; maps and overlays are written at each picture's own size."""
    from densemble.errors import DataError, PartialError, UsageError
    from densemble.inference.picture import SAVE, require_saved
    from densemble.inference.predictor import check_execution, find_pictures, predict_one, prepared
    from densemble.inference.ranking import require_ranked, write_ranking
    from densemble.storage.artifact import load
    from densemble.storage.runs import require_writable

    check_execution(backend, precision)
    what = tuple(kind.strip() for kind in save.split(",") if kind.strip())
    unknown = [kind for kind in what if kind not in SAVE]
    if unknown or not what:
        raise UsageError(f"--save {save}: there are: {', '.join(SAVE)}, joined by commas")
    pictures = [path for item in source for path in find_pictures(item)]
    require_writable(out)
    ensemble = prepared(load(artifact, device, function or (), min_members))
    if rank_by is not None:
        require_ranked(rank_by, ensemble.task)
    require_saved(what, ensemble)
    failed: list[str] = []
    ranked: list[tuple[Path, float]] = []
    for path, name in zip(pictures, _output_names(pictures), strict=True):
        try:
            prediction = predict_one(ensemble, path, precision=precision)
            prediction.save(out, what, name)
            if rank_by is not None:
                ranked.append((path, prediction.unsureness(rank_by)))
        except DataError as error:
            failed.append(str(error))
            say(f"failed: {error}")
    say(f"{len(pictures) - len(failed)} of {len(pictures)} pictures predicted into {out}")
    if rank_by is not None and ranked:
        say(f"least sure first: {write_ranking(out / 'ranking.csv', ranked, rank_by)}")
    if failed and len(failed) == len(pictures):
        raise DataError(f"no picture could be read: {failed[0]}")
    if failed:
        raise PartialError(f"{len(failed)} of {len(pictures)} pictures failed, the others are done: {failed[0]}")
    require_everyone(ensemble)


def _output_names(pictures: list[Path]) -> list[str]:
    """A picture's stem; with its folder and ending where several share it, so that none overwrites another."""
    stems = Counter(path.stem for path in pictures)
    names, used = [], set()
    for path in pictures:
        name = path.stem if stems[path.stem] == 1 else f"{path.parent.name}_{path.name.replace('.', '_')}"
        number, plain = 2, name
        while name in used:
            name, number = f"{plain}_{number}", number + 1
        used.add(name)
        names.append(name)
    return names
