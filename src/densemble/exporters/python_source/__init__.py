"""Export to a readable Python module that computes the ensemble's maps with torch and torchvision alone."""

import keyword
import sys
from collections.abc import Sequence
from pathlib import Path

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.exporters.python_source.source import python_source
from densemble.exporters.python_source.verify import verify
from densemble.progress.phases import phase
from densemble.storage.artifact import load, save
from densemble.storage.writing import write_text

_IMPORTED = ("torch", "torchvision", "timm", "safetensors", "numpy", "densemble")


def write_python(ensemble: Ensemble, path: Path, images: Sequence[Path] = ()) -> None:
    """Write ``NAME.py`` and its weights ``NAME.safetensors``, which is an artifact, and verify them.

    The module has one class per member and a class ``Ensemble``. It needs torch, torchvision and safetensors, and timm
    if a member has a backbone of timm. On a CPU its maps equal the ensemble's bit for bit, which is checked in a new
    process that cannot import densemble.

    Args:
        ensemble: its members have backbones of torchvision, timm or densemble.
        path: ``NAME.py``; NAME is the name of a module.
        images: image files for the verification; default: two photographs.

    Raises:
        UsageError: the name is not that of a module, or a part of the ensemble cannot be written as code.
        ExportError: the module computes other maps than the ensemble.
    """
    require_module_name(path)
    write_text(path, python_source(ensemble, path.stem))
    with phase("exporting", 2, steps=True) as steps:
        steps.start(0, f"writing {path.name}")
        weights = save(ensemble, path.with_suffix(".safetensors"))
        steps.start(1, "comparing maps")
        verify(path, load(weights, "cpu"), images)


def require_module_name(path: Path) -> None:
    """Check the name of a module.

    Raises:
        UsageError: Python cannot import a module of this name, or it would hide a library.
    """
    name = path.stem
    if path.suffix != ".py":
        raise UsageError(f"'{path}': a Python module is named NAME.py")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"'{path}': '{name}' cannot be imported; use letters, digits and underscores, as in gaze.py")
    if name in _IMPORTED or name in sys.stdlib_module_names:
        raise UsageError(f"'{path}' would hide the library '{name}'; choose another name")
