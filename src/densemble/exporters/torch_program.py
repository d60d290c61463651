"""Format ``torch``: a ``.pt2`` file of ``torch.export``, run by PyTorch alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from densemble.exporters.description import KEY
from densemble.exporters.graph import EnsembleGraph, quiet
from densemble.exporters.runner import Maps, Run
from densemble.shapes import Array
from densemble.storage.runs import strict


def write_torch(program: ExportedProgram, graph: EnsembleGraph, description: Mapping[str, Any], path: Path) -> None:
    """Write a traced ensemble; ``torch.export.load(path).module()`` returns the maps in the order of ``outputs``."""
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # paths of source files
    text = json.dumps(strict({**description, "format": "torch"}))
    with quiet():
        torch.export.save(program, path, extra_files={KEY: text})


def open_torch(path: Path) -> Run:
    """Load a written file; its operations run on the CPU."""
    extra = {KEY: ""}
    with quiet():
        module = torch.export.load(path, extra_files=extra).module()
    names = list(json.loads(extra[KEY])["outputs"])

    def run(images: Array) -> Maps:
        with torch.no_grad():
            outputs = module(torch.from_numpy(images))
        return {name: output.numpy() for name, output in zip(names, outputs, strict=True)}

    return run
