"""Augmentation: the same geometric change of image and target, and changes of the look of the image alone."""

from densemble.data.transforms.apply import apply_change, augment
from densemble.data.transforms.change import AUGMENT, Augmentation, Change, Look, Warp, draw_change
from densemble.data.transforms.geometry import move_points

__all__ = [
    "AUGMENT",
    "Augmentation",
    "Change",
    "Look",
    "Warp",
    "apply_change",
    "augment",
    "draw_change",
    "move_points",
]
