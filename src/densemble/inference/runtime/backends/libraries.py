"""Imports of OpenVINO, NNCF and ONNX Runtime with their telemetry off.

OpenVINO reports its import and every conversion, and stores a client number in ``~/intel``. ONNX Runtime stores a
device number in ``~/.cache/Microsoft`` and reports sessions. Each library reads its switch when it is imported.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

_OFF = {
    "CI": "true",  # the only switch of OpenVINO that needs no file in the home folder
    "NNCF_CI": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
_LOCK = RLock()


def _has_home() -> bool:
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


@contextmanager
def no_telemetry() -> Iterator[None]:
    """Turn telemetry off in the environment, and restore it afterwards. One thread at a time."""
    with _LOCK:
        changes = _OFF if _has_home() else {**_OFF, "HOME": os.devnull}  # where OpenVINO looks for its consent file
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def load_openvino() -> Any:
    """The module ``openvino``.

    Raises:
        ImportError: it is not installed.
    """
    with no_telemetry():
        import openvino
    return openvino


def load_nncf() -> Any:
    """The module ``nncf``, which imports OpenVINO.

    Raises:
        ImportError: it is not installed.
    """
    with no_telemetry():
        import nncf
    return nncf


def load_onnxruntime() -> Any:
    """The module ``onnxruntime``.

    Raises:
        ImportError: it is not installed.
    """
    with no_telemetry():
        import onnxruntime
    onnxruntime.disable_telemetry_events()  # Windows has no switch in the environment
    return onnxruntime
