"""Guarantees on objects that vanish from targets resized to the output size of the members."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from sampled import sampled
from torch import Tensor, nn

from densemble.config import make_config
from densemble.data.folder import FolderData
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval
from densemble.ensemble.guarantee.allowance import certified_allowance, expected_allowance
from densemble.ensemble.resize import resize_maps
from densemble.evaluation.scores import evaluate, predict_split
from densemble.nets.dense import DenseModel
from densemble.run import Run
from densemble.storage.arrays import write_npy
from densemble.storage.runs import RunFolder
from densemble.storage.weight_files import write_tensors
from densemble.storage.writing import write_json, write_text
from densemble.tasks import Task

IMAGE_SIZE, INPUT_SIZE, OBJECT = (72, 108), (12, 18), 3
VAL, TEST = 60, 60
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """A task with a guarantee.

    Attributes:
        task: row of ``TASKS``.
        target: path of a target in its split, by stem.
        objects: fewest and most of an image.
        level: what may be missed.
        logits: of each channel, (factor, offset) of the brightness in [0, 1].
    """

    task: str
    target: str
    objects: tuple[int, int]
    level: float
    logits: tuple[tuple[float, float], ...]


CASES = {
    "risk": Case("multilabel", "targets/lesion/{}.png", (8, 16), 0.35, ((30.0, -12.0),)),
    "set": Case("segmentation", "targets/{}.png", (60, 300), 0.1, ((-10.0, 5.0), (10.0, -5.0))),
    "interval": Case("depth", "targets/{}.tif", (60, 300), 0.1, ((-3.0, 4.0),)),
}


class Brightness(nn.Module):
    """A classifier whose feature map is the brightness of the image, in 4 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
        self.classifier = nn.Linear(4, 2)
        nn.init.constant_(self.features[0].weight, 1 / 3)
        nn.init.zeros_(self.features[0].bias)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.features(images).mean((-2, -1)))
        return scores


def brightness() -> nn.Module:
    return Brightness()


def make_network(case: Case, task: Task) -> DenseModel:
    """A network with logits linear in the brightness of the resized image."""
    network = DenseModel(
        f"{__name__}:brightness", out_channels=task.out_channels, out_size=INPUT_SIZE, input_size=INPUT_SIZE,
        cut="features.1", head="upsample", weights=None, mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    convolution, normalization = network.head.first[0], network.head.first[1]
    normalization.running_var.fill_(1 - normalization.eps)
    with torch.no_grad():
        for weight in (convolution.weight, network.head.logits.weight):
            weight.zero_()
        convolution.weight[0, 0, 1, 1] = 1
        for channel, (factor, offset) in enumerate(case.logits):
            network.head.logits.weight[channel, 0] = factor
            network.head.logits.bias[channel] = offset
    return network.eval()


def draw(case: Case, random: np.random.Generator) -> tuple[Array, Array]:
    """An image with 3x3 objects at random positions, and the mask of the objects."""
    inside = np.zeros(IMAGE_SIZE, bool)
    for _ in range(random.integers(*case.objects)):
        row, column = (random.integers(0, side - OBJECT + 1) for side in IMAGE_SIZE)
        inside[row : row + OBJECT, column : column + OBJECT] = True
    image = 0.2 + 0.8 * inside[..., None] + random.normal(0, 0.02, (*IMAGE_SIZE, 3))
    return (image.clip(0, 1) * 255).round().astype(np.uint8), inside


def write_data(folder: Path, case: Case) -> FolderData:
    """Images of all splits, drawn from one distribution."""
    random = np.random.default_rng(0)
    for split, count in (("train", 1), ("val", VAL), ("test", TEST)):
        for number in range(count):
            image, inside = draw(case, random)
            target = folder / split / case.target.format(f"{number:03d}")
            for path in (target, folder / split / "images" / "any.bmp"):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / split / "images" / f"{number:03d}.bmp")
            if case.task == "depth":
                tifffile.imwrite(target, np.where(inside, 2.0, 3.0).astype(np.float32))
            else:
                Image.fromarray(inside.astype(np.uint8)).save(target)
    return FolderData(folder, case.task, **({"unit": "m"} if case.task == "depth" else {}))


