"""Snapshots of trainings as candidates: ``lite0-epoch12``."""

from densemble.selection.variants.making import VariantMaker


def make_snapshots(maker: VariantMaker) -> None:
    """Predicts the validation images with every kept snapshot; label ``MEMBER-epochEPOCH``.

    Those that are there already are kept. The best epoch of a member is the member, and no variant of it.

    Raises:
        ResourceError: the run folder cannot be written.
    """
    snapshots = [snapshot for member in maker.members.values() for snapshot in maker.snapshots(member)]
    if not snapshots:
        maker.report("there are no snapshots besides the members; train with --set training.snapshots=3")
    for snapshot in snapshots:
        maker.add(snapshot)
