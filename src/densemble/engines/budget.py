"""Budget: how a run's time is shared among its members."""

import time

ASSEMBLY = 0.08
"""Share of the time that is kept for choosing, calibrating and writing the ensemble."""


class Budget:
    """Time that is left, dealt out in equal shares to those that still wait.

    Cheap members come first: what they leave over goes to the dear ones, which can use it.

    Args:
        seconds: for everything; ``None``: without end. The clock starts now.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.started = time.monotonic()

    @property
    def limited(self) -> bool:
        """Whether there is an end."""
        return self.seconds is not None

    def share(self, waiting: int) -> float | None:
        """Seconds for the next of ``waiting`` members, at least 1; ``None``: as long as it likes."""
        if self.seconds is None:
            return None
        left = self.seconds * (1 - ASSEMBLY) - (time.monotonic() - self.started)
        return max(left / waiting, 1.0)
