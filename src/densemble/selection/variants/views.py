"""Views of trained members as candidates: ``lite0@hflip``."""

from collections.abc import Sequence
from dataclasses import replace

from densemble.ensemble.member_views import make_view
from densemble.selection.variants.making import VariantMaker


def make_views(maker: VariantMaker, views: Sequence[str]) -> None:
    """Predicts the validation images with every trained member through every view; label ``MEMBER@VIEW``.

    Those that are there already are kept. A view that a member cannot have is left out, with a line of report.

    Raises:
        UsageError: no such view.
        ResourceError: the run folder cannot be written.
    """
    for view in [make_view(name) for name in views]:
        if view.scale != 1 and maker.task.target_kind == "density":
            maker.report(f"view {view.name}: left out, for the values of a density depend on the scale")
            continue
        for member in maker.members.values():
            label = f"{member.name}@{view.name}"
            maker.add(replace(member, name=label, kind="view", view=view.name, folder=maker.run.variant(label)))
