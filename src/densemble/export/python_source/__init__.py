"""Export to a readable Python module that computes the ensemble's maps with torch and torchvision alone."""

import keyword
import shutil
import sys
import tempfile
from pathlib import Path

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import UsageError
from densemble.export.python_source.source import python_source
from densemble.export.python_source.verify import verify
from densemble.storage.artifact import fingerprint, load, save
from densemble.storage.runs import require_writable, writing

_IMPORTED = ("torch", "torchvision", "timm", "safetensors", "numpy", "densemble")


def write_python(ensemble: Ensemble, path: Path, artifact: Path | None = None) -> tuple[Path, ...]:
    """Write ``NAME.py`` and its weights ``NAME.safetensors``, which is an artifact, after their verification.

    The module has one class per member and a class ``Ensemble``. It needs torch, torchvision and safetensors, and timm
    if a member has a backbone of timm. On a CPU its maps equal the ensemble's bit for bit, which is checked in a new
    process that cannot import densemble.

    Args:
        ensemble: its members have backbones of torchvision, timm or densemble.
        path: ``NAME.py``; NAME is the name of a module.
        artifact: file that the ensemble was loaded from. It becomes ``NAME.safetensors`` unchanged: in a file with
            other metadata, tensors may have another alignment in memory, which changes roundings of PyTorch.
            ``None``: the ensemble is saved.

    Returns:
        The paths of both files.

    Raises:
        UsageError: the name is not that of a module, a part of the ensemble cannot be written as code, or
            ``NAME.safetensors`` is another artifact.
        ResourceError: the folder cannot be written or the disk is full.
        ExportError: the module computes other maps than the ensemble; no file is written.
    """
    path = Path(path)
    _require_module_name(path)
    text = python_source(ensemble, path.stem)
    require_writable(path.parent)
    weights = path.with_suffix(".safetensors")
    with writing(path), tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        module = Path(folder) / path.name
        module.write_text(text, encoding="utf-8")
        saved = module.with_suffix(".safetensors")
        if artifact is None:
            save(ensemble, saved)
        else:
            shutil.copyfile(artifact, saved)
        _require_no_other_artifact(weights, saved, path)
        verify(module, load(saved))
        saved.replace(weights)
        module.replace(path)
    return path, weights


def _require_module_name(path: Path) -> None:
    name = path.stem
    if path.suffix != ".py":
        raise UsageError(f"'{path}': a Python module is named NAME.py")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise UsageError(f"'{path}': '{name}' cannot be imported; use letters, digits and underscores, as in gaze.py")
    if name in _IMPORTED or name in sys.stdlib_module_names:
        raise UsageError(f"'{path}' would hide the library '{name}'; choose another name")


def _require_no_other_artifact(weights: Path, saved: Path, path: Path) -> None:
    """Check that writing does not replace an artifact that no earlier export wrote."""
    if weights.exists() and not path.exists() and fingerprint(weights) != fingerprint(saved):
        raise UsageError(f"'{weights}' exists and is another artifact; choose another name than '{path.name}'")
