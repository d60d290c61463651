"""Snapshots of trainings as candidates: ``lite0-epoch12``."""

from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.storage.runs import RunFolder
from densemble.tasks import Task
from densemble.variants.making import Making, Report


def make_snapshots(run: RunFolder, config: RunConfig, task: Task, data: FolderData, report: Report) -> None:
    """Predicts the validation pictures with every kept snapshot; label ``MEMBER-epochEPOCH``.

    Those that are there already are kept. The best epoch of a member is the member, and no variant of it.

    Raises:
        ResourceError: the run folder cannot be written.
    """
    making = Making(run, config, task, data, report)
    if not any(member.snapshots() for member in making.trained):
        report("there are no snapshots besides the members; train with --set training.snapshots=3")
    for member in making.trained:
        for label, epoch in member.snapshots().items():
            with making.skipping(label):
                if making.is_new(label):
                    weights = member.folder.snapshot(epoch)
                    making.keep(label, "snapshot", member, member.network(weights), weights, [label])
