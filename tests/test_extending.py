"""Extension points: a head, a rule, a task, a backend and a layout, each registered by one dict row, in one run.

docs/how-to/extend.md shows the same five examples.
"""

import ast
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from torch import Tensor, nn

import densemble as de
from densemble.data.layouts import LAYOUTS, Layout, LayoutFormat, Sample
from densemble.ensemble.combine import COMBINE, CombinationRule
from densemble.errors import UsageError
from densemble.inference.files.job import Output
from densemble.inference.runtime.backends import BACKENDS, Backend, Precision, Runner
from densemble.inference.tiles.predict_large import predict_large
from densemble.metrics import RegressionMetrics
from densemble.nets.heads import HEADS, Head
from densemble.nets.heads.head import DenseHead
from densemble.nets.heads.layers import resize
from densemble.run import Run
from densemble.shapes import Size
from densemble.tasks import TASKS, Task

SIZE = (32, 48)
TRAIN, VAL = 8, 4
WEIGHTS = (3.0, 1.0)
compiled: list[str] = []


# --- the five extensions ----------------------------------------------------------------------------------------------


class SumHead(DenseHead):
    """A 1x1 convolution of every map, summed at the largest one."""

    def __init__(self, channels: Sequence[int], out_channels: int, doublings: int) -> None:
        super().__init__()
        self.logits = nn.ModuleList(nn.Conv2d(count, out_channels, 1) for count in channels)

    def grid(self, maps: Sequence[Tensor], size: Size | None) -> Tensor:
        largest = (maps[-1].shape[-2], maps[-1].shape[-1])
        levels = [resize(logits(x), largest) for logits, x in zip(self.logits, maps, strict=True)]
        return torch.stack(levels).sum(0)


class QuadraticMean:
    """The root of the weighted mean of squares."""

    def __init__(self) -> None:
        self.total, self.weight = torch.zeros(()), 0.0

    def add(self, maps: Tensor, weight: float, index: int = 0) -> None:
        self.total, self.weight = self.total + weight * maps.square(), self.weight + weight

    def result(self) -> Tensor:
        return (self.total / self.weight).sqrt()


@dataclass(frozen=True)
class GlowTask(Task):
    """Brightness from 0 to 2."""

    name, target_kind, primary, losses = "glow", "values", "rmse", ("cubic",)
    higher_is_better = False

    def activation(self, logits: Tensor) -> Tensor:
        return 2 * torch.sigmoid(logits)

    def loss_term(self, name: str, logits: Tensor, target: Tensor) -> Tensor:
        return (self.activation(logits)[:, 0] - target).abs().pow(3).mean()

    def metrics(self) -> RegressionMetrics:
        return RegressionMetrics(invalid_below=None)


def compile_plainly(network: nn.Module, example: Tensor, precision: Precision, batches: Sequence[Tensor]) -> Runner:
    """The network as it is, and a note that it was used."""
    compiled.append(precision)

    @torch.inference_mode()
    def run(images: Tensor) -> list[Tensor]:
        outputs = network(images)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    return run


def find_listed(path: Path) -> Layout:
    """A file of lines ``SPLIT IMAGE TARGET``."""
    splits: dict[str, list[Sample]] = {}
    for line in path.read_text().splitlines():
        split, image, target = line.split()
        splits.setdefault(split, []).append(Sample(path.parent / image, path.parent / target))
    return Layout(path.parent, "listed", {split: tuple(samples) for split, samples in splits.items()})


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HEADS, "sum", Head(SumHead, multi_level=True))
        patch.setitem(COMBINE, "quadratic", CombinationRule(lambda task, fitted: QuadraticMean()))
        patch.setitem(TASKS, "glow", GlowTask)
        patch.setitem(BACKENDS, "plain", Backend(compile_plainly))
        patch.setitem(LAYOUTS, "listed", LayoutFormat(find_listed, suffixes=(".list",)))
        yield


# --- one run with all of them -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extended:
    data: de.FolderData
    run: Run
    artifact: Path
    ensemble: de.Ensemble


