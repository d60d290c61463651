"""Text of the classes of the members, of their common base class, and of the prediction."""

from collections.abc import Mapping

from densemble.exporters.python_source.code import numbers
from densemble.exporters.python_source.member_text import backbone_text, head_text
from densemble.nets.dense import DenseModel
from densemble.shapes import Size

_FIELDS = {
    "mean": "combined map (B, K, h, w)",
    "variance": "variance over the members (B, K, h, w)",
    "entropy": "entropy of the mean in nats (B, h, w)",
    "expected_entropy": "mean of the members' entropies (B, h, w)",
    "mutual_information": "entropy of the members' mean minus their expected entropy (B, h, w)",
    "disagreement": "share of the members that decide against the most common decision (B, h, w)",
    "label": "most probable class (B, h, w)",
    "included": "classes in the guaranteed set, bool (B, K, h, w)",
    "lower": "lower end of the guaranteed interval (B, 1, h, w)",
    "upper": "upper end of the guaranteed interval (B, 1, h, w)",
}


def fixed_input(model: DenseModel) -> Size | None:
    """Return the (H, W) to which a member resizes all images; ``None`` if it depends on the image."""
    rule = model.spec.rule
    if rule.fixed is not None:
        return rule.fixed
    return None if model.spec.input_size is None else rule.nearest(model.spec.input_size)


def member_base(networks: Mapping[str, DenseModel]) -> str:
    """Return the base class of the members, with the resizing rules that occur among them."""
    channels = next(iter(networks.values())).spec.in_channels
    fixed = [fixed_input(model) is not None for model in networks.values()]
    rules = [model.spec.rule for model in networks.values() if fixed_input(model) is None]
    steps = any(rule.multiple != 1 or rule.smallest != 1 for rule in rules)
    out_fixed = [model.spec.out_size is not None for model in networks.values()]
    attributes, method, x = [], "", "images"
    if any(fixed):
        optional = " | None = None" if rules else ""
        attributes.append(f"    input_size: Size{optional}")
    if steps:
        attributes += ["    multiple = 1", "    smallest = 1"]
        method = _NEAREST.replace("CONDITION", _FIXED if any(fixed) else "")
        x = "resize(images, self.accepted_size(images), antialias=True)"
    elif all(fixed):
        x = "resize(images, self.input_size, antialias=True)"
    elif any(fixed):
        x = "images if self.input_size is None else resize(images, self.input_size, antialias=True)"
    if any(out_fixed):
        attributes.append(f"    out_size: Size{'' if all(out_fixed) else ' | None = None'}")
    size = "self.out_size" if all(out_fixed) else "images.shape[-2:]"
    if any(out_fixed) and not all(out_fixed):
        size = "self.out_size or images.shape[-2:]"
    listed = "\n".join(attributes)
    text = _MEMBER.replace("CHANNELS", str(channels)).replace("ATTRIBUTES\n", f"\n{listed}\n" if listed else "")
    return text.replace("RESIZED", x).replace("OUTPUT", size).replace("METHOD", method)


def member_class(member: str, class_name: str, model: DenseModel) -> str:
    """Return the class of a member.

    Raises:
        UsageError: its backbone or head cannot be written.
    """
    spec, input_size = model.spec, fixed_input(model)
    attributes = []
    if input_size is not None:
        attributes.append(f"    input_size = {numbers(input_size)}")
    elif spec.multiple != 1 or spec.smallest != 1:
        attributes.append(f"    multiple = {spec.multiple}")
        attributes.append(f"    smallest = {spec.rule.nearest((1, 1))[0]}")
    if spec.out_size is not None:
        attributes.append(f"    out_size = {numbers(spec.out_size)}")
    listed = "\n" + "\n".join(attributes) + "\n" if attributes else ""
    return f'''
class {class_name}(Member):
    """{_summary(member, model)}"""
{listed}
    def __init__(self) -> None:
        super().__init__(
            backbone={backbone_text(member, model)},
            head={head_text(member, model)},
            mean={numbers(spec.mean)},
            std={numbers(spec.std)},
        )
'''


def _summary(member: str, model: DenseModel) -> str:
    spec = model.spec
    backbone = spec.backbone.removeprefix("timm/")
    name = backbone if backbone == member else f"Member {member}: {backbone}"
    size = "H, W" if spec.out_size is None else f"{spec.out_size[0]}, {spec.out_size[1]}"
    text = f"{name} with head {spec.head}: images -> logits (B, {spec.out_channels}, {size})."
    return text.replace("\\", "").replace('"', "'")


def prediction_class(names: list[str]) -> str:
    """Return the class of a prediction with the maps of these names."""
    fields = [f"    {name}: Tensor" for name in _FIELDS if name in names]
    documented = [f"        {name}: {_FIELDS[name]}." for name in _FIELDS if name in names]
    return "\n".join([
        "class Prediction(NamedTuple):", '    """Maps of a batch of images.', "", "    Attributes:", *documented,
        '    """', "", *fields,
    ])  # fmt: skip


_MEMBER = '''
class Member(nn.Module):
    """A member of the ensemble: float images (B, CHANNELS, H, W) in [0, 1] -> logits (B, K, h, w).

    Args:
        backbone: normalized images -> feature maps (B, C, h, w), deepest first.
        head: feature maps and the (h, w) of the output -> logits.
        mean: mean of each channel, for the normalization.
        std: standard deviation of each channel.
    """
ATTRIBUTES

    def __init__(self, backbone: nn.Module, head: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
METHOD
    def forward(self, images: Tensor) -> Tensor:
        x = RESIZED
        maps = self.backbone((x - self.mean) / self.std)
        return self.head(maps, OUTPUT)
'''
_NEAREST = '''
    def accepted_size(self, images: Tensor) -> Size:
        """Return the (H, W) nearest to that of the images that the backbone accepts."""
CONDITION        height, width = images.shape[-2:]
        return (
            max(int(height / self.multiple + 0.5) * self.multiple, self.smallest),
            max(int(width / self.multiple + 0.5) * self.multiple, self.smallest),
        )
'''
_FIXED = """        if self.input_size is not None:
            return self.input_size
"""
