"""Augmentation: one geometric change for image and target, and a colour change of the image."""

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
