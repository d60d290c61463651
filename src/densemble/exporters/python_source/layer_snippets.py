"""Snippets of the written file: layers, heads and backbones. Names in a snippet refer to other snippets."""

import re

LAYERS: dict[str, str] = {
    "Size": """
Size = tuple[int, int]
""",
    "resize": '''
def resize(x: Tensor, size: Size, antialias: bool = False) -> Tensor:
    """Resize (B, C, H, W) bilinearly to (h, w) = size; a tensor of this size is returned unchanged."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False, antialias=antialias)
''',
    "resize_density": '''
def resize_density(x: Tensor, size: Size) -> Tensor:
    """Resize counts per pixel; the sum of each map stays."""
    height, width = x.shape[-2:]
    return x if (height, width) == size else resize(x, size) * (height * width / (size[0] * size[1]))
''',
    "conv_bn_relu": '''
def conv_bn_relu(convolution: nn.Conv2d | nn.ConvTranspose2d) -> nn.Sequential:
    """Convolution, batch normalization, ReLU."""
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())
''',
    "separable": '''
def separable(channels: int) -> nn.Sequential:
    """3x3 depthwise convolution, 1x1 convolution, batch normalization, ReLU (Chollet 2017)."""
    depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
    return nn.Sequential(depthwise, *conv_bn_relu(nn.Conv2d(channels, channels, 1, bias=False)))
''',
    "ResizeStep": '''
class ResizeStep(nn.Sequential):
    """Double a map, at most to the size of the output, then 3x3 convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(*conv_bn_relu(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)))

    def forward(self, x: Tensor, size: Size) -> Tensor:
        height, width = x.shape[-2:]
        return super().forward(resize(x, (min(2 * height, size[0]), min(2 * width, size[1]))))
''',
    "SkipStep": '''
class SkipStep(nn.Sequential):
    """Resize a map to a larger one, concatenate both, then 3x3 convolution, batch normalization, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(*conv_bn_relu(nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)))

    def forward(self, x: Tensor, larger: Tensor) -> Tensor:
        return super().forward(torch.cat([resize(x, larger.shape[-2:]), larger], 1))
''',
    "deconv_step": '''
def deconv_step(in_channels: int, out_channels: int) -> nn.Sequential:
    """4x4 transposed convolution of stride 2, batch normalization, ReLU: doubles height and width."""
    return conv_bn_relu(nn.ConvTranspose2d(in_channels, out_channels, 4, stride=2, padding=1, bias=False))
''',
    "subpixel_step": '''
def subpixel_step(in_channels: int, out_channels: int) -> nn.Sequential:
    """3x3 convolution whose channels become 2x2 pixels (Shi et al. 2016), batch normalization, ReLU."""
    convolution = nn.Conv2d(in_channels, 4 * out_channels, 3, padding=1, bias=False)
    return nn.Sequential(convolution, nn.PixelShuffle(2), nn.BatchNorm2d(out_channels), nn.ReLU())
''',
    "SpatialPyramid": '''
class SpatialPyramid(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2017): (B, C, H, W) -> (B, width, H, W)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(in_channels, width, 1, bias=False)]
        convolutions += [
            nn.Conv2d(in_channels, width, 3, padding=rate, dilation=rate, bias=False) for rate in (6, 12, 18)
        ]
        self.branches = nn.ModuleList(conv_bn_relu(convolution) for convolution in convolutions)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, width, 1), nn.ReLU())
        self.joined = conv_bn_relu(nn.Conv2d(5 * width, width, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pooled(x).expand(-1, -1, *x.shape[-2:])
        return self.joined(torch.cat([*(branch(x) for branch in self.branches), pooled], 1))
''',
    "PoolingPyramid": '''
class PoolingPyramid(nn.Module):
    """Pyramid pooling (Zhao et al. 2017): (B, C, H, W) -> (B, width, H, W)."""

    bins = (1, 2, 3, 6)

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_channels, width // 4, 1), nn.ReLU()) for _ in self.bins
        )
        self.joined = conv_bn_relu(nn.Conv2d(in_channels + width, width, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        parts = [x]
        for bins, branch in zip(self.bins, self.branches, strict=True):
            parts.append(resize(branch(F.adaptive_avg_pool2d(x, bins)), x.shape[-2:]))
        return self.joined(torch.cat(parts, 1))
''',
    "StepHead": '''
class StepHead(nn.Module):
    """A first layer on the deepest map, steps that double the map up to the output size, and logits."""

    def __init__(self, first: nn.Module, steps: list[nn.Module], logits: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.steps = nn.ModuleList(steps)
        self.logits = logits

    def forward(self, maps: list[Tensor], size: Size) -> Tensor:
        x = self.first(maps[0])
        for step in self.steps:
            x = step(x, size)
        return resize(self.logits(x), size)
''',
    "DoublingHead": '''
class DoublingHead(nn.Module):
    """A first layer on the deepest map, steps that double the map, and logits."""

    def __init__(self, first: nn.Module, steps: list[nn.Module], logits: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.steps = nn.Sequential(*steps)
        self.logits = logits

    def forward(self, maps: list[Tensor], size: Size) -> Tensor:
        return resize(self.logits(self.steps(self.first(maps[0]))), size)
''',
    "PyramidHead": '''
class PyramidHead(nn.Module):
    """Feature pyramid (Lin et al. 2017) whose levels are summed at the size of the largest (Kirillov et al. 2019).

    Args:
        channels: channels of the feature maps, deepest first.
        grow: steps that double the sum up to the output size.
        logits: last convolution.
    """

    def __init__(self, channels: tuple[int, ...], grow: list[nn.Module], logits: nn.Module) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, 128, 1) for count in channels)
        self.levels = nn.ModuleList(separable(128) for _ in channels)
        self.grow = nn.ModuleList(grow)
        self.logits = logits

    def forward(self, maps: list[Tensor], size: Size) -> Tensor:
        x = self.laterals[0](maps[0])
        total = resize(self.levels[0](x), maps[-1].shape[-2:])
        for features, lateral, level in zip(maps[1:], self.laterals[1:], self.levels[1:], strict=True):
            x = lateral(features) + resize(x, features.shape[-2:])
            total = total + resize(level(x), maps[-1].shape[-2:])
        for step in self.grow:
            total = step(total, size)
        return resize(self.logits(total), size)
''',
    "SkipHead": '''
class SkipHead(nn.Module):
    """U-Net-like head (Ronneberger et al. 2015): starts from the deepest map and adds each larger one at its size.

    Args:
        channels: channels of the feature maps, deepest first.
        widths: channels of the head at these maps.
        grow: steps that double the result up to the output size.
        logits: last convolution.
    """

    def __init__(
        self, channels: tuple[int, ...], widths: tuple[int, ...], grow: list[nn.Module], logits: nn.Module
    ) -> None:
        super().__init__()
        self.first = conv_bn_relu(nn.Conv2d(channels[0], widths[0], 3, padding=1, bias=False))
        self.laterals = nn.ModuleList(conv_bn_relu(nn.Conv2d(count, 48, 1, bias=False)) for count in channels[1:])
        self.steps = nn.ModuleList(SkipStep(a + 48, b) for a, b in pairwise(widths))
        self.grow = nn.ModuleList(grow)
        self.logits = logits

    def forward(self, maps: list[Tensor], size: Size) -> Tensor:
        x = self.first(maps[0])
        for larger, lateral, step in zip(maps[1:], self.laterals, self.steps, strict=True):
            x = step(x, lateral(larger))
        for step in self.grow:
            x = step(x, size)
        return resize(self.logits(x), size)
''',
    "ResidualBlock": '''
class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016): (B, C, H, W) -> (B, C', H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))
''',
    "ResidualNetwork": '''
class ResidualNetwork(nn.Module):
    """Residual network that halves the map in the stem and in each stage: (B, 3, H, W) -> (B, 256, H / 32, W / 32)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 192, 256)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 5, 2, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.stages = nn.Sequential(
            *(nn.Sequential(ResidualBlock(a, b, stride=2), ResidualBlock(b, b, stride=1)) for a, b in pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x))
''',
    "widened": '''
def widened(network: nn.Module, name: str, in_channels: int) -> nn.Module:
    """Make a convolution of a network accept images of in_channels; its weight is read from the file."""
    convolution = network.get_submodule(name)
    shape = (convolution.out_channels, in_channels, *convolution.kernel_size)
    convolution.weight = nn.Parameter(convolution.weight.new_zeros(shape))
    convolution.in_channels = in_channels
    return network
''',
    "without_modules": '''
def without_modules(network: nn.Module, *names: str) -> nn.Module:
    """Remove modules of a network that no returned map depends on."""
    for name in names:
        network.set_submodule(name, nn.Identity())
    return network
''',
    "not_in_place": '''
def not_in_place(network: nn.Module) -> nn.Module:
    """Let activations return new tensors: the maps before them are returned too and must not change."""
    for module in network.modules():
        if hasattr(module, "inplace"):
            module.inplace = False
    return network
''',
    "Layers": '''
class Layers(nn.Module):
    """The first layers of a network's ``features``; returns the maps after some of them, deepest first."""

    def __init__(self, features: nn.Sequential, *layers: int) -> None:
        super().__init__()
        self.network = nn.ModuleDict({"features": features[: layers[0] + 1]})
        self.layers = layers

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = {}
        for number, layer in enumerate(self.network["features"]):
            x = maps[number] = layer(x)
        return [maps[number] for number in self.layers]
''',
    "Nodes": '''
class Nodes(nn.Module):
    """A network up to some nodes of its graph; returns their maps, deepest first. Later layers are removed."""

    def __init__(self, network: nn.Module, *nodes: str) -> None:
        super().__init__()
        self.network = create_feature_extractor(network, list(nodes), suppress_diff_warning=True)
        self.nodes = nodes

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.network(x)
        return [maps[node] for node in self.nodes]
''',
    "TimmNodes": '''
class TimmNodes(nn.Module):
    """A timm network up to some nodes of its graph; returns their maps, deepest first. Later layers are removed."""

    def __init__(self, network: nn.Module, *nodes: str) -> None:
        super().__init__()
        self.network = timm.models.create_feature_extractor(network, list(nodes))
        self.nodes = nodes

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = self.network(x)
        return [maps[node] for node in self.nodes]
''',
    "Stages": '''
class Stages(nn.Module):
    """The maps after some stages of a timm network, deepest first; later stages do not run."""

    def __init__(self, network: nn.Module, *stages: int) -> None:
        super().__init__()
        self.network = network
        self.stages = stages

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.network.forward_intermediates(
            x, indices=list(self.stages[::-1]), stop_early=True, intermediates_only=True
        )[::-1]
''',
    "ChannelsLastNodes": '''
class ChannelsLastNodes(Nodes):
    """Nodes whose maps are (B, h, w, C) inside the network; they are returned as (B, C, h, w)."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [maps.permute(0, 3, 1, 2).contiguous() for maps in super().forward(x)]
''',
    "with_sizes": '''
def with_sizes(member: nn.Module, **sizes: Size) -> nn.Module:
    """Return a member, weights shared, with another input_size or out_size."""
    other = copy.copy(member)
    for name, size in sizes.items():
        setattr(other, name, size)
    return other
''',
}
"""Snippets by the name that they define, in the order in which they are written."""


def without_growing(snippet: str) -> str:
    """Return the snippet of a multi-level head without the steps that double its result."""
    signature = re.sub(
        r"\(\n\s*(self, .*), grow: list\[nn.Module\](, .*)\n\s*\)|, grow: list\[nn.Module\]",
        lambda match: f"({match[1]}{match[2]})" if match[1] else "",
        snippet,
    )
    return re.sub(r".*for step in self.grow:\n.*\n|.*grow.*\n", "", signature)
