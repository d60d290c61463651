"""Artifacts whose descriptions are changed and signed again, as a stranger could write them."""

import copy
import json
import struct
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from densemble.storage.artifact import CHECKSUM_KEY, KEY

Way = tuple[str | int, ...]
"""Keys and indices that lead to a value of the description."""

DEEP = json.loads("[" * 60 + "]" * 60)
VALUES: dict[str, Any] = {
    "null": None, "true": True, "zero": 0, "one": 1, "minus": -1, "half": 0.5, "huge": 2**31, "largest": 2**63 - 1,
    "large": 30000, "tiny": 1e-300, "enormous": 1e300, "empty": "", "text": "x", "control": "a\x1b[31mb\n",
    "long": "y" * 100_000, "list": [], "lists": [[[]]], "numbers": [1, 2, 3], "sizes": [10**6, 10**6], "dict": {},
    "other": {"kind": "x", "name": "y"}, "deep": DEEP, "code": "builtins:breakpoint",
}  # fmt: skip
"""Values that replace others, by name."""
GONE = "gone"


class Signed:
    """An artifact that can be written again with another description; the tensors are not read."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        (length,) = struct.unpack("<Q", content[:8])
        self.header = json.loads(content[8 : 8 + length])
        self.tensors = content[8 + length :]
        self.description = json.loads(self.header["__metadata__"][KEY])

    def write(self, path: Path, text: str) -> Path:
        """Write the artifact with the text of another description and its checksum."""
        metadata = {KEY: text, CHECKSUM_KEY: sha256(text.encode()).hexdigest()}
        header = json.dumps({**self.header, "__metadata__": metadata}).encode()
        header += b" " * (-len(header) % 8)
        path.write_bytes(struct.pack("<Q", len(header)) + header + self.tensors)
        return path


def paths(value: Any, path: Way = ()) -> Iterator[Way]:
    """Yield the way to every value; of the checksums and of long lists only to the first two."""
    if path:
        yield path
    if isinstance(value, dict):
        items = list(value.items())
    else:
        items = list(enumerate(value)) if isinstance(value, list) else []
    for key, child in items[: 2 if path in (("sha256",), ("versions",)) or isinstance(value, list) else None]:
        yield from paths(child, (*path, key))


def changed(description: Any, path: Way, value: Any) -> Any:
    """Return a copy with another value at a path; ``GONE`` removes it."""
    result = copy.deepcopy(description)
    *parents, last = path
    node = result
    for key in parents:
        node = node[key]
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return result


def texts(description: Any) -> dict[str, str]:
    """Changed descriptions as JSON text, by name."""
    found = {}
    for path in paths(description):
        name = ".".join(map(str, path))
        for label, value in {**VALUES, GONE: GONE}.items():
            found[f"{name}={label}"] = json.dumps(changed(description, path, value))
    for path in paths(description):  # values of other places
        for other in list(paths(description))[::7]:
            node = description
            for key in other:
                node = node[key]
            if path != other and path[:1] != other[:1]:
                name = f"{'.'.join(map(str, path))}<-{'.'.join(map(str, other))}"
                found[name] = json.dumps(changed(description, path, node))
    plain = json.dumps(description)
    found |= {
        "duplicate": '{"schema": 1, ' + plain[1:], "deep": plain[:-1] + ', "x": ' + "[" * 10**5 + "]" * 10**5 + "}",
        "infinite": plain.replace('"weight": 0.5', '"weight": Infinity'), "nan": plain.replace("0.5", "NaN"),
        "overflow": plain.replace("0.5", "1e999"), "digits": plain.replace(': 32', ": " + "9" * 5000),
        "list": "[" + plain + "]", "nothing": "", "cut": plain[:-20], "surrogate": plain.replace("stem", "\\ud800"),
        "twice": plain.replace('"doublings": 0', '"doublings": 0, "doublings": 1'), "null": "null", "number": "1",
    }  # fmt: skip
    return found