def write_run(folder: Path, case: Case, data: FolderData) -> Run:
    """The run of one constructed, untrained member, with its held-out predictions."""
    member = {"backbone": f"{__name__}:brightness", "name": "bright", "cut": "features.1", "head": "upsample"}
    settings = {
        "task": data.task_name, "input_size": list(INPUT_SIZE), "out_size": list(INPUT_SIZE), "data": data.options,
        "members": [member],
    }  # fmt: skip
    run, network = RunFolder(folder), make_network(case, data.task)
    run.path.mkdir()
    write_text(run.config, make_config(settings).to_yaml())
    stems = [sample.stem for sample in data.val]
    write_json(run.state, {"data": str(data.path), "task": data.task.describe(), "val": stems})
    member_folder = run.member(0, "bright")
    member_folder.path.mkdir(parents=True)
    write_tensors(member_folder.weights, network.state_dict())
    maps, scores = predict_split(network, data.task, data, "val", INPUT_SIZE)
    write_npy(member_folder.predictions, maps)
    write_text(member_folder.metrics, "epoch,train_loss,val_loss\n1,2.0,2.5\n")
    record: dict[str, Any] = {
        "name": "bright", "state": "done", "spec": network.spec.as_dict(), "val": scores, "epochs": 1, "best_epoch": 1,
        "seconds": 1.0, "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }  # fmt: skip
    write_json(member_folder.record, record)
    return Run(folder, functions=[f"{__name__}:brightness"])


@torch.no_grad()
def held(ensemble: Ensemble, data: FolderData) -> Array:
    """Covered share of the objects, of the classes of all pixels, or of all values, for each test image."""
    shares = []
    for sample in data.split("test"):
        image, target = (torch.from_numpy(np.array(one)) for one in data.read_pair(sample))
        prediction = ensemble.predict(image.permute(2, 0, 1)[None] / 255)
        if ensemble.task.target_kind == "values":
            assert prediction.lower is not None and prediction.upper is not None
            lower, upper = (resize_maps(end, IMAGE_SIZE)[0, 0] for end in (prediction.lower, prediction.upper))
            inside = (lower <= target) & (target <= upper)
        else:
            assert ensemble.guarantee is not None and not isinstance(ensemble.guarantee, ConformalInterval)
            sets = ensemble.guarantee.apply(resize_maps(prediction.mean, IMAGE_SIZE))[0]
            inside = sets[target > 0] if ensemble.task.target_kind == "masks" else sets.gather(0, target.long()[None])
        shares.append(float(inside.double().mean()))
    return np.array(shares)


def allowed(guarantee: str, images: int) -> float:
    """Mean loss that a fit on ``images`` images allows."""
    level = CASES[guarantee].level
    return certified_allowance(level, 0.95, images) if guarantee == "risk" else expected_allowance(level, images)


@pytest.mark.parametrize("guarantee", sampled(list(CASES), []))
def test_a_guarantee_on_small_objects_holds_on_an_exchangeable_split(guarantee: str, tmp_path: Path) -> None:
    case = CASES[guarantee]
    data = write_data(tmp_path / "data", case)
    run = write_run(tmp_path / "run", case, data)
    ensemble = run.assemble(guarantee=guarantee, level=case.level)
    shares = held(ensemble, data)
    tested = evaluate(ensemble, data, "test")["guarantee"]
    assert tested["coverage"] == pytest.approx(shares.mean(), abs=1e-6), "two ways to count the same"
    # A half of the validation images is left for the fit. The report fits on a quarter and checks on another: a fit on
    # fewer images allows less, so that the reported coverage may be larger by the difference.
    fit, check = VAL // 2, VAL // 4
    spread = 3 * shares.std(ddof=1)
    assert shares.mean() >= 1 - case.level - spread * math.sqrt(1 / TEST + 1 / fit)
    reported = run.analysis()["guarantee"]["coverage"]
    error = spread * math.sqrt(1 / TEST + 1 / fit + 2 / check)
    stricter = allowed(guarantee, fit) - allowed(guarantee, check)
    assert shares.mean() - error <= reported <= shares.mean() + stricter + error
