"""Variants of trained members: views, snapshots and soups, kept in the run as further candidates for the ensemble."""

from densemble.variants.record import Variant, read_variants
from densemble.variants.snapshots import make_snapshots
from densemble.variants.soups import make_soups
from densemble.variants.views import make_views

__all__ = ["Variant", "make_snapshots", "make_soups", "make_views", "read_variants"]
