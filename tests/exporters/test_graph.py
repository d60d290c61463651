"""Exported graphs: the same maps as de.predict for images of any size, for every rule, task and part of an ensemble."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from small_networks import small_dense
from torch import nn

import densemble as de
from densemble.commands.export import export
from densemble.ensemble.calibrate import Temperature, VarianceScaling, VectorScaling
from densemble.ensemble.combine import COMBINE
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet, RiskControl
from densemble.ensemble.member_views import ViewedMember
from densemble.errors import ExportError, UsageError
from densemble.exporters import EXPORTERS, Exporter, ExportOptions
from densemble.exporters.description import KEY
from densemble.exporters.graph import EnsembleGraph, GraphOptions, trace
from densemble.exporters.onnx import open_onnx
from densemble.exporters.openvino import open_openvino
from densemble.exporters.torch_program import open_torch
from densemble.exporters.verify import Comparison, compare
from densemble.inference.image_prediction import ImagePrediction
from densemble.nets.heads.layers import average_regions
from densemble.nets.resizing import resize_exactly
from densemble.nets.sizes import InputRule
from densemble.progress.phases import Phase, Silent, listening
from densemble.shapes import Array, Size

OPEN = {"onnx": open_onnx, "openvino": open_openvino, "torch": open_torch}
QUICK_RULES = ["median"]
OTHER_RULES = [name for name, row in COMBINE.items() if row.fit is None and not row.jumps and name not in QUICK_RULES]
HEADS = ["ppm", "fpn", "skip", "upsample", "aspp", "deconv", "subpixel"]
SIZES = ((24, 32), (37, 51), (64, 48))


def pixels(batch: int, height: int, width: int, channels: int = 3) -> Array:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, channels), dtype=np.uint8)


def predicted(ensemble: de.Ensemble, images: Array) -> dict[str, Array]:
    """Maps of de.predict, image by image."""
    results = [
        p for p in de.predict(ensemble, images, backend="eager", precision="fp32") if isinstance(p, ImagePrediction)
    ]
    return {name: np.stack([p.maps()[name].numpy() for p in results]) for name in results[0].maps()}


def assert_same(maps: Mapping[str, Array], expected: Mapping[str, Array], atol: float = 1e-5) -> None:
    assert list(maps) == list(expected)
    for name, values in expected.items():
        assert maps[name].dtype == values.dtype and maps[name].shape == values.shape, name
        np.testing.assert_allclose(maps[name], values, rtol=0, atol=atol, err_msg=name)


def traced(ensemble: de.Ensemble, images: Array, options: GraphOptions | None = None) -> dict[str, Array]:
    """Maps of the traced graph, which all formats are made of."""
    graph = EnsembleGraph(ensemble.eval(), options or GraphOptions()).eval()
    outputs = trace(graph).module()(torch.from_numpy(images))
    return {name: output.detach().numpy() for name, output in zip(graph.names, outputs, strict=True)}


def segmenter(**options: Any) -> de.Ensemble:
    members = [small_dense(seed, out_channels=3, out_size=None, input_size=None) for seed in (1, 2)]
    return de.Ensemble(members, [2, 1], task="segmentation", **options).eval()


@pytest.fixture(scope="module")
def labelled() -> de.Ensemble:
    task = de.tasks.make_task({"name": "segmentation", "classes": ["sky", "road", "car"]})
    members = {
        name: small_dense(seed, out_channels=3, out_size=None, input_size=None) for seed, name in enumerate("ab")
    }
    calibration = VectorScaling((1.0, 0.5, 2.0), (0.0, 0.3, -0.2), "categorical")
    return de.Ensemble(
        members,
        [3, 1],
        task,
        metrics={"val": {"miou": 0.5}},
        temperatures=[2, 1],
        calibration=calibration,
        guarantee=ConformalSet(0.3, 0.1, 20),
    ).eval()


@pytest.fixture(
    scope="module", params=["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "torch"))]
)
def exported(request: pytest.FixtureRequest, labelled: de.Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    return de.export(labelled, folder / f"net{EXPORTERS[request.param].suffix}", request.param)


def test_a_file_gives_the_maps_of_predict_at_any_size(exported: Path, labelled: de.Ensemble) -> None:
    format = next(name for name, row in EXPORTERS.items() if row.suffix == exported.suffix)
    run = OPEN[format](exported)
    for size, batch in zip(SIZES, (3, 1, 2), strict=True):
        images = pixels(batch, *size)
        assert_same(run(images), predicted(labelled, images))
    files = {file.suffix for file in exported.parent.iterdir()}
    assert files == {exported.suffix} | ({".bin"} if format == "openvino" else set())
    if format == "onnx":
        check_description(exported)
        check_mismatch(exported)


def check_description(path: Path) -> None:
    """The file says what it takes and returns, and holds no path of a source file."""
    model = onnx.load(path)
    description = json.loads({entry.key: entry.value for entry in model.metadata_props}[KEY])
    assert description["classes"] == ["sky", "road", "car"]
    assert description["weights"] == {"a": 0.75, "b": 0.25}
    assert description["scores"] == {"val": {"miou": 0.5}}
    assert description["opset"] == model.opset_import[0].version == 18
    axes = [axis.dim_param or axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", "height", "width", 3]
    assert [output.name for output in model.graph.output] == list(description["outputs"])
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes()


def check_mismatch(path: Path) -> None:
    """The file does not match an ensemble with other weights."""
    other = EnsembleGraph(segmenter(), GraphOptions(maps=("variance",))).eval()
    with pytest.raises(ExportError, match=r"exported .* differs"):
        compare(open_onnx(path), other, sizes=[(24, 32)], batches=[1]).require_match()


@pytest.mark.parametrize("rule", QUICK_RULES + [pytest.param(rule, marks=pytest.mark.slow) for rule in OTHER_RULES])
def test_rules_of_probabilities(rule: str) -> None:
    members = [small_dense(seed, out_channels=1) for seed in (0, 1, 2)]
    task = de.tasks.make_task({"name": "saliency"}) if COMBINE[rule].whole_image else "multilabel"
    ensemble = de.Ensemble(members, [3, 2, 1], task=task, combine=rule)
    images = pixels(2, 37, 51)
    assert_same(traced(ensemble, images), predicted(ensemble, images))


@pytest.mark.slow
@pytest.mark.parametrize(
    "calibration",
    [
        Temperature(1.7, "categorical"),
        VectorScaling((1.0, 0.5, 2.0), (0.0, 0.3, -0.2), "categorical"),
    ],
)
def test_calibrations_of_classes(calibration: Any) -> None:
    ensemble = segmenter(calibration=calibration)
    images = pixels(2, 37, 51)
    assert_same(traced(ensemble, images), predicted(ensemble, images))


@pytest.mark.parametrize(
    "guarantee",
    [
        ConformalInterval(2.0, 0.01, 0.1, 20),
        pytest.param(ConformalInterval(0.4, None, 0.1, 20), marks=pytest.mark.slow),
    ],
)
def test_intervals_of_values(guarantee: ConformalInterval) -> None:
    members = [small_dense(seed) for seed in (0, 1)]
    ensemble = de.Ensemble(members, task="depth", guarantee=guarantee, calibration=VarianceScaling(2.0, 0.1))
    images = pixels(2, 37, 51)
    maps = traced(ensemble, images)
    assert {"variance", "lower", "upper"} < set(maps)
    assert_same(maps, predicted(ensemble, images))


@pytest.mark.slow
def test_sets_of_several_labels_and_density() -> None:
    labels = de.Ensemble(
        [small_dense(0, out_channels=2)], task="multilabel", guarantee=RiskControl(0.4, 0.1, 0.95, 20, "bernoulli")
    )
    task = de.tasks.make_task({"name": "heatmap", "classes": ["cells"], "heatmap": "density"})
    counts = de.Ensemble([small_dense(0), small_dense(1, out_size=(10, 14))], task=task)
    for ensemble in (labels, counts):
        images = pixels(2, 37, 51)
        assert_same(traced(ensemble, images), predicted(ensemble, images))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_heads_of_images_of_any_size(head: str) -> None:
    ensemble = de.Ensemble(
        [small_dense(0, head=head, out_channels=2, out_size=None, input_size=None)], task="segmentation"
    )
    graph = EnsembleGraph(ensemble.eval(), GraphOptions(maps=("mean",))).eval()
    program = trace(graph).module()
    for size in SIZES:
        images = pixels(2, *size)
        (mean,) = program(torch.from_numpy(images))
        np.testing.assert_allclose(mean.detach(), predicted(ensemble, images)["mean"], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["rot90", pytest.param("hflip", marks=pytest.mark.slow)])
def test_views(view: str) -> None:
    member = small_dense(0)
    ensemble = de.Ensemble({"plain": member, "viewed": ViewedMember(member, view)})
    images = pixels(2, 37, 51)
    assert_same(traced(ensemble, images), predicted(ensemble, images))


@pytest.mark.slow
def test_a_scaled_view_needs_a_fixed_size() -> None:
    member = small_dense(0, input_size=None)
    ensemble = de.Ensemble({"plain": member, "scaled": ViewedMember(member, "scale75")})
    images = pixels(2, 37, 51)
    assert_same(traced(ensemble, images, GraphOptions(size=(37, 51))), predicted(ensemble, images))
    with pytest.raises(ExportError, match="'scaled' scales images of any size"):
        EnsembleGraph(ensemble, GraphOptions())


def test_float_input_selected_maps_and_a_fixed_size() -> None:
    ensemble = segmenter()
    images = pixels(2, 37, 51)
    floats = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()
    options = GraphOptions("float32", (37, 51), ("label",))
    maps = traced(ensemble, floats, options)
    expected = predicted(ensemble, images)
    assert_same(maps, {name: expected[name] for name in ("mean", "label")})


@pytest.mark.slow
def test_four_channels() -> None:
    ensemble = de.Ensemble([small_dense(0, in_channels=4)]).eval()
    images = pixels(2, 37, 51, 4)
    assert_same(traced(ensemble, images), predicted(ensemble, images))


@pytest.mark.slow
def test_large_weights_are_in_a_second_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densemble.exporters.onnx.LARGEST_FILE", 1000)
    ensemble = de.Ensemble([small_dense(0)]).eval()
    path = de.export(ensemble, tmp_path / "net.onnx", options=ExportOptions(maps=("mean",), size=(37, 51)))
    assert {file.name for file in tmp_path.iterdir()} == {"net.onnx", "net.onnx.data"}
    images = pixels(1, 37, 51)
    np.testing.assert_allclose(open_onnx(path)(images)["mean"], predicted(ensemble, images)["mean"], rtol=0, atol=1e-5)


# --- operations that an exported graph computes in another way ------------------------------------------------------


class Resized(nn.Module):
    def __init__(self, size: Size, antialias: bool) -> None:
        super().__init__()
        self.size, self.antialias = size, antialias

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return resize_exactly(images, self.size, self.antialias)

    def expected(self, images: torch.Tensor) -> torch.Tensor:
        return F.interpolate(images, self.size, mode="bilinear", antialias=self.antialias)


class Averaged(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([average_regions(images, regions).flatten(2) for regions in (1, 2, 3, 6)], 2)

    def expected(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.adaptive_avg_pool2d(images, regions).flatten(2) for regions in (1, 2, 3, 6)], 2)


@pytest.mark.parametrize(
    ("module", "tolerance"),
    [
        (Resized((19, 40), antialias=True), 5e-7),
        (Resized((19, 40), antialias=False), 5e-7),
        (Resized((225, 301), antialias=False), 5e-7),
        (Averaged(), 2e-6),
    ],
    ids=["antialiased", "smaller", "larger", "averaged"],
)
def test_a_graph_equals_the_operations_of_torch(module: Resized | Averaged, tolerance: float) -> None:
    dynamic = {"images": {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(module, (torch.rand(1, 3, 30, 44),), dynamic_shapes=dynamic).module()
    for size in ((30, 44), (6, 7), (19, 40), (97, 131), (5, 300)):
        images = torch.rand(1, 3, *size)
        torch.testing.assert_close(program(images), module.expected(images), rtol=0, atol=tolerance)


def test_resized_edges_are_those_of_torch_in_onnxruntime(tmp_path: Path) -> None:
    """The operation of ONNX places pixels otherwise: log-odds of steep edges then differ by 7e-4."""
    edges = torch.where(torch.arange(64) % 3 == 0, 0.999, 0.001).expand(1, 1, 48, 64)
    resized = Resized((225, 301), antialias=False)
    torch.onnx.export(resized.eval(), (edges,), tmp_path / "edges.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "edges.onnx", providers=["CPUExecutionProvider"])
    (actual,) = session.run(None, {session.get_inputs()[0].name: edges.contiguous().numpy()})
    expected = resized.expected(edges).double()
    torch.testing.assert_close(torch.from_numpy(actual).double().logit(), expected.logit(), rtol=0, atol=1e-4)


def test_the_rule_of_input_sizes_rounds_half_up() -> None:
    rule = InputRule(multiple=32, smallest=64)
    assert [rule.nearest((side, side))[0] for side in (1, 79, 80, 111, 112, 129)] == [64, 64, 96, 96, 128, 128]
    assert InputRule().nearest((7, 9)) == (7, 9)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_after_a_mismatch_there_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def differ(path: Path) -> Any:
        raise ExportError("differs")

    row = Exporter(".onnx", lambda ensemble, path, options: (path.write_text("graph"), differ(path))[0])
    monkeypatch.setitem(EXPORTERS, "onnx", row)
    (tmp_path / "net.onnx").write_text("earlier")
    with pytest.raises(ExportError) as failure:
        de.export(de.Ensemble([small_dense(0)]), tmp_path / "net.onnx")
    assert failure.value.exit_code == 8
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("net.onnx", "earlier")]


def test_libraries_are_checked_before_the_artifact_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(EXPORTERS["openvino"], libraries=("onnx", "no_such_library"))
    monkeypatch.setitem(EXPORTERS, "openvino", row)
    with pytest.raises(UsageError, match=r"without no_such_library; .* pip install 'densemble\[onnx,openvino\]'"):
        export(tmp_path / "absent.safetensors", tmp_path / "gaze.xml")
    with pytest.raises(UsageError, match=r"'my-gaze' cannot be imported"):
        export(tmp_path / "absent.safetensors", tmp_path / "my-gaze.py")


def test_compared_images_are_counted() -> None:
    shown: list[str] = []

    class Recorder(Silent):
        def changed(self, phases: Sequence[Phase]) -> None:
            shown.append(", ".join(map(str, phases)))

    graph = EnsembleGraph(de.Ensemble([small_dense(0)]).eval(), GraphOptions())

    def run(pixels: Any) -> dict[str, Any]:
        with torch.no_grad():
            return dict(zip(graph.names, (maps.numpy() for maps in graph(torch.from_numpy(pixels))), strict=True))

    with listening(Recorder()):
        compare(run, graph, sizes=((32, 48), (40, 40)), batches=(1, 2))
    assert shown == [f"compared {count}/6 images" for count in (0, 1, 3, 4, 6)]


def test_comparison_measures_relative_differences_and_shares() -> None:
    reference = {"mean": np.full((1, 1, 2, 2), 4.0, np.float32), "label": np.zeros((1, 2, 2), np.int64)}
    maps = {"mean": reference["mean"] + np.float32(0.5), "label": np.array([[[0, 0], [0, 1]]])}
    comparison = Comparison()
    comparison.add(maps, reference, probabilities=False)
    assert comparison.differences == {"mean": 0.125}
    assert comparison.disagreement == {"label": 0.25}
    nan = Comparison()
    nan.add({"mean": maps["mean"] * np.nan}, {"mean": reference["mean"]}, probabilities=False)
    with pytest.raises(ExportError, match="mean differs"):
        nan.require_match()


@pytest.mark.parametrize(
    ("name", "format", "message"),
    [
        ("net.tflite", None, "belongs to no format; there are: onnx"),
        ("net.onnx", "onxx", "did you mean 'onnx'"),
        ("net.xml", "onnx", "named NAME.onnx"),
    ],
)
def test_wrong_names(name: str, format: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        de.export(de.Ensemble([small_dense(0)]), tmp_path / name, format)


def test_maps_that_do_not_exist() -> None:
    with pytest.raises(UsageError, match="no map 'lower'; it has: mean, variance"):
        EnsembleGraph(de.Ensemble([small_dense(0)]), GraphOptions(maps=("lower",)))
    with pytest.raises(UsageError, match="no map 'heat'; it has: mean, variance"):
        EnsembleGraph(de.Ensemble([small_dense(0)]), GraphOptions(maps=("heat",)))
    with pytest.raises(UsageError, match="no map is named; name some"):
        GraphOptions(maps=())


def test_a_folder_is_not_a_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "gaze.onnx").mkdir()
    with pytest.raises(UsageError, match=r"is a folder; name a file that ends with \.onnx"):
        de.export(de.Ensemble([small_dense(0)]), tmp_path / "gaze.onnx")


def test_a_rule_that_jumps_is_refused(tmp_path: Path) -> None:
    ensemble = de.Ensemble([small_dense(0), small_dense(1)], combine="rank")
    with pytest.raises(UsageError, match="'rank' depends on the order of nearly equal pixels"):
        de.export(ensemble, tmp_path / "net.onnx")


def test_what_cannot_be_traced_is_named(tmp_path: Path) -> None:

    member = small_dense(0)
    member.head.register_forward_hook(lambda module, args, output: output if float(output.sum()) > 0 else output * 2)
    with pytest.raises(ExportError, match=r"cannot be traced for images of any size: .*; fix the size"):
        de.export(de.Ensemble([member]), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []
