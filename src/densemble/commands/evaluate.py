"""The command ``evaluate``: score an artifact on a data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from densemble.commands.output import print_json, print_scores, say
from densemble.commands.progress import command_progress
from densemble.commands.shared_options import (
    ArtifactPath,
    DataPath,
    Device,
    Function,
    Json,
    MinMembers,
    Quiet,
    Set,
    Split,
)

if TYPE_CHECKING:
    from densemble.ensemble.ensemble import Ensemble


def evaluate(
    artifact: ArtifactPath,
    data: DataPath,
    split: Split = None,
    device: Device = "auto",
    function: Function = None,
    min_members: MinMembers = None,
    setting: Set = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write images, scores and errors as one page.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score an ensemble and each of its members on one split of a data set."""
    with command_progress():
        from densemble.commands.argument_order import require_artifact_first, require_data
        from densemble.commands.split_data import data_for, require_split
        from densemble.evaluation.scores import evaluate as score
        from densemble.inference.runtime.streamed import placed
        from densemble.report.evaluation_page import evaluate_with_report
        from densemble.storage.artifact import load

        require_split(split)
        require_artifact_first("evaluate", artifact, [data])
        require_data("evaluate", data)
        ensemble = placed(load(artifact, "cpu", function or (), min_members), device)
        folder = data_for(ensemble, data, setting)

        if report is None:
            scores = score(ensemble, folder, split)
        else:
            title = f"{artifact.name} on {data.resolve().name}"
            scores = evaluate_with_report(ensemble, folder, split, report, title=title)
        scores = {"artifact": str(artifact), "data": str(data), **scores}
        scores |= {} if report is None else {"report": str(report)}
    if json:
        print_json(scores)
    else:
        seen = {"val": "; optimistic if the ensemble was assembled on them", "train": "; members were trained on them"}
        say(f"{scores['images']} images of {scores['split']}{seen.get(scores['split'], '')}; intervals: --report")
        print_scores(scores)
        if report is not None:
            say(f"wrote {report}")
    require_all_members(ensemble, [(row["image"], row["members"]) for row in scores.get("without", [])])


def require_all_members(ensemble: "Ensemble", images: Sequence[tuple[str, Mapping[str, str]]]) -> None:
    """Report members that were left out.

    Args:
        ensemble: as loaded, possibly without some of its members.
        images: name of each image that was predicted without some members, with these members and the reasons.

    Raises:
        PartialError: at least one member was left out.
    """
    from densemble.errors import PartialError

    reasons = {name: f"{name}: {reason}" for name, reason in ensemble.left_out.items()}
    for member in dict.fromkeys(name for _, without in images for name in without):
        affected = [(path, without[member]) for path, without in images if member in without]
        path, reason = affected[0]
        reasons.setdefault(member, f"{member}: {reason} (of {len(affected)} images, first '{path}')")
    if reasons:
        raise PartialError(f"done, but without {len(reasons)} of the members: {'; '.join(reasons.values())}")
