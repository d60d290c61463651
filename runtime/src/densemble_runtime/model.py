"""Model: an ONNX file of densemble, opened in onnxruntime."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from densemble_runtime.errors import ArtifactError, DataError, ResourceError, UsageError
from densemble_runtime.files import output_names
from densemble_runtime.images import Array, Source, as_pixels, read_file
from densemble_runtime.prediction import Prediction

KEY = "densemble"
"""Key of the description in the metadata of the file."""
SCHEMA = 1


def _load_onnxruntime() -> Any:
    """Import onnxruntime with its telemetry off: it reads this switch when it is imported."""
    before = os.environ.get("ORT_DISABLE_TELEMETRY")
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime
    finally:
        if before is None:
            del os.environ["ORT_DISABLE_TELEMETRY"]
        else:
            os.environ["ORT_DISABLE_TELEMETRY"] = before
    onnxruntime.disable_telemetry_events()  # Windows has no switch in the environment
    return onnxruntime


class Model:
    """An exported ensemble: pixels in, maps at the size of the image out.

    Args:
        path: file written by ``densemble export ARTIFACT -o NAME.onnx``.
        providers: execution providers of onnxruntime, in order of preference; default: the CPU.
        threads: number of threads on the CPU; default: one per core.

    Attributes:
        description: contents of the file's metadata: task, classes, input, outputs, members, scores.
        classes: names of the classes; empty if the task has none.

    Raises:
        ArtifactError: the file is absent, damaged, not an export of densemble, or of an unknown version.
        UsageError: an unknown provider.
        ResourceError: a provider does not start.
    """

    def __init__(
        self, path: str | Path, providers: Sequence[str] | None = None, threads: int | None = None
    ) -> None:  # fmt: skip
        self.path = Path(path)
        if not self.path.is_file():
            raise ArtifactError(f"no file at '{self.path}'; make one with `densemble export ARTIFACT -o NAME.onnx`")
        if self.path.suffix == ".safetensors":
            raise ArtifactError(
                f"'{self.path}' is an artifact of densemble; export it first, where densemble is installed: "
                f"`densemble export {self.path.name} -o {self.path.with_suffix('.onnx').name}`"
            )
        self._session = self._open(list(providers or ["CPUExecutionProvider"]), threads)
        self.description = self._describe()
        self.classes: tuple[str, ...] = tuple(self.description["classes"])
        self._input: dict[str, Any] = self.description["input"]

    def _open(self, providers: list[str], threads: int | None) -> Any:
        onnxruntime = _load_onnxruntime()
        available = onnxruntime.get_available_providers()
        unknown = [name for name in providers if name not in available]
        if unknown:
            raise UsageError(f"onnxruntime has no provider '{unknown[0]}'; it has: {', '.join(available)}")
        if threads is not None and threads < 1:
            raise UsageError(f"{threads} threads cannot compute; give at least 1")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # failures are raised
        options.intra_op_num_threads = threads or 0
        try:
            session = onnxruntime.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # the session raises errors of many types
            raise ArtifactError(f"onnxruntime cannot open '{self.path}': {_first_line(error)}") from error
        if session.get_providers()[0] != providers[0]:  # onnxruntime falls back to the CPU
            raise ResourceError(f"provider '{providers[0]}' does not start on this machine; leave it out")
        return session

    def _describe(self) -> dict[str, Any]:
        text = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise ArtifactError(f"'{self.path}' is not an export of densemble: its metadata has no '{KEY}'")
        try:
            description: dict[str, Any] = json.loads(text)
            schema = description["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"'{self.path}' has a damaged description; export the ensemble again") from error
        if schema != SCHEMA:
            raise ArtifactError(
                f"'{self.path}' has version {schema} of the description, this program reads version {SCHEMA}; update "
                "densemble-runtime, or export the ensemble again"
            )
        return description

    @overload
    def predict(self, image: Source) -> Prediction: ...
    @overload
    def predict(self, image: list[Source]) -> list[Prediction]: ...
    def predict(self, image: Source | list[Source]) -> Prediction | list[Prediction]:
        """Predict one image, or each image of a list.

        Args:
            image: a file, a PIL image, or an array ``(H, W, C)``: uint8, or float in [0, 1] if the file was exported
                with ``--input float32``; or a list of these, of any sizes.

        Raises:
            DataError: a file cannot be read, or does not fit the model.
            UsageError: an array or PIL image of an unsupported shape or type.
        """
        if isinstance(image, list):
            paths = [Path(item) if isinstance(item, str | Path) else item for item in image]
            return [self._predict(item, name) for item, name in zip(image, output_names(paths), strict=True)]
        return self._predict(image, Path(image).stem if isinstance(image, str | Path) else "0")

    def _predict(self, image: Source, name: str) -> Prediction:
        path = Path(image) if isinstance(image, str | Path) else None
        where = f"'{path}'" if path else "the image"
        channels = self._input["channels"]
        pixels = self._read(Path(image)) if isinstance(image, str | Path) else as_pixels(image, channels)
        size = self._input["size"]
        if size is not None and list(pixels.shape[:2]) != size:
            expected = "x".join(map(str, size))
            raise DataError(
                f"{where} is {pixels.shape[0]}x{pixels.shape[1]}, the model takes {expected} only; resize it"
            )
        names = list(self.description["outputs"])
        try:
            maps = self._session.run(names, {self._input["name"]: self._as_input(pixels, where)[None]})
        except (DataError, UsageError):
            raise
        except Exception as error:  # the session raises errors of many types
            raise DataError(f"{where} cannot be predicted: {_first_line(error)}") from error
        return Prediction(
            maps={name: values[0] for name, values in zip(names, maps, strict=True)},
            description=self.description, image=pixels, name=name, path=path,
        )  # fmt: skip

    def _read(self, path: Path) -> Array:
        channels, reading = self._input["channels"], self._input["reading"]
        if channels != 3 or reading.get("bands") is not None or reading.get("image_range") is not None:
            raise DataError(
                f"'{path}': the model takes {channels} bands of raster files, which are not read here; pass an array "
                f"(H, W, {channels}) scaled as in training, or use `densemble predict`"
            )
        return read_file(path)

    def _as_input(self, pixels: Array, where: str) -> Array:
        """Convert pixels ``(H, W, C)`` to the type and layout of the graph's input."""
        floats = self._input["type"] == "float32"
        if pixels.dtype == np.uint8:
            unit = pixels.astype(np.float32) / np.float32(255) if floats else pixels
        elif not floats:
            raise DataError(
                f"{where} has pixels of type {pixels.dtype}, the model takes 8 bits; export it with --input float32, "
                "or convert the image to 8 bits"
            )
        elif pixels.dtype == np.uint16:
            unit = pixels.astype(np.float32) / np.float32(65535)
        elif pixels.dtype.kind == "f":
            if not (np.isfinite(pixels).all() and pixels.min() >= -1e-3 and pixels.max() <= 1 + 1e-3):
                raise UsageError(f"{where} holds values outside [0, 1]; divide by 255?")
            unit = pixels.astype(np.float32)
        else:
            raise UsageError(f"images must be uint8, or float in [0, 1], got {pixels.dtype}; convert them")
        return np.ascontiguousarray(unit.transpose(2, 0, 1)) if floats else unit


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
