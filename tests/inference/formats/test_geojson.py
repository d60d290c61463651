"""GeoJSON files: rasterio gives the label map back, at the place of the raster."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_predictions import CLASSES, blobs, make, of_maps, overlapping

from densemble.inference.formats import FORMATS, Entry, FormatOptions, MapRows, OutputFacts
from densemble.tasks import SegmentationTask

rasterio = pytest.importorskip("rasterio")
from rasterio import features, warp  # noqa: E402

UTM = rasterio.Affine(2, 0, 5e5, 0, -2, 5e6)
ROTATED = rasterio.Affine(1.5, 0.5, 5e5, 0.5, -2, 5e6)
OBLIQUE = (
    'PROJCS["mine",GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],PARAMETER["latitude_of_origin",1],'
    'PARAMETER["central_meridian",9.5],PARAMETER["scale_factor",0.99],PARAMETER["false_easting",5],'
    'PARAMETER["false_northing",7],UNIT["metre",1]]'
)


def geotiff(path: Path, crs: str | None = "EPSG:32632", transform: Any = UTM) -> Path:
    layout = {"driver": "GTiff", "height": 24, "width": 31, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs=crs, transform=transform, **layout) as file:
        file.write(np.zeros((3, 24, 31), np.uint8))
    return path


def rasterized(collection: dict[str, Any], transform: Any) -> np.ndarray:
    shapes = [(feature["geometry"], feature["properties"]["class_id"]) for feature in collection["features"]]
    return np.asarray(features.rasterize(shapes, (24, 31), fill=0, transform=transform, dtype="uint8"))


@pytest.mark.parametrize("transform", [UTM, ROTATED], ids=["north up", "rotated"])
@pytest.mark.parametrize("seed", range(3))
def test_rasterio_gives_the_label_map_back(seed: int, transform: Any, tmp_path: Path) -> None:
    label, image = blobs(seed), geotiff(tmp_path / "a.tif", transform=transform)
    (path,) = make(label, image).save(tmp_path, ("geojson",))
    assert path.name == "a.geojson"
    collection = json.loads(path.read_text())
    assert collection["crs"] == {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    np.testing.assert_array_equal(rasterized(collection, transform), label)
    pixel = abs(transform.determinant)
    for feature in collection["features"]:
        properties, shape = feature["properties"], feature["geometry"]
        region = features.rasterize([shape], (24, 31), transform=transform).astype(bool)
        assert CLASSES[properties["class_id"]] == properties["class"] and properties["pixels"] == region.sum()
        assert properties["area"] == pytest.approx(region.sum() * pixel)
        rows = np.nonzero(region)[0]
        assert properties["probability"] == pytest.approx(np.where(rows < 12, 0.6, 0.8).mean(), abs=6e-5)
        areas = [signed_area(ring) for ring in shape["coordinates"]]
        assert areas[0] > 0 and all(area < 0 for area in areas[1:])  # the right-hand rule of RFC 7946
        assert sum(areas) == pytest.approx(properties["area"])


def signed_area(ring: list[list[float]]) -> float:
    x, y = np.array(ring).T - np.array(ring)[0][:, None]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


def test_longitude_and_latitude(tmp_path: Path) -> None:
    prediction = make(blobs(0), geotiff(tmp_path / "a.tif"))
    (kept,) = prediction.save(tmp_path / "kept", ("geojson",))
    (converted,) = prediction.save(tmp_path / "wgs84", ("geojson",), None, FormatOptions(crs="wgs84"))
    metres, degrees = json.loads(kept.read_text()), json.loads(converted.read_text())
    assert "crs" not in degrees and len(degrees["features"]) == len(metres["features"])
    for one, other in zip(metres["features"], degrees["features"], strict=True):
        assert one["properties"] == other["properties"]
        x, y = zip(*one["geometry"]["coordinates"][0], strict=True)
        expected = np.stack(warp.transform("EPSG:32632", "EPSG:4326", x, y), axis=1)
        np.testing.assert_allclose(sorted(other["geometry"]["coordinates"][0]), sorted(expected.tolist()), atol=1e-9)
    longitude, latitude = degrees["features"][0]["geometry"]["coordinates"][0][0]
    assert 8.9 < longitude < 9.1 and 45.1 < latitude < 45.2


@pytest.mark.parametrize(
    ("crs", "expected"),
    [
        ("EPSG:4326", {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}),
        ("EPSG:3857", {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::3857"}}),
        (None, None),
    ],
)
def test_reference_systems(crs: str | None, expected: Any, tmp_path: Path) -> None:
    transform = rasterio.Affine(0.5, 0, 9, 0, -0.5, 45)
    (path,) = make(blobs(0), geotiff(tmp_path / "a.tif", crs, transform)).save(tmp_path, ("geojson",))
    collection = json.loads(path.read_text())
    assert collection["crs"] == expected
    np.testing.assert_array_equal(rasterized(collection, transform), blobs(0))


def test_a_system_without_a_code_is_converted(tmp_path: Path) -> None:
    transform = rasterio.Affine(2, 0, 0, 0, -2, 0)
    (path,) = make(blobs(0), geotiff(tmp_path / "a.tif", OBLIQUE, transform)).save(tmp_path, ("geojson",))
    collection = json.loads(path.read_text())
    assert "crs" not in collection
    longitude, latitude = np.array(collection["features"][0]["geometry"]["coordinates"][0]).T
    assert (np.abs(longitude - 9.5) < 0.01).all() and (np.abs(latitude - 1) < 0.01).all()


def test_a_photo_has_pixel_coordinates(photo: Path, tmp_path: Path) -> None:
    (path,) = make(blobs(0), photo).save(tmp_path, ("geojson",))
    collection = json.loads(path.read_text())
    assert collection["crs"] is None
    np.testing.assert_array_equal(rasterized(collection, rasterio.Affine.identity()), blobs(0))
    assert all(f["properties"]["area"] == f["properties"]["pixels"] for f in collection["features"])


def test_overlapping_masks_and_missing_data(tmp_path: Path) -> None:
    mean, task = overlapping(2)
    valid = np.ones((24, 31), bool)
    valid[5:12, 4:20] = False
    prediction = of_maps(mean, task, geotiff(tmp_path / "a.tif"), valid)
    (path,) = prediction.save(tmp_path, ("geojson",))
    collection = json.loads(path.read_text())
    for number in range(3):
        shapes = [f["geometry"] for f in collection["features"] if f["properties"]["class_id"] == number]
        region = features.rasterize(shapes, (24, 31), transform=UTM).astype(bool)
        np.testing.assert_array_equal(region, (prediction.mean[number].numpy() >= 0.5) & valid)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("overlap", [False, True])
def test_rows_give_the_same_file_as_the_whole_map(kind: str, overlap: bool, tmp_path: Path) -> None:
    image = geotiff(tmp_path / "a.tif")
    mean, task = overlapping(3) if overlap else (make(blobs(3)).mean.numpy(), SegmentationTask(CLASSES))
    valid = np.random.default_rng(0).random((24, 31)) < 0.9
    label = None if overlap else mean.argmax(0)
    row, texts = FORMATS[kind], []
    for heights in ([24], [5, 1, 18]):
        collector = row.collect(OutputFacts(image, tmp_path, (24, 31), task, FormatOptions()))
        for end, n in zip(np.cumsum(heights), heights, strict=True):
            part = slice(end - n, end)
            collector.add(MapRows(end - n, mean[:, part], None if label is None else label[part], valid[part]))
        row.write(path := tmp_path / "file", [Entry("a.tif", collector.record())], task, FormatOptions())
        texts.append(path.read_text())
    lines = [sorted(line.rstrip(",") for line in text.splitlines()) for text in texts]
    assert lines[0] == lines[1] and len(lines[0]) > 1  # polygons may come in another order
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", "file"}
