"""How far the prediction of many files is: told picture by picture in their order, whatever order they end in."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Progress:
    """How far it is.

    Attributes:
        done: pictures that are dealt with: predicted, skipped or failed.
        total: pictures.
        skipped: of ``done``: finished by an earlier run.
        failed: of ``done``.
        picture: the picture that was dealt with; ``None`` at the start.
    """

    done: int
    total: int
    skipped: int
    failed: int
    picture: Path | None


class Tally:
    """Counts pictures as they end and tells of them in their order.

    Args:
        pictures: all of them.
        missing: places of those that are predicted now; the others are skipped.
        progress: called at the start and for each picture that is predicted.
        say: called for each picture that failed or was predicted without some members, with the reason.
    """

    def __init__(
        self,
        pictures: Sequence[Path],
        missing: Sequence[int],
        progress: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        self.failed: dict[int, str] = {}
        """Why, by the picture's place."""
        self._pictures, self._skipped = pictures, len(pictures) - len(missing)
        self._untold = deque(missing)
        # those that are not reported yet
        self._ended: dict[int, tuple[str | None, Mapping[str, str]]] = {}
        self._progress, self._say = progress, say
        self._tell(None)

    def end(self, place: int, failure: str | None = None, without: Mapping[str, str] | None = None) -> None:
        """A picture is written, maybe predicted without some members, or failed."""
        self._ended[place] = failure, without or {}
        while self._untold and self._untold[0] in self._ended:
            first = self._untold.popleft()
            reason, members = self._ended.pop(first)
            if reason is not None:
                self.failed[first] = reason
                self._say(f"failed: {reason}")
            for name, why in members.items():
                self._say(f"'{self._pictures[first]}': predicted without member '{name}', which {why}")
            self._tell(self._pictures[first])

    def _tell(self, picture: Path | None) -> None:
        total = len(self._pictures)
        self._progress(Progress(total - len(self._untold), total, self._skipped, len(self.failed), picture))
