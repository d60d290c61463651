"""Figures that an artifact records of the run that made it: data, pretrained weights, and cross-fitted scores."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from densemble.report.html_page import Values
from densemble.selection.variants import Candidate
from densemble.storage.run_records import DataReportRecord, optional_record, read_digests, read_state
from densemble.storage.runs import RunFolder

KEY = "assembly"
"""Key of these figures in the ``metrics`` of an ensemble."""
_COPIED = ("metric", "higher_is_better", "cross_fitted", "baselines", "guarantee")


def recorded_figures(run: RunFolder, analysis: Values, candidates: Iterable[Candidate]) -> dict[str, Any]:
    """Return what an artifact records of an assembly, as plain values.

    Args:
        run: run folder.
        analysis: values of ``analysis.json``.
        candidates: selected candidates.

    Returns:
        ``select``, ``images`` (number of images of the fit), ``metric higher_is_better cross_fitted baselines
        calibration guarantee`` as in the analysis, ``data`` (name, splits, digest), and ``members``: kind and initial
        weights by name. It contains no paths and no names of images.
    """
    figures = {key: analysis[key] for key in _COPIED if key in analysis}
    figures |= {"select": analysis["chosen"]["select"], "images": analysis["pictures"], "data": _data(run)}
    if "calibration" in analysis:
        figures["calibration"] = _without_tables(analysis["calibration"])
    figures["members"] = {candidate.name: _member(candidate) for candidate in candidates}
    return figures


def _member(candidate: Candidate) -> dict[str, Any]:
    record = candidate.record
    values = {"kind": candidate.kind, "loaded": _source_name(str(record.get("loaded", "")))}
    return values | ({"weights": record["config"].get("weights")} if record.get("config") else {})


def _source_name(loaded: str) -> str:
    """Return the file name, or the name of the weights, in the line of a member's record about its weights."""
    source = loaded.partition(" from ")[2].partition(";")[0]
    return PurePath(source).name if PurePath(source).is_absolute() else source


def _data(run: RunFolder) -> dict[str, Any]:
    state = read_state(run)
    report = optional_record(run.data_report, DataReportRecord, "the splits of the data are not recorded") or {}
    values = {"name": PurePath(state["data"]).name, "splits": report.get("splits", {"val": len(state["val"])})}
    values |= {key: report[key] for key in ("layout", "split_by") if key in report}
    values["left_out"] = len(report.get("left_out", []))
    if (digests := read_digests(run)) is not None:
        pairs = {key: value for key, value in digests.items() if key != "reading"}
        values["digest"] = hashlib.sha256(json.dumps(pairs, sort_keys=True).encode()).hexdigest()
    return values


def _without_tables(calibration: Mapping[str, Any]) -> Values:
    """Return the scores before and after calibration without the tables of the diagrams."""
    return {
        key: {name: value for name, value in part.items() if name != "table"} if key in ("before", "after") else part
        for key, part in calibration.items()
    }
