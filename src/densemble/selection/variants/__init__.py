"""Variants of trained members: views, snapshots and soups, stored in the run as further candidates for the ensemble."""

from densemble.selection.variants.candidate import (
    Candidate,
    Source,
    damaged_records,
    find_candidates,
    find_members,
)
from densemble.selection.variants.snapshots import make_snapshots
from densemble.selection.variants.soups import make_soups
from densemble.selection.variants.views import make_views

__all__ = [
    "Candidate",
    "Source",
    "damaged_records",
    "find_candidates",
    "find_members",
    "make_snapshots",
    "make_soups",
    "make_views",
]
