"""Variants of trained members: views, snapshots and soups, kept in the run as further candidates for the ensemble."""

from densemble.variants.making import VariantMaker
from densemble.variants.record import Candidate, find_candidates, find_members
from densemble.variants.snapshots import make_snapshots
from densemble.variants.soups import make_soups
from densemble.variants.views import make_views

__all__ = ["Candidate", "VariantMaker", "find_candidates", "find_members", "make_snapshots", "make_soups", "make_views"]
