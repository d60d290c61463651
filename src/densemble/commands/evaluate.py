"""evaluate: what an artifact is worth."""

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
