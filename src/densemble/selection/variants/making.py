"""Steps to make a variant of a member: check the label, predict the validation images, write the folder."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from densemble.engines.plan import sizes
from densemble.errors import ArtifactError, UsageError, WeightsError
from densemble.evaluation.scores import Scores, predict_split
from densemble.selection.variants.candidate import Candidate, Source, write_variant
from densemble.storage.arrays import write_npy
from densemble.storage.runs import MemberFolder, RunFolder
from densemble.storage.writing import require_writable
from densemble.tasks import Task

log = logging.getLogger(__name__)


def snapshots_of(run: RunFolder, member: Candidate) -> list[Candidate]:
    """Return the snapshots of a member, without scores; the best epoch is the member itself and no snapshot."""
    folder = MemberFolder(member.folder.path)
    epochs = sorted(int(path.stem) for path in folder.snapshots.glob("*.safetensors") if path.stem.isdigit())
    labels = {f"{member.name}-epoch{epoch}": epoch for epoch in epochs if epoch != member.record["best_epoch"]}
    return [
        replace(
            member, name=label, kind="snapshot", weights=folder.snapshot(epoch), made_from=(label,),
            folder=run.variant(label), val={},
        )
        for label, epoch in labels.items()
    ]  # fmt: skip


@contextmanager
def skipping(label: str) -> Iterator[None]:
    """Log an error of one variant, so that the other variants can still be made."""
    try:
        yield
    except (ArtifactError, WeightsError, UsageError, RuntimeError, ValueError) as error:
        log.info(f"{label}: left out: {' '.join(str(error).split())}")


def is_new(source: Source, label: str) -> bool:
    """Return whether the variant does not exist yet.

    Raises:
        UsageError: a member has the same name.
    """
    if label in source.config.member_names():
        raise UsageError("a member has that name; rename the member")
    if not source.run.variant(label).record.is_file():
        return True
    log.info(f"{label}: already there, kept")
    return False


def add_variant(source: Source, variant: Candidate) -> None:
    """Make a variant that does not exist yet; a variant that cannot be made is logged and left out."""
    with skipping(variant.name):
        if is_new(source, variant.name):
            write_predicted(source, variant)


def predict_validation(source: Source, network: nn.Module, member: str) -> tuple[Any, Scores]:
    """Return maps ``(N, K, h, w)`` of the validation images, of the size of ``member``'s kept maps, and scores."""
    settings = source.config.members[source.config.member_names().index(member)]
    return predict_split(network.eval(), source.task, source.data, "val", sizes(source.config, settings)[2])


def signed_score(task: Task, scores: Scores) -> float:
    """Return the primary score, higher is better; minus infinity if it is undefined."""
    value = scores.get(task.primary)
    return float("-inf") if value is None else float(value) * (1 if task.higher_is_better else -1)


def write_predicted(source: Source, variant: Candidate) -> None:
    """Predict and write the folder of a variant, its record last: a variant without a record does not exist."""
    network = variant.member(variant.network())
    require_writable(variant.folder.path)
    maps, scores = predict_validation(source, network, variant.of)
    write_npy(variant.predictions, maps)
    write_variant(source.run, replace(variant, val=scores))
    primary = source.task.primary
    value = scores.get(primary)
    log.info(f"{variant.name}: val {primary} {'none' if value is None else format(value, '.4f')}")