@pytest.fixture(scope="module")
def extended(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Extended:
    folder = tmp_path_factory.mktemp("extended")
    random = np.random.default_rng(0)
    lines = []
    for number in range(TRAIN + VAL):
        grey = random.integers(0, 256, (SIZE[0] // 4, SIZE[1] // 4)).repeat(4, 0).repeat(4, 1)
        Image.fromarray(np.stack([grey] * 3, -1).astype(np.uint8)).save(folder / f"in{number}.png")
        tifffile.imwrite(folder / f"out{number}.tif", (grey / 127.5).astype(np.float32))
        lines.append(f"{'train' if number < TRAIN else 'val'} in{number}.png out{number}.tif")
    (folder / "glow.list").write_text("\n".join(lines))
    data = de.FolderData(folder / "glow.list", "glow")
    member = {"backbone": "resdeconv", "head": "sum", "copies": len(WEIGHTS)}
    training = {"epochs": 1, "batch_size": VAL, "precision": "fp32", "augment": "none"}
    run = de.train(
        data, [member], folder / "run", report=lambda line: None, input_size=SIZE, preset="best", training=training
    )
    ensemble = run.assemble("all", "quadratic", WEIGHTS)
    return Extended(data, run, de.save(ensemble, folder / "glow.safetensors"), ensemble.eval())


def image_of(sample: Sample) -> Tensor:
    return torch.from_numpy(np.array(Image.open(sample.image))).permute(2, 0, 1)[None] / 255


def target_of(sample: Sample) -> Tensor:
    return torch.from_numpy(tifffile.imread(sample.target))


def by_hand(ensemble: de.Ensemble, sample: Sample) -> Tensor:
    """The rule's formula on the members' logits under the task's formula, ``(h, w)``."""
    with torch.no_grad():
        squares = [w * (2 * member(image_of(sample)).sigmoid())[0, 0] ** 2 for w, (_, member) in zip(
            WEIGHTS, ensemble.named_members(), strict=True)]  # fmt: skip
    return (torch.stack(squares).sum(0) / sum(WEIGHTS)).sqrt()


def test_layout_pairs_images_and_targets(extended: Extended) -> None:
    data = extended.data
    assert data.layout.name == "listed" and (len(data.train), len(data.val)) == (TRAIN, VAL)
    for number, sample in enumerate((*data.train, *data.val)):
        assert (sample.image.name, sample.target.name) == (f"in{number}.png", f"out{number}.tif")
    report = data.check()
    assert report["layout"] == "listed" and [p for p in report["problems"] if p["severity"] == "error"] == []
    np.testing.assert_array_equal(data.read_target(data.val[1]), target_of(data.val[1]))


def test_head_gets_all_levels_and_is_saved_with_its_weights(extended: Extended) -> None:
    loaded = de.load(extended.artifact)
    for ensemble in (extended.ensemble, loaded):
        for _, member in ensemble.named_members():
            assert isinstance(member, de.DenseModel) and isinstance(member.head, SumHead)
            assert len(member.head.logits) == 1 + len(member.spec.skip_nodes) > 1
    for name, weights in extended.ensemble.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weights, rtol=0, atol=0)


def test_task_defines_loss_scores_and_ranking(extended: Extended) -> None:
    run, val = extended.run, extended.data.val
    assert run.task == GlowTask() and de.load(extended.artifact).task == GlowTask()
    members = dict(extended.ensemble.named_members())
    with torch.no_grad():
        maps = {n: torch.stack([2 * m(image_of(sample)).sigmoid()[0, 0] for sample in val]) for n, m in members.items()}
    targets = torch.stack([target_of(sample) for sample in val])
    errors = {name: (predicted - targets).abs() for name, predicted in maps.items()}
    table = run.leaderboard()
    assert list(table["rmse"]) == sorted(table["rmse"]) and any("baseline" in str(name) for name in table.index)
    for folder, (name, error) in zip(sorted((run.folder.path / "members").iterdir()), errors.items(), strict=True):
        (row,) = csv.DictReader((folder / "metrics.csv").open())
        assert float(row["val_loss"]) == pytest.approx(float(error.pow(3).mean()), rel=1e-4)
        assert table["rmse"][name] == pytest.approx(float(error.square().mean().sqrt()), rel=1e-4)


def test_rule_is_used_by_all_prediction_functions(extended: Extended, tmp_path: Path) -> None:
    sample = extended.data.val[0]
    expected = by_hand(extended.ensemble, sample)
    loaded = de.load(extended.artifact)
    for ensemble in (extended.ensemble, loaded):
        torch.testing.assert_close(ensemble.predict(image_of(sample)).mean[0, 0], expected)
    (prediction,) = de.predict(loaded, sample.image)
    torch.testing.assert_close(prediction.mean[0], expected)
    predict_large(loaded, sample.image, "tiled", Output(tmp_path, ("map", "overlay", "uncertainty")), tile=16)
    np.testing.assert_allclose(tifffile.imread(tmp_path / "tiled_map.tif"), expected, rtol=1e-4)


def test_tiles_are_refused_for_a_rule_that_needs_the_whole_image(
    extended: Extended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMBINE, "quadratic", replace(COMBINE["quadratic"], whole_image=True))
    with pytest.raises(UsageError, match="the rule 'quadratic' compares all pixels"):
        predict_large(extended.ensemble, extended.data.val[0].image, "tiled", Output(tmp_path, ("map",)), tile=16)


def test_backend_computes_the_saved_predictions(
    extended: Extended, tmp_path: Path, densemble: Callable[..., Any]
) -> None:
    compiled.clear()
    files = [sample.image for sample in extended.data.val]
    done = densemble("predict", extended.artifact, *files, "-o", tmp_path, "--save", "map,npy", "--backend", "plain")
    assert done.returncode == 0, done.stderr
    assert compiled and set(compiled) == {"fp32"}
    for sample in extended.data.val:
        expected = by_hand(extended.ensemble, sample)
        np.testing.assert_allclose(np.load(tmp_path / f"{sample.image.stem}.npy")[0], expected, rtol=1e-4)
        np.testing.assert_allclose(tifffile.imread(tmp_path / f"{sample.image.stem}_map.tif"), expected, rtol=1e-4)
    refused = densemble("predict", extended.artifact, files[0], "-o", tmp_path, "--backend", "plane")
    assert refused.returncode == 2 and "available: auto, eager" in refused.stderr and "plain" in refused.stderr


def test_evaluation_and_report_support_them(extended: Extended, densemble: Callable[..., Any]) -> None:
    val = extended.data.val
    errors = torch.stack([by_hand(extended.ensemble, sample) - target_of(sample) for sample in val])
    scores = de.evaluate(de.load(extended.artifact), extended.data)
    assert (scores["task"], scores["split"], scores["images"]) == ("glow", "val", VAL)
    assert scores["rmse"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-4)
    assert scores["risk_coverage"]["by"] == "variance" and "interval_coverage" in scores
    page = extended.run.folder.report.read_text()
    assert "rmse" in page and "quadratic" in page and "glow" in page
    done = densemble("evaluate", extended.artifact, extended.data.path, "--json")
    assert done.returncode == 0 and f'"rmse": {scores["rmse"]}'[:14] in done.stdout


# --- no hidden lists --------------------------------------------------------------------------------------------------

SOURCE = Path(de.__file__).parent
OTHER_WORDS = {"mean", "image", "class_weights"}
"""Names of rows that also have other meanings (maps, columns, fields)."""
NO_ROW = {("data/check/guess.py", "depth")}
"""File and word of comparisons where the word is not the name of a row but part of a path."""


def compared_words(code: ast.AST) -> Iterator[str]:
    """Strings that are compared (``==``, ``in``, ...) or matched."""
    for node in ast.walk(code):
        sides: list[ast.AST] = []
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.match_case):
            sides = [node.pattern]
        for side in sides:
            if isinstance(side, ast.Constant | ast.Tuple | ast.List | ast.Set | ast.pattern):
                yield from (part.value for part in ast.walk(side) if isinstance(part, ast.Constant))


def test_compared_words_finds_all_comparisons() -> None:
    code = "a == 'fpn' or b in ('rank', 'histogram') or f('vote') == c\nmatch d:\n    case 'depth' | 'heatmap': pass"
    assert set(compared_words(ast.parse(code))) == {"fpn", "rank", "histogram", "depth", "heatmap"}


def test_no_code_compares_with_the_name_of_a_row() -> None:
    """Traits are fields of the rows: a list of names would not contain a new row."""
    names = {*HEADS, *COMBINE, *TASKS, *BACKENDS, *LAYOUTS} - OTHER_WORDS
    comparisons = {
        (path.relative_to(SOURCE).as_posix(), word)
        for path in SOURCE.rglob("*.py")
        for word in compared_words(ast.parse(path.read_text(encoding="utf-8")))
        if word in names
    }
    assert comparisons <= NO_ROW
