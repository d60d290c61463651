"""Heads that fail in the first training step, each in another way, unless ``MEMBERS_FAIL=no``."""

import ctypes
import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Unpicklable(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(f"{first} and {second}")
        self.lambda_ = lambda: first


class FailingHead(nn.Module):
    """Two convolutions; the failure comes from its forward pass."""

    fail: Callable[[Tensor], Any] = staticmethod(lambda logits: logits)

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.logits = nn.Conv2d(channels[0], out_channels, 1)

    def forward(self, maps: list[Tensor]) -> Any:
        logits = self.logits(maps[0])
        fails = self.training and logits.requires_grad and os.environ.get("MEMBERS_FAIL") != "no"
        return type(self).fail(logits) if fails else logits


def _raising(error: type[BaseException], *arguments: Any) -> Callable[[Tensor], Any]:
    def fail(logits: Tensor) -> Any:
        raise error(*arguments)

    return fail


def _recursion(logits: Tensor) -> Any:
    return _recursion(logits)


def _segmentation_fault(logits: Tensor) -> None:
    ctypes.string_at(0)


def _terminated(logits: Tensor) -> Tensor:
    os.kill(os.getpid(), signal.SIGTERM)
    return logits


def _hang(logits: Tensor) -> None:
    while True:
        time.sleep(0.05)


def _hang_without_signals(logits: Tensor) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    _hang(logits)


def _hang_in_c(logits: Tensor) -> None:
    """Sleep with the lock of the interpreter held: no Python code runs in any thread."""
    while True:
        ctypes.PyDLL(None).sleep(1000)


KINDS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "TypeError": (_raising(TypeError, "bad type"), "TypeError: bad type"),
    "KeyError": (_raising(KeyError, "lost"), "KeyError: 'lost'"),
    "AssertionError": (_raising(AssertionError), "AssertionError"),
    "IndexError": (_raising(IndexError, "beyond"), "IndexError: beyond"),
    "AttributeError": (_raising(AttributeError, "none"), "AttributeError: none"),
    "ZeroDivisionError": (lambda logits: logits / (1 // 0), "ZeroDivisionError"),
    "NotImplementedError": (_raising(NotImplementedError), "NotImplementedError"),
    "StopIteration": (_raising(StopIteration), "raised StopIteration"),
    "Unpicklable": (_raising(Unpicklable, 1, 2), "Unpicklable: 1 and 2"),
    "PicklingError": (lambda logits: pickle.dumps(lambda: 0), "Error: "),
    "OSError": (_raising(OSError, 5, "input/output error"), "input/output error"),
    "MemoryError": (_raising(MemoryError), "out of memory even with one image"),
    "RecursionError": (_recursion, "RecursionError"),
    "KeyboardInterrupt": (_raising(KeyboardInterrupt), "KeyboardInterrupt"),
    "SystemExit0": (_raising(SystemExit, 0), "SystemExit: 0"),
    "SystemExit1": (_raising(SystemExit, 1), "SystemExit: 1"),
    "Breakpoint": (lambda logits: breakpoint(), "BdbQuit"),
    "NaN": (lambda logits: logits * torch.nan, "no training batch had a finite loss"),
    "Shape": (lambda logits: logits[:, :, 0], "must return logits"),
    "NoTensor": (lambda logits: "logits", "must return logits"),
    "Exit": (lambda logits: os._exit(3), "exit code 3"),
    "Exit0": (lambda logits: os._exit(0), "exit code 0"),
    "Abort": (lambda logits: os.abort(), "SIGABRT"),
    "SegmentationFault": (_segmentation_fault, "SIGSEGV"),
    "Killed": (lambda logits: os.kill(os.getpid(), signal.SIGKILL), "SIGKILL"),
    "Terminated": (_terminated, "exit code 143"),
    "Hang": (_hang, "no batch was finished for 5 s"),
    "HangWithoutSignals": (_hang_without_signals, "no batch was finished for 5 s"),
    "HangInC": (_hang_in_c, "no batch was finished for 5 s"),
}
"""What fails, and a part of the reason in the record of the member."""

CRASHES = (
    "Exit", "Exit0", "Abort", "SegmentationFault", "Killed", "Terminated", "Hang", "HangWithoutSignals", "HangInC",
)  # fmt: skip

for _name, (_fail, _) in KINDS.items():
    globals()[_name] = type(_name, (FailingHead,), {"fail": staticmethod(_fail), "__module__": __name__})
