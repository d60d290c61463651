"""Read text of unknown origin: regular files only, limited in size and depth, strict JSON and YAML.

Run folders, settings, artifacts and caches may be damaged, or written by a stranger. A reader here returns plain
values, or raises :class:`Unreadable` with a short reason; its callers name the file and the remedy.
"""

import errno
import json
import math
import os
import re
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from densemble.input_files import open_regular

Value = TypeVar("Value")

MOST_BYTES = 64 << 20
"""Largest JSON file of a run, in bytes."""
MOST_DATA_BYTES = 4 << 30
"""Largest text file of a data set, in bytes, such as the annotations of 100,000 images."""
MOST_YAML_BYTES = 1 << 20
"""Largest YAML file, in bytes; its parser is slow."""
MOST_DEPTH = 64
"""Deepest nesting of lists and mappings."""
MOST_NODES = 200_000
"""Largest number of values in a YAML text after its aliases are replaced."""
_LARGEST = 2**63
_MOST_ERRORS = 5
# Numbers that Python reads and others do not: beyond 64 bits, or infinite because of their exponent.
# Outside of strings: checksums in strings have many digits.
_SUSPECT = re.compile(r'(?<![\w."])(?:\d{19}|\d[\d.]*[eE]\+?\d{3})|\\u[dD][89a-fA-F]')


class Unreadable(ValueError):
    """Text that is not what it should be; the message is the reason, without the name of the file."""


def excerpt(value: object, limit: int = 200) -> str:
    """Return the beginning of a text, or of the representation of a value, with visible control characters."""
    text = value if isinstance(value, str) else repr(value)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[:limit])
    return shown[:limit] + ("..." if max(len(text), len(shown)) > limit else "")


