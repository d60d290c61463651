"""Views of trained members as candidates: ``lite0@hflip``."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from densemble.ensemble.member_views import make_view
from densemble.selection.variants.candidate import Source, find_members
from densemble.selection.variants.making import add_variant

log = logging.getLogger(__name__)


def make_views(source: Source, views: Sequence[str]) -> None:
    """Make every view of every trained member a candidate with the label ``MEMBER@VIEW``.

    The validation images are predicted with each candidate. Existing candidates are kept. A view that does not suit a
    member is logged and left out.

    Raises:
        UsageError: no such view.
        ResourceError: the run folder cannot be written.
    """
    members = find_members(source.run, source.config).values()
    for view in [make_view(name) for name in views]:
        if view.scale != 1 and source.task.target_kind == "density":
            log.info(f"view {view.name}: left out, because the values of a density depend on the scale")
            continue
        for member in members:
            label = f"{member.name}@{view.name}"
            add_variant(
                source, replace(member, name=label, kind="view", view=view.name, folder=source.run.variant(label))
            )
