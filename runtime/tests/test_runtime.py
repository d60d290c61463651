"""densemble-runtime: the pixels, maps and files of densemble, from an exported file."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import densemble_runtime
import imagecodecs
import numpy as np
import onnx
import pytest
import tifffile
from densemble_runtime import ArtifactError, DataError, Model, Prediction, ResourceError, UsageError, drawing
from densemble_runtime.cli import main
from densemble_runtime.files import output_names, write_png, write_tiff
from densemble_runtime.images import find_images, read_file, turned
from onnx import TensorProto, helper
from PIL import Image
from small_networks import small_dense

import densemble as de
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet
from densemble.ensemble.input_images import as_images
from densemble.exporters.description import describe
from densemble.exporters.graph import EnsembleGraph, GraphOptions, trace
from densemble.exporters.onnx import write_onnx
from densemble.inference import drawing as densemble_drawing
from densemble.inference.image_prediction import ImagePrediction
from densemble.storage.images import read_image

RANDOM = np.random.default_rng(0)
PHOTO = np.asarray(Image.fromarray(RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((44, 33)))


def two(channels: int, task: Any, **options: Any) -> de.Ensemble:
    return de.Ensemble([small_dense(seed, out_channels=channels) for seed in (0, 1)], [3, 1], task=task, **options)


def classes() -> de.Ensemble:
    task = de.tasks.make_task({"name": "segmentation", "classes": ["sky", "road", "car"]})
    return two(3, task, guarantee=ConformalSet(0.3, 0.1, 20))


def depth(whole: bool = True) -> de.Ensemble:
    task = de.tasks.make_task({"name": "depth", "file_scale": 0.001, "unit": "m", "whole": whole})
    return two(1, task, guarantee=ConformalInterval(0.4, None, 0.1, 20))


ENSEMBLES: dict[str, Callable[[], de.Ensemble]] = {
    "saliency": lambda: two(1, "saliency"),
    "segmentation": classes,
    "depth": depth,
    "fractions": lambda: depth(whole=False),
    "multilabel": lambda: two(2, "multilabel"),
    "keypoints": lambda: two(2, de.tasks.make_task({"name": "heatmap", "classes": ["head", "hand"]})),
    "density": lambda: two(1, de.tasks.make_task({"name": "heatmap", "classes": ["cells"], "heatmap": "density"})),
    "image": lambda: two(3, "image"),
}


def predicted(ensemble: de.Ensemble, image: Any) -> ImagePrediction:
    (prediction,) = de.predict(ensemble, image, backend="eager", precision="fp32")
    assert isinstance(prediction, ImagePrediction)
    return prediction


def described(ensemble: de.Ensemble) -> dict[str, Any]:
    """The description in the metadata of an export."""
    description: dict[str, Any] = json.loads(json.dumps(describe(EnsembleGraph(ensemble, GraphOptions()))))
    return description


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole ensemble, exported; tracing takes seconds, so all other files are written by :func:`pixel_model`."""
    graph = EnsembleGraph(classes().eval(), GraphOptions(maps=("entropy", "included"))).eval()
    path = tmp_path_factory.mktemp("exported") / "segmenter.onnx"
    write_onnx(trace(graph), graph, describe(graph), path)
    return path


