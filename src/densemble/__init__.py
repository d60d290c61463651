"""densemble: turn pretrained image classifiers into dense predictors and combine them into one calibrated ensemble.

import densemble as de
run = de.train("my-data", task="saliency", members=["alexnet", "vgg19_bn", "resdeconv"], out="runs/gaze")
de.save(run.assemble(), "gaze.safetensors")
for p in de.predict(de.load("gaze.safetensors"), "photos/"): p.save("out")
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from densemble.versions import __version__ as __version__

for _switch in ("HF_HUB_DISABLE_TELEMETRY", "MLFLOW_DISABLE_TELEMETRY"):
    os.environ.setdefault(_switch, "1")  # read when the library is imported, so it must be set before

if TYPE_CHECKING:
    from densemble.data.folder import FolderData
    from densemble.data.layouts import LAYOUTS
    from densemble.data.torch_dataset import store_dataset
    from densemble.distillation import Distilled, DistillOptions, distill
    from densemble.ensemble.combine import COMBINE, CombinationRule
    from densemble.ensemble.ensemble import Ensemble
    from densemble.ensemble.prediction import Prediction
    from densemble.errors import DensembleError
    from densemble.exporters import EXPORTERS, ExportOptions, export
    from densemble.exporters.hub import from_pretrained, push_to_hub, save_pretrained
    from densemble.inference.formats import FORMATS
    from densemble.inference.predict import PredictOptions, predict
    from densemble.inference.runtime.backends import BACKENDS
    from densemble.nets.backbones import backbones
    from densemble.nets.cut import Cut
    from densemble.nets.cuts import cuts
    from densemble.nets.dense import DenseModel
    from densemble.nets.heads import HEADS
    from densemble.nets.heads.head import DenseHead, Head
    from densemble.run import Run, train
    from densemble.scoring import evaluate
    from densemble.storage.artifact import load, save
    from densemble.tasks import TASKS, Task
    from densemble.tuning import TuneResult, tune

_MODULES = {
    "BACKENDS": "inference.runtime.backends",
    "COMBINE": "ensemble.combine",
    "EXPORTERS": "exporters",
    "FORMATS": "inference.formats",
    "HEADS": "nets.heads",
    "LAYOUTS": "data.layouts",
    "TASKS": "tasks",
    "CombinationRule": "ensemble.combine",
    "Cut": "nets.cut",
    "DenseHead": "nets.heads.head",
    "DenseModel": "nets.dense",
    "DensembleError": "errors",
    "DistillOptions": "distillation",
    "Distilled": "distillation",
    "Ensemble": "ensemble.ensemble",
    "ExportOptions": "exporters",
    "FolderData": "data.folder",
    "Head": "nets.heads.head",
    "PredictOptions": "inference.predict",
    "Prediction": "ensemble.prediction",
    "Run": "run",
    "Task": "tasks",
    "TuneResult": "tuning",
    "backbones": "nets.backbones",
    "cuts": "nets.cuts",
    "distill": "distillation",
    "evaluate": "scoring",
    "export": "exporters",
    "from_pretrained": "exporters.hub",
    "load": "storage.artifact",
    "predict": "inference.predict",
    "push_to_hub": "exporters.hub",
    "save": "storage.artifact",
    "save_pretrained": "exporters.hub",
    "store_dataset": "data.torch_dataset",
    "train": "run",
    "tune": "tuning",
}

__all__ = [
    "BACKENDS",
    "COMBINE",
    "EXPORTERS",
    "FORMATS",
    "HEADS",
    "LAYOUTS",
    "TASKS",
    "CombinationRule",
    "Cut",
    "DenseHead",
    "DenseModel",
    "DensembleError",
    "DistillOptions",
    "Distilled",
    "Ensemble",
    "ExportOptions",
    "FolderData",
    "Head",
    "PredictOptions",
    "Prediction",
    "Run",
    "Task",
    "TuneResult",
    "backbones",
    "cuts",
    "distill",
    "evaluate",
    "export",
    "from_pretrained",
    "load",
    "predict",
    "push_to_hub",
    "save",
    "save_pretrained",
    "store_dataset",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    # Import lazily: torch takes seconds to import, and `densemble --help` does not need it.
    if name in _MODULES:
        return getattr(import_module(f"densemble.{_MODULES[name]}"), name)
    raise AttributeError(f"module 'densemble' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
