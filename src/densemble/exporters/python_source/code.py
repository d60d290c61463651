"""Text of Python code: calls and tables within the line length, and the snippets that a text refers to."""

import json
import keyword
import re
from collections.abc import Iterable, Mapping

LINE_LENGTH = 120


def call(function: str, arguments: Iterable[str], indent: int = 0, used: int = 0) -> str:
    """Return the text of a call: on one line if it fits, else with one argument per line.

    Args:
        function: called expression, also ``(`` or ``{`` for a tuple or dict; the closing bracket follows from it.
        arguments: text of each argument; nested calls have the indentation ``indent + 4``.
        indent: columns before the line on which the call begins.
        used: columns of this line that other text needs.
    """
    arguments = list(arguments)
    opening = function if function.endswith(("(", "[", "{")) else f"{function}("
    closing = {"(": ")", "[": "]", "{": "}"}[opening[-1]]
    line = f"{opening}{', '.join(arguments)}{closing}"
    if "\n" not in line and indent + used + len(line) <= LINE_LENGTH:
        return line
    inner = "".join(f"{' ' * (indent + 4)}{argument},\n" for argument in arguments)
    return f"{opening}\n{inner}{' ' * indent}{closing}"


def table(name: str, values: Mapping[str, object]) -> str:
    """Return the text of a constant that is a dict."""
    return f"{name} = " + call("{", [f"{quoted(key)}: {value!r}" for key, value in values.items()], used=len(name) + 3)


def numbers(values: Iterable[object]) -> str:
    """Return the text of a tuple."""
    values = list(values)
    return f"({', '.join(map(repr, values))}{',' if len(values) == 1 else ''})"


def quoted(text: str) -> str:
    """Return the text of a string, in double quotes."""
    return repr(text) if '"' in text else json.dumps(text, ensure_ascii=False)


def needed(texts: Iterable[str], snippets: Mapping[str, str]) -> list[str]:
    """Return the snippets that texts refer to, directly or through other snippets, in the order of ``snippets``."""
    found: set[str] = set()
    pending = list(texts)
    while pending:
        words = set(re.findall(r"[A-Za-z_]\w*", pending.pop()))
        new = [name for name in snippets if name in words and name not in found]
        found.update(new)
        pending += [snippets[name] for name in new]
    return [snippets[name] for name in snippets if name in found]


def class_names(members: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Return a class name for each member: ``inception_v3`` -> ``InceptionV3``; names that are taken get a number."""
    used = set(taken)
    names = {}
    for member in members:
        words = re.split(r"[^A-Za-z0-9]+", member)
        name = plain = "".join(_capitalized(word, number) for number, word in enumerate(words) if word) or "Network"
        if not plain.isidentifier() or keyword.iskeyword(plain):
            name = plain = f"Member{plain}"
        count = 2
        while name in used:
            name, count = f"{plain}No{count}", count + 1
        used.add(name)
        names[member] = name
    return names


_SPELLED = {"vgg": "VGG", "bn": "BN", "net": "Net", "resdeconv": "ResDeconv", "vit": "ViT", "fpn": "FPN"}
"""Parts of the names of networks with their usual spelling."""


def _capitalized(word: str, number: int) -> str:
    """Spell a word of a name as in a class name; a number after a number keeps its underscore."""
    if word[0].isdigit():
        return f"_{word}" if number else word
    letters = re.match(r"[A-Za-z]*", word)[0]  # type: ignore[index]
    if letters.lower() in _SPELLED:
        return _SPELLED[letters.lower()] + word[len(letters) :]
    return re.sub("net$", "Net", letters[0].upper() + letters[1:]) + word[len(letters) :]
