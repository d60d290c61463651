"""Commands of the command line: help with examples, and messages for unknown commands and options."""

from typing import Any

from typer.core import TyperCommand, TyperGroup

from densemble.errors import UsageError, did_you_mean


class _Explained:
    """Help that ends with examples and shows no type for options without a value; hints for unknown options."""

    def get_params(self, ctx: Any) -> list[Any]:
        return [_without_type(param) for param in super().get_params(ctx)]  # type: ignore[misc]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)  # type: ignore[misc]
        _write_examples(ctx, formatter)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            raise _explained(error, ctx) from None


class Command(_Explained, TyperCommand):
    """A command of densemble."""


_OTHER_NAMES = {"info": "card", "show": "card", "describe": "card", "inspect": "card"}
"""Names of other programs for a command of densemble."""


class CommandGroup(_Explained, TyperGroup):
    """A group of commands of densemble, with a hint for unknown commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.commands:
            other = _OTHER_NAMES.get(name, "")
            hint = f"did you mean '{other}'? " if other in self.commands else did_you_mean(name, self.commands)
            hint = hint or f"there are: {', '.join(self.commands)}; "
            raise UsageError(f"no command is named '{name}'; {hint}see `{_path(ctx)} --help`")
        return super().resolve_command(ctx, args)


def usage_message(error: Exception) -> str | None:
    """Return the message of an error in the arguments, in the words of densemble; ``None`` for any other error.

    The classes of these errors moved from click into typer, so they are recognized by their attributes.
    """
    if not hasattr(error, "format_message"):
        return None
    if type(error).__name__ == "NoArgsIsHelpError":
        return ""  # the help is printed
    text = str(error.format_message()).rstrip()
    context = getattr(error, "ctx", None)
    return text if context is None else f"{text.rstrip('.')}; see `{_path(context)} --help`"


def _explained(error: Exception, context: Any) -> Exception:
    """Return an unknown option as an error with the most similar options; any other error unchanged."""
    name = getattr(error, "option_name", None)
    if type(error).__name__ != "NoSuchOption" or name is None:
        return error
    known = [option for param in context.command.get_params(context) for option in param.opts]
    hint = did_you_mean(name, [option for option in known if option.startswith("--")])
    return UsageError(f"no option is named '{name}'; {hint}see `{_path(context)} --help`")


def _path(context: Any) -> str:
    """Return the words of a command, such as ``densemble data check``, whatever the program was started as."""
    words: list[str] = []
    while context.parent is not None:
        words.insert(0, str(context.info_name))
        context = context.parent
    return " ".join(["densemble", *words])


def _without_type(param: Any) -> Any:
    if getattr(param, "is_flag", False) and param.metavar is None:
        param.metavar = ""
    return param


def _write_examples(context: Any, formatter: Any) -> None:
    from densemble.commands.examples import EXAMPLES

    path = _path(context)
    lines = EXAMPLES.get(path.partition(" ")[2], ())
    if lines:
        # Help with boxes is printed before the text of the formatter, so this comes last in both styles.
        formatter.write("".join([" Examples:\n", *(f"   {line}\n" for line in lines)]))