def pixel_model(path: Path, input_type: str = "uint8", **changes: Any) -> Path:
    """Write a file of the exported form whose mean ``(B, 3, H, W)`` is the image itself, in [0, 1].

    ``changes`` are those of the description, and of its entry ``input``.
    """
    uint8 = input_type == "uint8"
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [255.0])
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["unit"]),
        helper.make_node("Transpose", ["unit"], ["mean"], perm=[0, 3, 1, 2]),
    ]
    shape = ["batch", "height", "width", 3] if uint8 else ["batch", 3, "height", "width"]
    number = TensorProto.UINT8 if uint8 else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes if uint8 else [helper.make_node("Identity", ["images"], ["mean"])],
        "pixels",
        [helper.make_tensor_value_info("images", number, shape)],
        [helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [scale] if uint8 else [],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    description = described(two(3, "image"))
    description["input"] |= {"type": input_type} | {
        key: changes.pop(key) for key in ("size", "reading") if key in changes
    }
    description["outputs"] = {"mean": description["outputs"]["mean"]}
    helper.set_model_props(model, {"densemble": json.dumps(description | changes)})
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("task", ENSEMBLES)
def test_files_are_those_of_densemble(task: str, tmp_path: Path) -> None:
    ensemble = ENSEMBLES[task]().eval()
    reference = predicted(ensemble, PHOTO)
    maps = {name: values.numpy() for name, values in reference.maps().items()}
    prediction = Prediction(maps, described(ensemble), PHOTO, "0", None)
    kinds = tuple(kind for kind in densemble_runtime.SAVE if kind != "guarantee" or ensemble.guarantee)
    written = {file.name for file in prediction.save(tmp_path / "out", kinds)}
    expected = reference.save(tmp_path / "expected", kinds)
    assert written == {file.name for file in expected} == {file.name for file in (tmp_path / "out").iterdir()}
    for file in expected:
        read: Any = {".npy": np.load, ".tif": tifffile.imread, ".png": lambda path: np.asarray(Image.open(path))}
        pixels, same = read[file.suffix](tmp_path / "out" / file.name), read[file.suffix](file)
        assert pixels.dtype == same.dtype
        rounded = file.name.endswith("_uncertainty.png")  # torch and NumPy round square roots differently
        assert (pixels != same).mean() <= (0.01 if rounded else 0), file.name
    np.testing.assert_allclose(prediction.uncertainty, reference.uncertainty, rtol=1e-6)
    assert prediction.classes == ensemble.task.classes and (prediction.label is None) == (reference.label is None)


def test_an_export_gives_the_maps_of_densemble(segmenter: Path, tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    reference = predicted(classes().eval(), tmp_path / "photo.png")
    prediction = Model(segmenter, threads=1).predict(str(tmp_path / "photo.png"))
    assert list(prediction.maps) == ["mean", "entropy", "included"] and prediction.path == tmp_path / "photo.png"
    for name, values in prediction.maps.items():
        expected = reference.maps()[name].numpy()
        assert values.shape == expected.shape and values.dtype == expected.dtype
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-5, err_msg=name)
    assert prediction.label is not None and reference.label is not None  # computed from the mean: the file has none
    np.testing.assert_array_equal(prediction.label, reference.label.numpy())
    assert repr(prediction) == "<Prediction of 'photo': segmentation, 3x33x44>"


def test_an_older_file_of_heat_shows_the_map_that_it_named(tmp_path: Path) -> None:
    """Its description does not name the map of the uncertainty, and it may hold no variance."""
    reference = predicted(two(1, "saliency").eval(), PHOTO)
    description = described(two(1, "saliency"))
    assert description["task"].pop("uncertainty") == "variance"
    assert reference.entropy is not None
    maps = {"mean": reference.mean.numpy(), "entropy": reference.entropy.numpy()}
    prediction = Prediction(maps, description, PHOTO, "0", None)
    np.testing.assert_array_equal(prediction.uncertainty, maps["entropy"])
    bar = prediction.draw("uncertainty").legend.bar
    assert bar is not None and bar.label == "uncertainty: entropy (nats)" and bar.high == pytest.approx(np.log(2))
    assert [file.name for file in prediction.save(tmp_path, ["uncertainty"])] == ["0_uncertainty.png"]


def test_a_map_that_was_not_exported(tmp_path: Path) -> None:
    prediction = Model(pixel_model(tmp_path / "a.onnx"), threads=1).predict(PHOTO)
    with pytest.raises(UsageError, match="no map 'variance'; it has: mean; export it with --maps"):
        _ = prediction.uncertainty
    with pytest.raises(UsageError, match="no map 'lower'"):
        prediction.save(tmp_path, ["guarantee"])


# --- reading images -------------------------------------------------------------------------------------------------


def grey(mode: str) -> Image.Image:
    return Image.fromarray(PHOTO).convert(mode)


def palette() -> Image.Image:
    image = Image.fromarray((PHOTO[:, :, 0] % 5).astype(np.uint8), mode="P")
    image.putpalette([10, 20, 30, 255, 0, 0, 0, 255, 0, 7, 7, 7])  # index 4 is behind the end
    return image


def few_bits(bits: int) -> bytes:
    """A grey PNG of 8 x 3 pixels with 2 or 4 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + RANDOM.integers(0, 256, bits, dtype=np.uint8).tobytes() for _ in range(3))
    header = struct.pack(">IIBBBBB", 8, 3, bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def sixteen(channels: int) -> bytes:
    pixels = RANDOM.integers(0, 65536, (33, 44, channels), dtype=np.uint16)
    encoded: bytes = imagecodecs.png_encode(pixels)
    return encoded


KINDS: dict[str, Callable[[Path], object]] = {
    "plain.jpg": lambda path: Image.fromarray(PHOTO).save(path, quality=90),
    "cmyk.jpg": lambda path: grey("CMYK").save(path),
    "grey.jpg": lambda path: grey("L").save(path),
    "grey.png": lambda path: grey("L").save(path),
    "greyalpha.png": lambda path: grey("LA").save(path),
    "onebit.png": lambda path: grey("1").save(path),
    "alpha.png": lambda path: Image.fromarray(np.dstack([PHOTO, PHOTO[:, :, 0]])).save(path),
    "palette.png": lambda path: palette().save(path),
    "transparent.png": lambda path: palette().save(path, transparency=1),
    "fourbits.png": lambda path: palette().save(path, bits=4),
    "grey2.png": lambda path: path.write_bytes(few_bits(2)),
    "grey4.png": lambda path: path.write_bytes(few_bits(4)),
    "sixteen1.png": lambda path: path.write_bytes(sixteen(1)),
    "sixteen2.png": lambda path: path.write_bytes(sixteen(2)),
    "sixteen3.png": lambda path: path.write_bytes(sixteen(3)),
    "sixteen4.png": lambda path: path.write_bytes(sixteen(4)),
    "plain.bmp": lambda path: Image.fromarray(PHOTO).save(path),
    "lossless.webp": lambda path: Image.fromarray(PHOTO).save(path, lossless=True),
    "lossy.webp": lambda path: Image.fromarray(PHOTO).save(path, quality=80),
    "greys.gif": lambda path: grey("L").save(path),
    "palette.gif": lambda path: palette().save(path),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_read_as_densemble_reads_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / kind
    KINDS[kind](path)
    pixels, expected = read_file(path), read_image(path)
    assert pixels.dtype == expected.dtype
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(PHOTO).save(tmp_path / "turned.jpg", exif=exif)
    np.testing.assert_array_equal(read_file(tmp_path / "turned.jpg"), read_image(tmp_path / "turned.jpg"))
    corner = np.arange(6).reshape(2, 3, 1)
    assert turned(corner, orientation)[0, 0, 0] == {1: 0, 2: 2, 3: 5, 4: 3, 5: 0, 6: 3, 7: 5, 8: 2}[orientation]


def test_pil_images_and_arrays_are_read_as_densemble_reads_them(tmp_path: Path) -> None:
    model = Model(pixel_model(tmp_path / "a.onnx"), threads=1)
    images = [Image.fromarray(PHOTO), grey("L"), grey("LA"), palette(), PHOTO, np.ascontiguousarray(PHOTO[:20, ::-1])]
    predictions = model.predict(images)
    assert [prediction.name for prediction in predictions] == ["0", "1", "2", "3", "4", "5"]
    for prediction, image in zip(predictions, images, strict=True):
        np.testing.assert_allclose(prediction.mean, as_images(image)[0].numpy(), rtol=0, atol=1e-7)


def test_sixteen_bits_and_floats_need_an_export_of_floats(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(sixteen(3))
    model = Model(pixel_model(tmp_path / "a.onnx", "float32"), threads=1)
    floats = PHOTO.astype(np.float32) / 255
    deep = np.moveaxis(read_image(tmp_path / "deep.png").astype(np.float32) / np.float32(65535), -1, 0)
    np.testing.assert_array_equal(model.predict(tmp_path / "deep.png").mean, deep)
    for image in (floats, PHOTO):
        np.testing.assert_array_equal(model.predict(image).mean, floats.transpose(2, 0, 1))
    with pytest.raises(UsageError, match=r"outside \[0, 1\]; divide by 255"):
        model.predict(floats * 255)
    with pytest.raises(UsageError, match=r"uint8, or float in .*, got int64"):
        model.predict(PHOTO.astype(np.int64))
    eight = Model(pixel_model(tmp_path / "b.onnx"), threads=1)
    for refused in (tmp_path / "deep.png", floats):
        with pytest.raises(DataError, match="the model takes 8 bits; export it with --input float32"):
            eight.predict(refused)


# --- errors ---------------------------------------------------------------------------------------------------------


def test_images_that_are_refused(tmp_path: Path) -> None:
    model = Model(pixel_model(tmp_path / "a.onnx"), threads=1)
    frames = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
    for suffix in ("gif", "png", "webp"):
        frames[0].save(tmp_path / f"moving.{suffix}", save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="is an animation"):
            model.predict(tmp_path / f"moving.{suffix}")
    tifffile.imwrite(tmp_path / "raster.tif", PHOTO)
    with pytest.raises(DataError, match=r"\.tif files are not read; pass their pixels as an array"):
        model.predict(tmp_path / "raster.tif")
    Image.fromarray(PHOTO).save(tmp_path / "cut.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "cut.jpg").read_bytes()[:400])
    with pytest.raises(DataError, match=r"cannot read '.*cut\.jpg'"):
        model.predict(tmp_path / "cut.jpg")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match="is not a PNG, JPEG"):
        model.predict(tmp_path / "text.png")
    with pytest.raises(DataError, match="no file at"):
        model.predict(tmp_path / "absent.png")
    with pytest.raises(UsageError, match=r"must be \(H, W, 3\) .* got \(33, 44\)"):
        model.predict(PHOTO[:, :, 0])
    with pytest.raises(UsageError, match="mode F does not have 8 bits"):
        model.predict(Image.fromarray(np.zeros((4, 4), np.float32)))
    with pytest.raises(UsageError, match="a bytes is no image"):
        model.predict(b"")  # type: ignore[call-overload]


def test_files_that_are_no_exports(tmp_path: Path) -> None:
    path = pixel_model(tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match="no file at"):
        Model(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(ArtifactError, match="onnxruntime cannot open"):
        Model(tmp_path / "text.onnx")
    with pytest.raises(ArtifactError, match="version 2 of the description, this program reads version 1; update"):
        Model(pixel_model(tmp_path / "newer.onnx", schema=2))
    model = onnx.load(path)
    model.metadata_props[0].value = "{"
    onnx.save(model, tmp_path / "damaged.onnx")
    with pytest.raises(ArtifactError, match="damaged description"):
        Model(tmp_path / "damaged.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ArtifactError, match="is not an export of densemble"):
        Model(tmp_path / "other.onnx")
    with pytest.raises(UsageError, match=r"has no provider 'TPU'; it has: .*CPUExecutionProvider"):
        Model(path, providers=["TPU"])
    with pytest.raises(UsageError, match="0 threads cannot compute"):
        Model(path, threads=0)


def test_models_of_bands_take_arrays_only(tmp_path: Path) -> None:
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    model = Model(pixel_model(tmp_path / "bands.onnx", reading={"bands": [0, 1, 2]}), threads=1)
    with pytest.raises(DataError, match="bands of raster files, which are not read here; pass an array"):
        model.predict(tmp_path / "photo.png")
    np.testing.assert_allclose(model.predict(PHOTO).mean, PHOTO.transpose(2, 0, 1) / 255, atol=1e-7)


def test_a_fixed_size_is_required(tmp_path: Path) -> None:
    model = Model(pixel_model(tmp_path / "a.onnx", size=[33, 44]), threads=1)
    assert model.predict(PHOTO).mean.shape == (3, 33, 44)
    with pytest.raises(DataError, match="the image is 20x44, the model takes 33x44 only"):
        model.predict(np.ascontiguousarray(PHOTO[:20]))


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_tiff_files_hold_the_planes(dtype: type, bands: int, tmp_path: Path) -> None:
    planes = RANDOM.integers(0, 200, (bands, 7, 9)).astype(dtype)
    path = write_tiff(tmp_path / "a.tif", planes)
    np.testing.assert_array_equal(tifffile.imread(path), planes if bands > 1 else planes[0])
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1 and file.pages[0].photometric == tifffile.PHOTOMETRIC.MINISBLACK


@pytest.mark.parametrize("kind", ["labels", "values", "masks", "pixels", "heat", "density"])
def test_drawings_are_those_of_densemble(kind: Any) -> None:
    maps = RANDOM.random((3, 33, 44), dtype=np.float32)
    label = maps.argmax(0) if kind == "labels" else None
    names = ("background", "road", "car")
    ours, theirs = (made.Meaning(kind, "none", "task", names, "m") for made in (drawing, densemble_drawing))
    expected = densemble_drawing.draw_overlay(PHOTO, maps, theirs, label).with_legend()
    np.testing.assert_array_equal(drawing.draw_overlay(PHOTO, maps, ours, label).with_legend(), expected)


def test_names_are_those_of_densemble() -> None:
    from densemble.inference.files.output_names import output_names as expected

    images = [Path("a/x.png"), Path("b/x.png"), Path("b/x.jpg"), Path("y.png"), PHOTO, Path("c/b/x.jpg")]
    assert output_names(images) == expected(images)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        write_png(tmp_path / "file" / "a.png", PHOTO)


# --- command line ---------------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        main([str(word) for word in words])
        code: object = 0
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    assert isinstance(code, int)
    return code, captured.out, captured.err


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.jpg"):
        Image.fromarray(PHOTO).save(photos / name)
    path, out = pixel_model(tmp_path / "a.onnx"), tmp_path / "out"
    code, stdout, _ = run(capsys, path, photos, "-o", out, "--save", "map,npy", "--json", "--threads", 1)
    result = json.loads(stdout)
    assert code == 0 and result["failed"] == [] and [item["size"] for item in result["predicted"]] == [[33, 44]] * 2
    assert sorted(file.name for file in out.iterdir()) == ["a.npy", "a_map.png", "b.npy", "b_map.png"]
    np.testing.assert_array_equal(np.load(out / "a.npy"), Model(path, threads=1).predict(PHOTO).mean)

    (photos / "c.png").write_text("no image")
    code, stdout, stderr = run(capsys, path, photos, "-o", out)
    assert code == 5 and stdout == "" and "2 of 3 images predicted" in stderr and "c.png' is not a PNG" in stderr
    for expected, words in {
        3: (path, photos / "c.png", "-o", out),
        4: (photos / "c.png", photos, "-o", out),
        2: (path, photos, "-o", out, "--save", "maps"),
        6: (path, photos / "a.png", "-o", photos / "a.png"),
    }.items():
        code, _, stderr = run(capsys, *words)
        assert code == expected and stderr.splitlines()[-1].startswith("densemble-predict: "), stderr
    assert find_images([photos / "a.png", photos]) == [photos / "a.png", photos / "b.jpg", photos / "c.png"]
    assert find_images([str(photos / "*.png")]) == [photos / "a.png", photos / "c.png"]
    with pytest.raises(DataError, match=r"no image matches '.*\*.gif'"):
        find_images([str(photos / "*.gif")])
    (tmp_path / "a.safetensors").write_bytes(b"")
    code, _, stderr = run(capsys, tmp_path / "a.safetensors", photos, "-o", out)
    assert code == 4 and "export it first" in stderr and "`densemble export a.safetensors -o a.onnx`" in stderr


def test_the_package_imports_no_other_libraries() -> None:
    allowed = {"onnxruntime", "numpy", "PIL", "densemble_runtime"}
    import ast
    import sys

    for file in Path(densemble_runtime.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed | set(sys.stdlib_module_names), file.name
