"""Generate the single faults of the mutation check, each as a replaced piece of source code.

These parts are not changed: annotations, docstrings and other texts, raised errors, assertions, decorators, imports,
and code for type checkers only. Floats below ``TINY`` are not changed either: they prevent division by zero, and no
test can detect a difference.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FLIPS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
BORDERS: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
_PAIRS = (("min", "max"), ("amin", "amax"), ("minimum", "maximum"), ("argmin", "argmax"), ("any", "all"))
TINY = 1e-5
EXTREMES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes:
        file: path in the project.
        line: first line, from 1.
        kind: kind of change.
        start, end: offsets of the replaced piece in the file's UTF-8 bytes.
        before, after: the piece, and its replacement.
    """

    file: str
    line: int
    kind: str
    start: int
    end: int
    before: str
    after: str

    def applied(self, source: str) -> str:
        """The source text with the fault."""
        data = source.encode()
        return (data[: self.start] + self.after.encode() + data[self.end :]).decode()

    def __str__(self) -> str:
        short = [" ".join(text.split()) for text in (self.before, self.after)]
        return f"{self.file}:{self.line} {self.kind}: {short[0]} -> {short[1]}"


def mutations_of(source: str, file: str) -> list[Mutation]:
    """All mutations of a source text, in order."""
    lines = [0]
    for line in source.encode().splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found = []
    for node in _executed(ast.parse(source)):
        for kind, changed in _changes(node):
            place = node.test if kind == "branch" else node  # type: ignore[attr-defined]
            start = lines[place.lineno - 1] + place.col_offset
            end = lines[place.end_lineno - 1] + place.end_col_offset
            before, text = source.encode()[start:end].decode(), ast.unparse(changed)
            after = text if isinstance(changed, ast.stmt | ast.Constant) else f"({text})"
            found.append(Mutation(file, place.lineno, kind, start, end, before, after))
    return sorted(found, key=lambda one: (one.start, one.end, one.kind, one.after))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all nodes below it that run when the program runs."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if hasattr(node, "lineno"):
        yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _executed(child)


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Kinds of faults of a node, each with the replacement of the node, or of its test for a ``branch``."""
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for kind, table in (("comparison", FLIPS), ("border", BORDERS)):
                if type(operator) in table:
                    yield kind, _with(node, _operator_at(place, table[type(operator)]()))
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC and not _is_text(node):
        yield "arithmetic", _with(node, lambda new: setattr(new, "op", ARITHMETIC[type(new.op)]()))  # type: ignore[attr-defined]
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and/or", _with(node, lambda new: setattr(new, "op", other))
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call):
        yield from _calls(node)
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield "return", _with(node, lambda new: setattr(new, "value", ast.UnaryOp(ast.Not(), new.value)))  # type: ignore[attr-defined]
    elif isinstance(node, ast.If | ast.While) and isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
        yield "branch", ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.IfExp):
        yield "condition", _with(node, lambda new: setattr(new, "test", ast.UnaryOp(ast.Not(), new.test)))  # type: ignore[attr-defined]
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "condition", node.operand


def _constants(node: ast.Constant) -> Iterator[tuple[str, ast.AST]]:
    if isinstance(node.value, bool):
        yield "true/false", ast.Constant(not node.value)
    elif isinstance(node.value, int):
        yield "off by one", ast.Constant(node.value + 1)
    elif isinstance(node.value, float):  # noqa: SIM102 (a chain by type)
        if not 0 < node.value < TINY:
            yield "constant", ast.Constant(node.value * 2 if node.value else 1.0)


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    function = node.func
    name = (
        function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    )
    if name in EXTREMES:
        yield (
            "min/max",
            _with(node, lambda new: setattr(new.func, "id" if hasattr(new.func, "id") else "attr", EXTREMES[name])),
        )  # type: ignore[attr-defined]
    plain = len(node.args) > 1 and not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    if plain and name not in EXTREMES and name != "isinstance" and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        yield "arguments", _with(node, lambda new: new.args.__setitem__(slice(0, 2), new.args[1::-1]))  # type: ignore[attr-defined]


def _with(node: ast.AST, change: Callable[[ast.AST], object]) -> ast.AST:
    new = copy.deepcopy(node)
    change(new)
    return ast.fix_missing_locations(new)


def _operator_at(place: int, operator: ast.cmpop) -> Callable[[ast.AST], object]:
    return lambda node: node.ops.__setitem__(place, operator)  # type: ignore[attr-defined]


def _is_text(node: ast.BinOp | ast.AugAssign) -> bool:
    """Whether the node joins or formats texts."""
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else (node.value,)
    return any(isinstance(side, ast.JoinedStr) or _is_string(side) for side in sides)


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)
