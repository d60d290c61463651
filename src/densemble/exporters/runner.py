"""Interface of an opened export: pixels in, maps out, as arrays."""

from collections.abc import Callable

from densemble.shapes import Array

Maps = dict[str, Array]
"""Maps of a batch by name."""
Run = Callable[[Array], Maps]
"""Computes the maps of a batch of images, in the input type of the graph."""
