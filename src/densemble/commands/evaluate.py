"""evaluate: what an artifact is worth."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from densemble.commands.output import print_json, print_scores, say
from densemble.commands.shared_options import ArtifactPath, DataPath, Function, Json, MinMembers, Set

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
    from densemble.evaluation.scores import evaluate as score
    from densemble.storage.artifact import load

    require_split(split)
    ensemble = load(artifact, device, function or (), min_members)
    folder = data_for(ensemble, data, setting)

    def progress(done: int, total: int) -> None:
        if done % 20 == 0 or done == total:
            say(f"{done}/{total} images")

    scores = {"artifact": str(artifact), "data": str(data), **score(ensemble, folder, split, progress)}
    if json:
        print_json(scores)
    else:
        print_scores(scores)
    require_everyone(ensemble, [(row["image"], row["members"]) for row in scores.get("without", [])])


def require_everyone(ensemble: "Ensemble", images: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """Says that something was done without some of the members.

    Args:
        ensemble: may have been loaded without some.
        images: that were predicted without some, and why.

    Raises:
        PartialError: there are some.
    """
    from densemble.errors import PartialError

    reasons = {name: f"{name}: {reason}" for name, reason in ensemble.left_out.items()}
    for member in dict.fromkeys(name for _, without in images for name in without):
        lacking = [(path, without[member]) for path, without in images if member in without]
        path, reason = lacking[0]
        reasons.setdefault(member, f"{member}: {reason} (of {len(lacking)} images, first '{path}')")
    if reasons:
        raise PartialError(f"done, but without {len(reasons)} of the members: {'; '.join(reasons.values())}")
