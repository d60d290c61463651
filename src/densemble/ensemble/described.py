"""Dataclasses that convert to plain values and back, as stored in artifacts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

KEYS = {"images": "pictures"}
"""Keys of fields in the plain values, if they differ from the name of the field."""

_CONVERTERS: dict[Any, Callable[[Any], Any]] = {
    float: float,
    int: int,
    float | None: lambda value: None if value is None else float(value),
    tuple[float, ...]: lambda values: tuple(float(value) for value in values),
}
"""Type of a field -> conversion of its plain value; fields of other types are used unchanged."""


@dataclass(frozen=True)
class Described:
    """Base of dataclasses that are stored as plain values.

    Attributes:
        kind: name of the class in the plain values.
    """

    kind: ClassVar[str]

    def describe(self) -> dict[str, Any]:
        """Return plain values; :meth:`described` builds an equal object from them."""
        values = {KEYS.get(field.name, field.name): getattr(self, field.name) for field in fields(self)}
        return {"kind": self.kind} | {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def described(cls, values: Mapping[str, Any]) -> Self:
        """Build an object from the plain values of :meth:`describe`.

        Raises:
            KeyError, TypeError, ValueError: values are missing or have the wrong type.
            UsageError: the class rejects the values.
        """
        plain = {field: values[KEYS.get(field.name, field.name)] for field in fields(cls)}
        return cls(**{field.name: _CONVERTERS.get(field.type, lambda v: v)(value) for field, value in plain.items()})
