"""Snapshots of trainings as candidates: ``lite0-epoch12``."""

import logging

from densemble.selection.variants.candidate import Source, find_members
from densemble.selection.variants.making import add_variant, snapshots_of

log = logging.getLogger(__name__)


def make_snapshots(source: Source) -> None:
    """Make every stored snapshot a candidate with the label ``MEMBER-epochEPOCH``, and predict the validation images.

    Existing candidates are kept. The best epoch of a member is the member itself and no variant.

    Raises:
        ResourceError: the run folder cannot be written.
    """
    members = find_members(source.run, source.config).values()
    snapshots = [snapshot for member in members for snapshot in snapshots_of(source.run, member)]
    if not snapshots:
        log.info("there are no snapshots besides the members; train with --set training.snapshots=3")
    for snapshot in snapshots:
        add_variant(source, snapshot)
