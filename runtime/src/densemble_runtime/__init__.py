"""densemble-runtime: run the ONNX files of densemble with onnxruntime, NumPy and Pillow."""

from densemble_runtime.errors import (
    ArtifactError,
    DataError,
    PartialError,
    ResourceError,
    RuntimeFailure,
    UsageError,
)
from densemble_runtime.model import Model
from densemble_runtime.prediction import SAVE, Prediction

__version__ = "0.1.0"

__all__ = [
    "SAVE",
    "ArtifactError",
    "DataError",
    "Model",
    "PartialError",
    "Prediction",
    "ResourceError",
    "RuntimeFailure",
    "UsageError",
    "__version__",
]