def read_regular(path: Path, limit: int = MOST_BYTES) -> bytes:
    """Read a regular file; pipes, devices and folders are refused without waiting for them.

    Raises:
        OSError: it is not a regular file, cannot be opened or read, or does not fit into memory.
        Unreadable: it has more than ``limit`` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise Unreadable(f"it has {size:,} bytes, more than {limit:,}")
        try:
            content = file.read(limit + 1)
        except MemoryError as error:
            raise OSError(errno.ENOMEM, "the file does not fit into memory", str(path)) from error
    if len(content) > limit:
        raise Unreadable(f"it has more than {limit:,} bytes")
    return content


def decoded(content: bytes) -> str:
    """Decode UTF-8 with or without a byte order mark.

    Raises:
        Unreadable: the bytes are not UTF-8, or no text.
    """
    if b"\0" in content:
        raise Unreadable("it is not a text file: it holds null characters")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8 text: {error.reason} at byte {error.start}") from error


def read_json_file(path: Path, limit: int = MOST_BYTES) -> Any:
    """Read a JSON file.

    Raises:
        OSError, Unreadable: see :func:`read_regular` and :func:`parse_json`.
    """
    return parse_json(decoded(read_regular(path, limit)))


def parse_json(text: str, depth: int | None = MOST_DEPTH, file_names: bool = False) -> Any:
    """Parse strict JSON: no NaN and infinity, no repeated keys, integers of at most 64 bits.

    Args:
        text: the JSON text.
        depth: deepest nesting; ``None``: as deep as the parser can read, for large files that are not walked again.
        file_names: strings may be names of files that are not UTF-8, which Python represents by halves of surrogates.

    Raises:
        Unreadable: the text is not such JSON.
    """
    suspect = _SUSPECT.search(text) is not None
    numbers: dict[str, Any] = {"parse_int": _integer, "parse_float": _finite} if suspect else {}
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, **numbers)
        if suspect and not file_names:
            json.dumps(values, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise Unreadable("it contains half of a surrogate pair") from None
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(excerpt(str(error))) from error
    if depth is not None:
        _require_depth(values, depth)
    return values


def _require_depth(values: Any, limit: int) -> None:
    level = [values] if type(values) in (dict, list) else []
    for _ in range(limit):
        if not level:
            return
        level = [
            child
            for value in level
            for child in (value.values() if type(value) is dict else value)
            if type(child) is dict or type(child) is list
        ]
    if level:
        raise Unreadable(f"it is nested more than {limit} levels deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise Unreadable(f"the key '{excerpt(repeated, 60)}' occurs twice")
    return values


def _refuse_constant(name: str) -> None:
    raise Unreadable(f"{name} is not a JSON number")


def _integer(text: str) -> int:
    if len(text) > 20 or not -_LARGEST <= int(text) < _LARGEST:
        raise Unreadable(f"the number {excerpt(text, 30)} has more than 64 bits")
    return int(text)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise Unreadable(f"the number {excerpt(text, 30)} is too large")
    return value


def parse_yaml(text: str) -> Any:
    """Parse YAML without tags of Python: no repeated keys, finite numbers, few aliases, little nesting.

    Raises:
        Unreadable: the text is not such YAML.
    """
    if len(text) > MOST_YAML_BYTES:
        raise Unreadable(f"it has more than {MOST_YAML_BYTES:,} characters")
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "
        raise Unreadable(where + excerpt(" ".join(str(error.problem or error).split()))) from error
    except yaml.YAMLError as error:
        raise Unreadable(excerpt(" ".join(str(error).split()))) from error
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with limits; every refusal is a YAMLError that names line and column."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._sizes: dict[int, int] = {}  # number of values in a node, without those of its aliases replaced

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            return self._alias(super().compose_node(parent, index))
        before, mark = self._nodes, self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._depth += 1
        self._count(1, mark)
        if self._depth > MOST_DEPTH:
            raise _refusal(f"it is nested more than {MOST_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._nodes - before
        return node

    def _alias(self, node: yaml.Node | None) -> yaml.Node | None:
        mark = getattr(node, "start_mark", None)
        if id(node) not in self._sizes:
            raise _refusal("an alias refers to a value that contains it", mark)
        self._count(self._sizes[id(node)], mark)
        return node

    def _count(self, nodes: int, mark: yaml.Mark | None) -> None:
        self._nodes += nodes
        if self._nodes > MOST_NODES:
            raise _refusal(f"it has more than {MOST_NODES:,} values, counted without aliases", mark)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)
            if name in keys:
                raise _refusal(f"the key '{excerpt(key.value, 60)}' occurs twice", key.start_mark)
            keys.add(name)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            shown = excerpt(node.value if isinstance(node, yaml.ScalarNode) else node.tag, 60)
            raise _refusal(f"'{shown}' is no value of {node.tag.rpartition(':')[2]}", node.start_mark) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise _refusal(f"the number {excerpt(node.value, 30)} is not finite", node.start_mark)
        if isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
            raise _refusal(f"the number {excerpt(node.value, 30)} has more than 64 bits", node.start_mark)
        return value


def _refusal(reason: str, mark: yaml.Mark | None) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, reason, mark)


def validated(adapter: TypeAdapter[Value], values: Any) -> Value:
    """Check parsed JSON against a type, strictly: numbers are not text, true is not 1.

    Raises:
        Unreadable: the values do not fit; the reason names the first keys that do not.
    """
    try:
        return adapter.validate_json(json.dumps(values, allow_nan=False), strict=True)
    except ValidationError as error:
        raise Unreadable(validation_text(error)) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise Unreadable(excerpt(str(error))) from error


def validation_text(error: ValidationError) -> str:
    """Return one line with the keys that do not fit and the reasons."""
    items = error.errors(include_url=False)
    shown = [
        f"{excerpt('.'.join(map(str, item['loc'])), 80)}: {excerpt(item['msg'])}, got {excerpt(item['input'], 60)}"
        for item in items[:_MOST_ERRORS]
    ]
    return "; ".join([*shown, *([f"and {len(items) - _MOST_ERRORS} more"] if len(items) > _MOST_ERRORS else [])])
