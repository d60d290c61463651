"""Augmentation: image and target are moved by one geometry, and the image's colours are changed."""

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
