"""Formats of other programs: COCO, GeoJSON, Label Studio, CVAT, and tables.

A format is one row of ``FORMATS``: how it collects the map of an image, and how it writes a file.
"""

from typing import get_args

from densemble.inference.formats import areas_csv, coco_json, cvat_xml, geojson, label_studio_json
from densemble.inference.formats.format import Content, Entry, Format, FormatOptions, MapRows, OutputFacts, content_of
from densemble.storage.geo import require_rasterio

__all__ = ["FORMATS", "Content", "Entry", "Format", "FormatOptions", "MapRows", "OutputFacts", "content_of"]

_REGIONS: frozenset[Content] = frozenset(("classes", "masks"))

FORMATS: dict[str, Format] = {
    "coco": Format(
        "predictions.coco.json", _REGIONS, coco_json.collect_runs, coco_json.write_coco, whole_map=True,
        require=coco_json.require_pycocotools,
    ),
    "coco-polygons": Format(
        "predictions.coco-polygons.json", _REGIONS, coco_json.collect_polygons, coco_json.write_coco, whole_map=True,
    ),
    "geojson": Format(
        "geojson", _REGIONS, geojson.collect, geojson.write_geojson, per_image=True, require=require_rasterio,
    ),
    "labelstudio": Format(
        "predictions.labelstudio.json", _REGIONS, label_studio_json.collect, label_studio_json.write_tasks,
        whole_map=True,
    ),
    "cvat": Format("annotations.xml", _REGIONS | {"points"}, cvat_xml.collect, cvat_xml.write_cvat, whole_map=True),
    "csv": Format("areas.csv", frozenset(get_args(Content)), areas_csv.collect, areas_csv.write_areas),
}  # fmt: skip
"""Formats by name."""
