"""Size and shape of the source: lines, long functions, many parameters, names that occur twice, imports.

    python benchmarks/structure.py [--source src/densemble] [--record before|after|now] [--list]

``--record`` stores the numbers of the source under this name in benchmarks/results/structure.json; ``before`` and
``after`` are those of decision 0012. ``--list`` prints every function and name that is counted.

- lines: of all ``*.py`` files, comments and docstrings included;
- functions with more than 7 parameters (``self`` and ``cls`` do not count), and those whose code after the docstring is
  longer than 40 lines;
- file names and class names that occur in more than one place (``__init__.py`` does not count);
- imports between packages: pairs of parts of ``src/densemble`` of which one imports the other.
"""

import argparse
import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from environment import environment

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "structure.json"
MOST_PARAMETERS, MOST_LINES = 7, 40
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parameters(function: Function) -> int:
    """Number of parameters, without ``self`` and ``cls``."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in every)


def code_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the end."""
    documented = ast.get_docstring(function) is not None and len(function.body) > 1
    return (function.end_lineno or 0) - function.body[documented].lineno + 1


def imported_parts(tree: ast.Module) -> Iterator[str]:
    """Parts of densemble that a module imports: ``nets`` for ``from densemble.nets.cuts import Cut``."""
    for node in ast.walk(tree):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("densemble."))


def measure(source: Path) -> dict[str, Any]:
    """Everything that is counted, with the names behind the numbers."""
    lines, many, long = 0, {}, {}
    files, classes = defaultdict(list), defaultdict(list)
    imports = set()
    for path in sorted(source.rglob("*.py")):
        text, place = path.read_text(encoding="utf-8"), path.relative_to(source).as_posix()
        lines += text.count("\n")
        if path.name != "__init__.py":
            files[path.name].append(place)
        tree = ast.parse(text)
        part = place.split("/")[0].removesuffix(".py")
        imports |= {(part, other) for other in imported_parts(tree) if other != part}
        for node in ast.walk(tree):
            if isinstance(node, Function):
                name = f"{place}:{node.name}"
                if (count := parameters(node)) > MOST_PARAMETERS:
                    many[name] = count
                if (length := code_lines(node)) > MOST_LINES:
                    long[name] = length
            elif isinstance(node, ast.ClassDef):
                classes[node.name].append(place)
    return {
        "lines": lines,
        "files": sum(len(places) for places in files.values()),
        "functions with many parameters": many,
        "long functions": long,
        "file names in several places": {name: places for name, places in files.items() if len(places) > 1},
        "class names in several places": {name: places for name, places in classes.items() if len(places) > 1},
        "packages": len({part for pair in imports for part in pair}),
        "imports between packages": len(imports),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, default=ROOT / "src" / "densemble")
    parser.add_argument("--record", choices=["before", "after", "now"], help="name of the numbers in the result file")
    parser.add_argument("--list", action="store_true", help="print what is counted")
    arguments = parser.parse_args()
    tree = measure(arguments.source)
    counts = {key: count(value) for key, value in tree.items()}
    for key, value in tree.items():
        print(f"{key}: {counts[key]}")
        if arguments.list and not isinstance(value, int):
            print("\n".join(f"    {name}: {what}" for name, what in value.items()))
    if arguments.record:
        recorded = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"listed": {}}
        recorded |= {**environment(), arguments.record: counts}
        recorded["listed"][arguments.record] = tree
        RESULT.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


def count(value: int | dict[str, Any]) -> int:
    """A number, or the number of things that are listed."""
    return value if isinstance(value, int) else len(value)


if __name__ == "__main__":
    main()
