"""Backends: ways to run a network at a fixed shape, behind one interface; table BACKENDS."""

from densemble.inference.backends.base import Backend, Precision, Runner
from densemble.inference.backends.eager import EAGER
from densemble.inference.backends.inductor import INDUCTOR
from densemble.inference.backends.onnxruntime import ONNXRUNTIME
from densemble.inference.backends.openvino import OPENVINO

__all__ = ["BACKENDS", "REFERENCE", "Backend", "Precision", "Runner"]

BACKENDS: dict[str, Backend] = {
    "eager": EAGER,
    "inductor": INDUCTOR,
    "onnxruntime": ONNXRUNTIME,
    "openvino": OPENVINO,
}
"""Backend by name."""

REFERENCE: tuple[str, Precision] = ("eager", "fp32")
"""Backend and precision that all others are compared with."""
