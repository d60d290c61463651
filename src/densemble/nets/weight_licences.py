"""Pretrained weights of a backbone: their full name, and the licence that their publisher states."""

from dataclasses import dataclass

from densemble.nets import local_weights
from densemble.nets.backbones import OWN, is_published

_NOT_STATED = ("unknown", "")


@dataclass(frozen=True)
class PublishedWeights:
    """Pretrained weights as their publisher describes them.

    Attributes:
        name: full name, with the tag that ``DEFAULT`` stands for.
        licence: licence, or address of its text; ``None``: the publisher states none.
    """

    name: str
    licence: str | None = None


def published_weights(backbone: str, weights: str) -> PublishedWeights | None:
    """Look up pretrained weights in the tables of torchvision and timm, without network access.

    Args:
        backbone: name of the backbone.
        weights: ``DEFAULT``, a torchvision weights name or a timm tag.

    Returns:
        The weights; ``None`` if the tables do not contain them, as for files, ``hf-hub:`` ids and networks of the user.
    """
    if backbone in OWN or not is_published(backbone) or weights.startswith(local_weights.HUB):
        return None
    if backbone.startswith("timm/"):
        return _of_timm(backbone, weights)
    import torchvision

    entries = torchvision.models.get_model_weights(backbone).__members__
    entry = entries.get(weights)
    return None if entry is None else PublishedWeights(str(entry), entry.meta.get("license"))


def _of_timm(backbone: str, tag: str) -> PublishedWeights | None:
    import timm

    try:
        config = timm.get_pretrained_cfg(local_weights.tagged(backbone, tag), allow_unregistered=False)
    except RuntimeError:  # timm has no such tag
        return None
    if config is None:
        return None
    name = f"timm/{config.architecture}" + (f".{config.tag}" if config.tag else "")
    return PublishedWeights(name, None if config.license in _NOT_STATED else config.license)
