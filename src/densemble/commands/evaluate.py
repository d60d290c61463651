"""evaluate: what an artifact is worth."""

from typing import TYPE_CHECKING, Annotated

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
    from densemble.commands.split_data import data_for, require_split
    from densemble.evaluation import evaluate as score
    from densemble.storage.artifact import load

    require_split(split)
    ensemble = load(artifact, device, function or (), min_members)
    folder = data_for(ensemble, data, setting)

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
