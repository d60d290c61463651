"""Drawing of maps and their legends: arrays in, uint8 RGB arrays out.

The packages densemble and densemble-runtime hold the same files, except for the names of the packages; a test compares
them.
"""

from densemble_runtime.drawing.colours import (
    BACKGROUND,
    NO_DATA,
    as_rgb,
    class_colours,
    colour_values,
    is_background,
    palette,
    value_range,
)
from densemble_runtime.drawing.legend import Bar, Legend, add_legend, drawable_name
from densemble_runtime.drawing.maps import (
    Drawing,
    Meaning,
    blend,
    colour_masks,
    draw_overlay,
    draw_uncertainty,
    draw_view,
)

__all__ = [
    "BACKGROUND",
    "NO_DATA",
    "Bar",
    "Drawing",
    "Legend",
    "Meaning",
    "add_legend",
    "as_rgb",
    "blend",
    "class_colours",
    "colour_masks",
    "colour_values",
    "draw_overlay",
    "draw_uncertainty",
    "draw_view",
    "drawable_name",
    "is_background",
    "palette",
    "value_range",
]
