"""Backends: runtimes that execute a network at a fixed shape, behind one interface; table BACKENDS."""

from densemble.inference.runtime.backends.backend import Backend, Precision, Runner
from densemble.inference.runtime.backends.cudagraph import CUDAGRAPH
from densemble.inference.runtime.backends.eager import EAGER
from densemble.inference.runtime.backends.inductor import INDUCTOR
from densemble.inference.runtime.backends.onnxruntime import ONNXRUNTIME
from densemble.inference.runtime.backends.openvino import OPENVINO

__all__ = ["BACKENDS", "REFERENCE", "Backend", "Precision", "Runner"]

BACKENDS: dict[str, Backend] = {
    "eager": EAGER,
    "cudagraph": CUDAGRAPH,
    "inductor": INDUCTOR,
    "onnxruntime": ONNXRUNTIME,
    "openvino": OPENVINO,
}
"""Backend by name."""

REFERENCE: tuple[str, Precision] = ("eager", "fp32")
"""Backend and precision that all others are compared with."""
