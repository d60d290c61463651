"""Snapshots of trainings as candidates: ``lite0-epoch12``."""

from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.storage.runs import RunFolder
from densemble.tasks import Task
from densemble.variants.making import Report, VariantMaker


def make_snapshots(run: RunFolder, config: RunConfig, task: Task, data: FolderData, report: Report) -> None:
    """Predicts the validation pictures with every kept snapshot; label ``MEMBER-epochEPOCH``.

    Those that are there already are kept. The best epoch of a member is the member, and no variant of it.

    Raises:
        ResourceError: the run folder cannot be written.
    """
    maker = VariantMaker(run, config, task, data, report)
    snapshots = [snapshot for member in maker.members.values() for snapshot in maker.snapshots(member)]
    if not snapshots:
        report("there are no snapshots besides the members; train with --set training.snapshots=3")
    for snapshot in snapshots:
        with maker.skipping(snapshot.name):
            if maker.is_new(snapshot.name):
                maker.keep(snapshot)
