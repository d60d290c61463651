"""What belongs to one object and its threads: a copy of the object, or a pickled one, begins with its own."""

import threading
from typing import Any


class OwnLock:
    """As ``threading.RLock``, in objects that can be copied."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()


class PerThread(threading.local):
    """Attributes that each thread sees for itself, in objects that can be copied; its class takes no arguments."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), ()
