"""Verification of the written file: a process without densemble must compute the same maps, bit for bit."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ExportError
from densemble.exporters.verify import BATCHES, SIZES, photographs
from densemble.progress.phases import track
from densemble.shapes import Size, format_size
from densemble.storage.weight_files import write_tensors

_PROGRAM = """
import importlib.util, json, sys
sys.modules["densemble"] = None
import torch
from safetensors.torch import load_file
torch.set_num_threads({threads})
spec = importlib.util.spec_from_file_location({module!r}, {file!r})  # not by its name: the folder has other files
module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
model = module.Ensemble().eval()
different = []
tensors = load_file({maps!r})
for case in sorted({{key.split("/")[0] for key in tensors}}):
    images = tensors[case + "/images"]
    prediction = model.predict(images)
    computed = {{name: getattr(prediction, name) for name in prediction._fields}}
    expected = {{key.split("/")[1]: value for key, value in tensors.items() if key.split("/")[0] == case}}
    del expected["images"]
    if case == {smallest!r}:
        computed["forward"], expected["forward"] = model(images).detach(), expected["mean"]
    if set(computed) != set(expected):
        different.append([case, "maps", ", ".join(set(computed) ^ set(expected))])
    for name in set(computed) & set(expected):
        if not torch.equal(computed[name], expected[name]):
            try:
                gap = str(float((computed[name].double() - expected[name].double()).abs().max()))
            except RuntimeError as error:
                gap = str(error)
            different.append([case, name, gap])
print(json.dumps(different))
"""


def verify(
    file: Path, ensemble: Ensemble, images: Sequence[Path] = (), sizes: Sequence[Size] = SIZES,
    batches: Sequence[int] = BATCHES,
) -> None:  # fmt: skip
    """Check that the module ``file`` computes the maps of the ensemble, in a new process that cannot import densemble.

    Args:
        file: written module, with its weights beside it.
        ensemble: on the CPU, in eval mode.
        images: image files; default: two photographs.
        sizes: (H, W) to which the images are resized.
        batches: numbers of images in a batch.

    Raises:
        ExportError: the module cannot be run, or a map differs.
    """
    file = file.absolute()  # the process runs in another folder
    maps = file.with_name("expected.safetensors")
    expected = _expected(ensemble, images, sizes, batches)
    write_tensors(maps, expected)
    smallest = min((key for key in expected if key.endswith("/images")), key=lambda key: expected[key].numel())
    program = _PROGRAM.format(
        file=str(file), threads=torch.get_num_threads(), module=file.stem, maps=str(maps),
        smallest=smallest.partition("/")[0],
    )  # fmt: skip
    command = [sys.executable, "-B", "-P", "-c", program]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=file.parent)
    maps.unlink()
    if finished.returncode:
        last = (finished.stderr.strip().splitlines() or [f"exit status {finished.returncode}"])[-1]
        raise ExportError(f"'{file.name}' cannot be run ({last}); export to another format, such as onnx")
    different = json.loads(finished.stdout.splitlines()[-1])
    if different:
        case, name, gap = different[0]
        raise ExportError(
            f"'{file.name}' computes other maps than the ensemble: '{name}' of {case} differs by {gap} "
            f"({len(different)} maps differ); export to another format, such as onnx"
        )


def _expected(
    ensemble: Ensemble, files: Sequence[Path], sizes: Sequence[Size], batches: Sequence[int]
) -> dict[str, Tensor]:
    """Return images and maps by ``CASE/NAME``; a case is the size of a batch."""
    tensors: dict[str, Tensor] = {}
    cases = [(size, batch) for size in sizes for batch in batches]
    for size, batch in track(cases, "batches", len(cases)):
        images = photographs(ensemble, batch, size, files)
        maps = ensemble.predict(images).maps() | {"images": images}
        case = f"{batch}x{format_size(size)}"
        tensors |= {f"{case}/{name}": tensor.contiguous().clone() for name, tensor in maps.items()}
    return tensors
