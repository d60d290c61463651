"""``--set KEY=VALUE``: single settings put into the plain values of a run.yaml."""

import copy
from typing import Any

import yaml

from densemble.config import COPIED
from densemble.errors import ConfigError


def with_settings(values: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    """``values`` with every ``a.b=c`` of ``settings`` put in; ``c`` is YAML, ``members.0.epochs`` reaches into lists.

    Raises:
        ConfigError: a setting without ``=``, or a path that leads nowhere.
    """
    result = copy.deepcopy(values)
    said: set[str] = set()
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting}: write it as key=value, for instance training.epochs=5")
        if path in said:
            raise ConfigError(f"--set {path} is given twice, and only one can hold; join them into one value")
        said.add(path)
        *parents, last = path.split(".")
        place: Any = result
        try:
            for key in parents:
                if not isinstance(place, list):
                    place = place.setdefault(key, {})
                    continue
                number = _member_number(place, key)
                if isinstance(place[number], str):
                    place[number] = {"backbone": place[number]}  # a member that is only a name
                place = place[number]
            place[_member_number(place, last) if isinstance(place, list) else last] = yaml.safe_load(text)
        except (ValueError, IndexError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"--set {setting}: '{path}' leads nowhere; name a key of run.yaml, and a member by its name or its "
                "number from 0"
            ) from error
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {setting}: '{text}' cannot be read as a value") from error
    return result


def _member_number(members: list[Any], key: str) -> int:
    """Place of a member by its number, its name or its backbone."""
    for number, member in enumerate(members):
        own = {"backbone": member} if isinstance(member, str) else member
        backbone = str(own.get("backbone"))
        copied = COPIED.fullmatch(backbone)
        if key in (own.get("name"), backbone, copied and copied["backbone"]):
            return number
    return int(key)
