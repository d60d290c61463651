"""Build the same ensemble in PyTorch, torch-uncertainty, pytorch-toolbelt, MONAI and densemble, and compare maps.

Members have random weights, because only the combination is compared.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import densemble as de
from densemble.ensemble.calibrate import fit_temperature, temper
from densemble.ensemble.combination import Combination
from densemble.ensemble.combine import Fitted
from densemble.ensemble.uncertainty import RunningUncertainty, entropy
from densemble.metrics.selective import RiskCoverage
from densemble.shapes import Size, size_of
from densemble.tasks import SaliencyTask, SegmentationTask, Task

BACKBONES = ("squeezenet1_1", "resnet18", "mobilenet_v3_small")
SEGMENTATION = SegmentationTask(tuple(f"class {number}" for number in range(11)))
SALIENCY = SaliencyTask()
SAME = 1e-6
"""Largest difference between maps that count as equal."""

Maps = Callable[[Tensor], Tensor]
"""Images ``(B, 3, H, W)`` -> mean probabilities of the members ``(B, K, h, w)``."""


def torch_uncertainty(members: Sequence[nn.Module], task: Task) -> Maps:
    """The mean as in its ``SegmentationRoutine``; for one channel as in its ``ClassificationRoutine``."""
    from einops import rearrange
    from torch_uncertainty.methods import deep_ensembles

    ensemble = deep_ensembles(list(members), task="segmentation").eval()

    def mean(images: Tensor) -> Tensor:
        logits = rearrange(ensemble(images), "(m b) c h w -> b m c h w", b=len(images))
        probabilities = logits.softmax(dim=2) if task.distribution == "categorical" else logits.sigmoid()
        return probabilities.mean(dim=1)

    return mean


def toolbelt(members: Sequence[nn.Module], task: Task) -> Maps:
    """``Ensembler``; its ``ApplySoftmaxTo`` supports only members that return a dict, and ours return a tensor."""
    from pytorch_toolbelt.inference.ensembling import Ensembler

    activation = nn.Softmax(dim=1) if task.distribution == "categorical" else nn.Sigmoid()
    return Ensembler([nn.Sequential(member, activation) for member in members], reduction="mean").eval()


def monai(members: Sequence[nn.Module], task: Task) -> Maps:
    """``MeanEnsemble``, which takes maps instead of members."""
    from monai.transforms import MeanEnsemble

    ensemble = MeanEnsemble()
    return lambda images: ensemble([task.activation(member(images)) for member in members])


def channels_last(members: Sequence[nn.Module], task: Task) -> Maps:
    """The naive loop over copies of the members, with weights and images in NHWC memory format."""
    copies = [copy.deepcopy(member).to(memory_format=torch.channels_last) for member in members]

    def mean(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        return torch.stack([task.activation(member(images)) for member in copies]).mean(0)

    return mean


def channels_last_bfloat16(members: Sequence[nn.Module], task: Task) -> Maps:
    """The same under bfloat16 autocast; logits are activated and averaged in float32."""
    copies = [copy.deepcopy(member).to(memory_format=torch.channels_last) for member in members]

    def mean(images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16):
            logits = [member(images) for member in copies]
        return torch.stack([task.activation(each.float()) for each in logits]).mean(0)

    return mean


PYTORCH: dict[str, Callable[[Sequence[nn.Module], Task], Maps]] = {
    "PyTorch, channels_last": channels_last,
    "PyTorch, channels_last, bf16 autocast": channels_last_bfloat16,
}
"""The naive loop with options of PyTorch."""
OTHERS: dict[str, Callable[[Sequence[nn.Module], Task], Maps]] = {
    "torch-uncertainty": torch_uncertainty,
    "pytorch-toolbelt": toolbelt,
    "MONAI": monai,
}
MODULES = {"torch-uncertainty": "torch_uncertainty", "pytorch-toolbelt": "pytorch_toolbelt", "MONAI": "monai"}


def installed() -> list[str]:
    return [name for name in OTHERS if find_spec(MODULES[name])]


@torch.no_grad()
def make_members(
    task: Task, size: Size, backbones: Sequence[str] = BACKBONES, out_size: Size | None = None
) -> list[de.DenseModel]:
    """Random networks with maps of the size of the input by default, scaled so that every class is predicted."""
    members = []
    for seed, name in enumerate(backbones):
        torch.manual_seed(seed)
        member = de.DenseModel(name, out_channels=task.out_channels, out_size=out_size, weights=None, input_size=size)
        member.eval()
        logits = member(torch.rand(1, 3, *size))
        spread, middle = logits.std((0, 2, 3)), logits.mean((0, 2, 3))
        last = member.head.logits
        last.bias.copy_((last.bias - middle) / spread)
        last.weight.div_(spread[:, None, None, None])
        members.append(member)
    return members


@dataclass(frozen=True)
class Comparison:
    """A result of another library compared with densemble's.

    Attributes:
        difference: the largest difference between two maps, or a share of pixels.
        within: largest permitted difference; ``None`` if the results have different meanings and must differ.
    """

    library: str
    theirs: str
    ours: str
    difference: float
    within: float | None = None

    @property
    def holds(self) -> bool:
        return self.difference > 1e-3 if self.within is None else self.difference <= self.within


Details = Callable[[Tensor, Tensor], Iterator[Comparison]]
"""Compare libraries on probabilities of members: of classes ``(M, B, K, h, w)``, and of heat ``(M, B, 1, h, w)``."""


def compare(library: str, images: Tensor) -> list[Comparison]:
    """The mean, and everything else for which the library has a function."""
    size = size_of(images)
    rows, stacks = [], []
    with torch.no_grad():
        for task in (SEGMENTATION, SALIENCY):
            members = make_members(task, size)
            ours = de.Ensemble(members, task=task).eval()(images)
            difference = _largest(OTHERS[library](members, task)(images), ours)
            rows.append(Comparison(library, f"mean, {task.name}", "mean", difference, SAME))
            stacks.append(torch.stack([task.activation(member(images)) for member in members]))
        for details in DETAILS[library]:
            rows.extend(details(*stacks))
    return rows


def _means(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    from pytorch_toolbelt.inference.functional import geometric_mean, logodd_mean

    row = partial(Comparison, "pytorch-toolbelt")
    ours, ours_heat = _ours(classes, "logits", SEGMENTATION), _ours(heat, "logits", SALIENCY)
    geometric, odds = geometric_mean(classes, dim=0), logodd_mean(classes, dim=0)
    yield row("gmean of classes, divided by its sum", "logits", _largest(_sums_to_one(geometric), ours), SAME)
    yield row("gmean of classes, as it is", "logits", _largest(geometric, ours))
    yield row("logodd of classes", "logits", _largest(odds, ours))
    yield row("logodd of one channel", "logits", _largest(logodd_mean(heat, dim=0), ours_heat), SAME)
    yield row("gmean of one channel", "logits", _largest(geometric_mean(heat, dim=0), ours_heat))


def _weights(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    from monai.transforms import MeanEnsemble

    row = partial(Comparison, "MONAI")
    theirs, ours = MeanEnsemble([3, 2, 1])(classes), _ours(classes, "mean", SEGMENTATION, weights=[3, 2, 1])
    yield row("MeanEnsemble, a weight per member", "weights", _largest(theirs, ours), SAME)
    weights = torch.rand(classes.shape[0], classes.shape[2]) + 0.1
    theirs = MeanEnsemble(weights[:, None])(classes)
    ours = _ours(classes, "class_weights", SEGMENTATION, fitted={"class_weights": weights / weights.sum(0)})
    words = "MeanEnsemble, a weight per member and class"
    yield row(f"{words}, divided by its sum", "class_weights", _largest(_sums_to_one(theirs), ours), SAME)
    yield row(f"{words}, as it is", "class_weights", _largest(theirs, ours))


def _votes(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    from monai.transforms import VoteEnsemble

    row = partial(Comparison, "MONAI")
    image = classes[:, 0]  # it votes on one image
    label = VoteEnsemble(num_classes=image.shape[1])(list(image.argmax(1, keepdim=True)))[0]
    most = _ours(classes, "vote", SEGMENTATION)[0].argmax(0)
    yield row("VoteEnsemble of labels: pixels of another label", "vote", _share(label != most), 0.0)
    marked = VoteEnsemble()(list(_one_hot(image)))
    yield row("VoteEnsemble of one-hot maps: pixels without a label", "vote", _share(marked.sum(0) == 0))


def _variances(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    from monai.metrics.active_learning_metrics import compute_variance

    row = partial(Comparison, "MONAI")
    theirs, ours = compute_variance(heat[:, 0].clone(), spatial_map=True), _running(heat, SALIENCY).variance()
    yield row("VarianceMetric, one channel", "variance", _largest(theirs, ours[0, 0]), SAME)
    theirs, ours = compute_variance(classes[:, 0].clone(), spatial_map=True), _running(classes, SEGMENTATION).variance()
    yield row("VarianceMetric, several channels", "variance, mean over them", _largest(theirs, ours[0].mean(0)))


def _entropies(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    from torch_uncertainty.metrics import Entropy, MutualInformation

    row = partial(Comparison, "torch-uncertainty")
    classes = classes.double()  # mutual information is a small difference of large sums
    pixels, running = _pixels(classes), _running(classes, SEGMENTATION)
    theirs, ours = _values(Entropy("none"), pixels.mean(1)), entropy(classes.mean(0), "categorical")
    yield row("Entropy of the mean", "entropy", _largest(theirs, ours.flatten()), SAME)
    theirs, ours = _values(Entropy("none"), pixels), running.expected_entropy()
    yield row("Entropy of the members", "expected_entropy", _largest(theirs, ours.flatten()), SAME)
    theirs, ours = _values(MutualInformation("none"), pixels), running.mutual_information()
    yield row("MutualInformation", "mutual_information", _largest(theirs, ours.flatten()), SAME)


def _disagreements(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    from torch_uncertainty.metrics import Disagreement, VariationRatio

    row = partial(Comparison, "torch-uncertainty")
    pixels, ours = _pixels(classes), _running(classes, SEGMENTATION).disagreement().flatten()
    pairs = _values(Disagreement("none"), pixels)
    yield row("Disagreement: share of pairs", "disagreement: share of members", _largest(pairs, ours))
    # Its documentation says pixels first; with that, it returns one value per member.
    ratio = _values(VariationRatio(probabilistic=False, reduction="none"), pixels.transpose(0, 1))
    for_mean = _one_hot(classes, 2).mean(0).gather(1, classes.mean(0).argmax(1, keepdim=True)).flatten()
    words = "VariationRatio, members first"
    yield row(words, "share of members against the mean's class", _largest(ratio, 1 - for_mean), SAME)
    yield row(words, "disagreement: share against most members' class", _largest(ratio, ours))


def _temperature(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    """Labels are drawn from tempered probabilities. One in nine is void: 255 for densemble, -100 for the library."""
    from torch_uncertainty.post_processing import TemperatureScaler

    maps = classes[0]
    drawn = torch.multinomial(_pixels(temper(maps, 2.0, "categorical")[None])[:, 0], 1).view_as(maps[:, 0])
    void = torch.rand_like(maps[:, 0]) < 1 / 9
    targets = drawn.masked_fill(void, 255)
    ours = fit_temperature(lambda: zip(maps, targets, strict=True), "categorical")
    data = DataLoader(TensorDataset(maps.log(), drawn.masked_fill(void, -100)))
    for rate, within in ((1.0, 1e-3), (0.1, 0.05)):  # the default, 0.1, stops a little before the optimum
        theirs = TemperatureScaler(nn.Identity(), lr=rate)
        with torch.enable_grad():
            theirs.fit(data, progress=False)
        difference = abs(float(theirs.temperature[0]) - ours)
        words = f"TemperatureScaler(lr={rate:g}), void is -100"
        yield Comparison("torch-uncertainty", words, "fit_temperature", difference, within)


def _selective(classes: Tensor, heat: Tensor) -> Iterator[Comparison]:
    from torch_uncertainty.metrics import AURC

    probabilities = _pixels(classes).mean(1)
    truth = torch.randint(0, probabilities.shape[1], (len(probabilities),))
    theirs, ours = AURC(), RiskCoverage()
    theirs.update(probabilities, truth)
    confidence, label = probabilities.max(1)
    ours.update(1 - confidence, (label != truth).float(), torch.ones_like(label, dtype=torch.bool))
    difference = abs(float(theirs.compute()) - float(ours.compute()["aurc"]))
    yield Comparison("torch-uncertainty", "AURC, of sorted pixels", "aurc, of a histogram", difference, 1e-4)


DETAILS: dict[str, tuple[Details, ...]] = {
    "torch-uncertainty": (_entropies, _disagreements, _temperature, _selective),
    "pytorch-toolbelt": (_means,),
    "MONAI": (_weights, _votes, _variances),
}


def _ours(
    maps: Tensor, rule: str, task: Task, weights: Sequence[float] = (1, 1, 1), fitted: Fitted | None = None
) -> Tensor:
    shares = {str(number): weight for number, weight in enumerate(weights)}
    return Combination(task, shares, rule, dict(fitted or {})).combine(maps)


def _running(maps: Tensor, task: Task) -> RunningUncertainty:
    running = RunningUncertainty(task.distribution)
    for own in maps:
        running.add(own, 1.0)
    return running


def _pixels(maps: Tensor) -> Tensor:
    """``(M, B, K, h, w)`` -> ``(pixels, M, K)``, the input of torch-uncertainty's metrics."""
    return maps.permute(1, 3, 4, 0, 2).flatten(0, 2)


def _values(metric: Any, pixels: Tensor) -> Tensor:
    metric.update(pixels)
    return metric.compute()


def _sums_to_one(maps: Tensor) -> Tensor:
    return maps / maps.sum(1, keepdim=True)


def _one_hot(maps: Tensor, axis: int = 1) -> Tensor:
    return torch.zeros_like(maps).scatter(axis, maps.argmax(axis, keepdim=True), 1)


def _share(pixels: Tensor) -> float:
    return float(pixels.float().mean())


def _largest(one: Tensor, other: Tensor) -> float:
    return float((one.double() - other.double()).abs().max())
