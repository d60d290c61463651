"""Backend choices that earlier processes measured on this machine."""

import json
from contextlib import suppress
from dataclasses import asdict

from densemble.errors import ResourceError
from densemble.inference.runtime.choose_backend import Choice
from densemble.storage.user_cache import cache_part, prune
from densemble.storage.writing import write_text


def recall(key: str) -> Choice | None:
    """Return the choice stored under a key; ``None`` if there is none or its file is damaged."""
    try:
        values = json.loads((cache_part("choices") / f"{key}.json").read_text(encoding="utf-8"))
        return Choice(**values)
    except (OSError, ResourceError, ValueError, TypeError):
        return None


def remember(key: str, choice: Choice) -> None:
    """Store a choice; does nothing if the cache folder cannot be written."""
    with suppress(OSError, ResourceError):
        folder = cache_part("choices")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{key}.json", json.dumps(asdict(choice)))
        prune(folder)
