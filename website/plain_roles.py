"""Griffe extension: Sphinx roles in docstrings (``:class:`Run` ``) become plain code."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):(`+)~?([^`]+)\1")


class PlainRoles(griffe.Extension):
    """Replaces roles in the docstring of every object."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _ROLE.sub(r"`\2`", obj.docstring.value)
