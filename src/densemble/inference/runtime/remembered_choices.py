"""Backend choices that earlier processes measured on this machine."""

import json
import logging
from contextlib import suppress
from dataclasses import asdict
from typing import get_args

from pydantic import TypeAdapter

from densemble.errors import ResourceError
from densemble.inference.runtime.backends import BACKENDS, Precision
from densemble.inference.runtime.choose_backend import Choice
from densemble.storage.user_cache import cache_part, prune
from densemble.storage.writing import write_text
from densemble.untrusted import Unreadable, read_json_file, validated

log = logging.getLogger(__name__)
_CHOICE = TypeAdapter(Choice)
_MOST_BYTES = 1 << 20


def recall(key: str) -> Choice | None:
    """Return the choice stored under a key; ``None`` if there is none, or its file is damaged, which is logged."""
    try:
        file = cache_part("choices") / f"{key}.json"
    except ResourceError:  # there is no folder for a cache
        return None
    try:
        choice = validated(_CHOICE, read_json_file(file, _MOST_BYTES))
        if not _is_usable(choice):
            raise Unreadable("it names no backend with its time")
    except FileNotFoundError:
        return None
    except (OSError, Unreadable) as error:
        log.warning(f"warning: the cached choice '{file}' is damaged ({error}); the backends are measured again")
        return None
    return choice


def _is_usable(choice: Choice) -> bool:
    names = [f"{choice.backend} {choice.precision}", "eager fp32"]
    timed = all(choice.seconds.get(name, 0) > 0 for name in names)
    return timed and choice.backend in BACKENDS and choice.precision in get_args(Precision)


def remember(key: str, choice: Choice) -> None:
    """Store a choice; does nothing if the cache folder cannot be written."""
    with suppress(OSError, ResourceError):
        folder = cache_part("choices")
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{key}.json", json.dumps(asdict(choice)))
        prune(folder)
