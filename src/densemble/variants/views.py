"""Views of trained members as candidates: ``lite0@hflip``."""

from collections.abc import Sequence
from dataclasses import replace

from densemble.config import RunConfig
from densemble.data.folder import FolderData
from densemble.ensemble.views import make_view
from densemble.storage.runs import RunFolder
from densemble.tasks import Task
from densemble.variants.making import Report, VariantMaker


def make_views(
    run: RunFolder, config: RunConfig, task: Task, data: FolderData, views: Sequence[str], report: Report
) -> None:
    """Predicts the validation pictures with every trained member through every view; label ``MEMBER@VIEW``.

    Those that are there already are kept. A view that a member cannot have is left out, with a line of report.

    Raises:
        UsageError: no such view.
        ResourceError: the run folder cannot be written.
    """
    maker = VariantMaker(run, config, task, data, report)
    for view in [make_view(name) for name in views]:
        if view.scale != 1 and task.target_kind == "density":
            report(f"view {view.name}: left out, for the values of a density depend on the scale")
            continue
        for member in maker.members.values():
            label = f"{member.name}@{view.name}"
            with maker.skipping(label):
                if maker.is_new(label):
                    maker.keep(replace(member, name=label, kind="view", view=view.name, folder=run.variant(label)))
