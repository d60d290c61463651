"""Reference of the command line, made from the typer application."""

from collections.abc import Iterator
from typing import Any

import typer

from densemble.cli import app

PLACEHOLDERS = {"path": "PATH", "int": "INTEGER", "float": "NUMBER"}
"""Placeholder of a value by a word in the name of its type."""


def commands() -> Iterator[tuple[str, Any]]:
    """Name and click command of every command, groups expanded: ``data check``."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        if getattr(command, "hidden", False):
            continue
        if hasattr(command, "commands"):
            yield from ((f"{name} {inner}", child) for inner, child in command.commands.items())
        else:
            yield name, command


def page() -> str:
    """Markdown of reference/cli.md."""
    known = list(commands())
    lines = ["# Command line", "", "| command | purpose |", "|---|---|"]
    lines += [f"| [`{name}`](#{name.replace(' ', '-')}) | {_cell(_summary(command))} |" for name, command in known]
    lines += ["", "Exit codes and the keys of `--json`: [exit codes and JSON](exit-codes.md).", ""]
    for name, command in known:
        lines += _section(name, command)
    return "\n".join(lines)


def _section(name: str, command: Any) -> list[str]:
    """Usage, description, arguments and options of one command."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not getattr(p, "hidden", False)]
    required = [f"{_names(p)[-1]} {_value(p)}" for p in options if p.required]
    usage = " ".join(["densemble", name, *(_argument(p) for p in arguments), *required, "[OPTIONS]"])
    lines = [f"## {name}", "", "```", usage, "```", "", *(command.help or "").replace("\b\n", "").splitlines(), ""]
    if arguments:
        rows = [[f"`{_argument(p)}`", _cell(p.help), _default(p)] for p in arguments]
        lines += _table(["argument", "meaning", "default"], rows)
    if options:
        rows = [[_option(p), _cell(p.help), _default(p)] for p in options]
        lines += _table(["option", "meaning", "default"], rows)
    if command.epilog:
        lines += ["```", *command.epilog.strip().replace("\b\n", "").splitlines(), "```", ""]
    return lines


def _summary(command: Any) -> str:
    return (command.help or "").strip().split("\n\n")[0]


def _names(parameter: Any) -> list[str]:
    """Names of an option, short ones first."""
    return sorted([*parameter.opts, *parameter.secondary_opts], key=len)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).strip("{}[]").upper() + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _value(parameter: Any) -> str:
    """Placeholder of the value of an option; empty for a flag."""
    if parameter.is_flag:
        return ""
    descriptor = getattr(parameter, "type_descriptor", None)  # older releases of typer have a click type instead
    text = str(descriptor.annotation) if descriptor else parameter.type.name
    return parameter.metavar or next((name for word, name in PLACEHOLDERS.items() if word in text.lower()), "TEXT")


def _option(parameter: Any) -> str:
    return ", ".join(f"`{name} {_value(parameter)}`".replace(" `", "`") for name in _names(parameter))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    default = parameter.default
    if getattr(parameter, "is_flag", False) or callable(default) or default is None or default in ((), [], ""):
        return ""
    return f"`{default}`"


def _cell(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]
