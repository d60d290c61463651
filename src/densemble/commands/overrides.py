"""``--set KEY=VALUE`` and ``--save-option NAME=VALUE``: override single settings."""

import copy
from dataclasses import fields
from typing import Any

from densemble.config import COPIED
from densemble.errors import ConfigError, UsageError
from densemble.inference.formats import FormatOptions
from densemble.untrusted import Unreadable, excerpt, parse_yaml


def with_settings(values: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """Return a copy of ``values`` with every setting applied.

    Args:
        values: plain values of a run.yaml.
        settings: each ``a.b=c``, where ``c`` is YAML. A list index works as a key: ``members.0.epochs``.

    Raises:
        ConfigError: a setting has no ``=``, its key does not exist, or its value is not YAML.
    """
    result = copy.deepcopy(values)
    paths: set[str] = set()
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting}: write it as key=value, for example training.epochs=5")
        if path in paths:
            raise ConfigError(f"--set {path} is given twice; give it once")
        paths.add(path)
        *parents, last = path.split(".")
        node: Any = result
        try:
            for key in parents:
                if not isinstance(node, list):
                    node = node.setdefault(key, {})
                    continue
                index = _member_index(node, key)
                if isinstance(node[index], str):
                    node[index] = {"backbone": node[index]}  # a member given by its name only
                node = node[index]
            node[_member_index(node, last) if isinstance(node, list) else last] = parse_yaml(text)
        except Unreadable as error:
            raise ConfigError(
                f"--set {excerpt(setting)}: the value cannot be read ({error}); write valid YAML"
            ) from error
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"--set {setting}: there is no key '{path}'; use a key of run.yaml, and name a member by its name or "
                "its number from 0"
            ) from error
    return result


def _member_index(members: list[Any], key: str) -> int:
    """Index of the member with this name, backbone or index."""
    for index, member in enumerate(members):
        fields = {"backbone": member} if isinstance(member, str) else member
        backbone = str(fields.get("backbone"))
        copied = COPIED.fullmatch(backbone)
        if key in (fields.get("name"), backbone, copied and copied["backbone"]):
            return index
    return int(key)


def format_options(settings: list[str]) -> FormatOptions:
    """Options of the formats of predictions.

    Args:
        settings: each ``name=value``; an option that is true or false takes these two words.

    Raises:
        UsageError: an unknown name, no ``=``, a name twice, or a value that the option does not take.
    """
    types = {option.name: type(option.default) for option in fields(FormatOptions)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in types:
            raise UsageError(f"--save-option {setting}: write it as NAME=VALUE with a name of {', '.join(types)}")
        if name in values:
            raise UsageError(f"--save-option {name} is given twice; give it once")
        values[name] = {"true": True, "false": False}.get(text, text) if types[name] is bool else text
    return FormatOptions(**values)
