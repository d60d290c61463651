"""Side effects of OpenVINO on the process."""

import subprocess
import sys

import pytest

from densemble.inference.runtime.backends.openvino import core

pytest.importorskip("openvino")

SIGNALS = """
import gc, signal, sys
import torch
from torch import nn
from densemble.inference.runtime.backends.openvino import OPENVINO

images, network = torch.rand(1, 3, 16, 16), nn.Conv2d(3, 4, 3)
runners = [OPENVINO.compile(network, images, precision, [images]) for precision in sys.argv[1:]]
for runner in runners:
    runner(images)
del runner
while runners:
    del runners[0]
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("handled"))
signal.raise_signal(signal.SIGINT)
"""


def test_networks_share_one_core() -> None:
    assert core() is core()


@pytest.mark.slow
def test_signals_are_handled_after_networks_are_freed() -> None:
    """A handler needs the stack that was set for it: each core of OpenVINO sets one and frees it with itself."""
    precisions = ["fp32", "fp32", "int8", "int8"]
    done = subprocess.run([sys.executable, "-c", SIGNALS, *precisions], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
