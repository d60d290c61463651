"""The house of DESIGN.md, checked on the source: imports point down, no cycles, one door per dependency.

Imports are read from the syntax tree: lazy ones inside functions and those under TYPE_CHECKING count like any other.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import densemble

SOURCE = Path(__file__).resolve().parents[1] / "src" / "densemble"
TOP = "densemble"

# From the bottom up. Parts of one layer may not import one another.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "messages"),
    ("shapes",),
    ("data_options",),
    ("config", "nets", "presets"),
    ("metrics",),
    ("tasks",),
    ("ensemble",),
    ("storage",),
    ("data",),
    ("training", "inference"),
    ("evaluation",),
    ("report",),
    ("engines",),
    ("selection",),
    ("run",),
    ("tuning",),
    ("export", "serve"),
    ("commands",),
    ("cli",),
    ("__init__", "__main__"),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}

# Dependency -> the only files and packages that may import it; the longest matching name decides. "x/" is a folder.
IMPORTERS: dict[str, tuple[str, ...]] = {
    "torchvision": ("nets/backbones.py",),
    "torchvision.io": ("storage/images.py",),
    "torchvision.transforms": ("data/", "training/"),
    "torchvision.tv_tensors": ("data/", "training/"),
    "timm": ("nets/backbones.py",),
    "lightning": ("training/",),
    "pytorch_lightning": (),  # the same library under its old name
    "PIL": ("storage/pillow.py", "data/synthetic.py", "report/"),
    "tifffile": ("storage/tiff.py", "data/synthetic.py", "report/"),
    "rasterio": ("storage/geo.py",),
    "pycocotools": ("data/layouts/drawn_shapes.py",),
    "sklearn": ("data/splits.py",),
    "ray": ("engines/ray.py",),
    "optuna": ("tuning/study.py",),
    "onnx": ("inference/runtime/backends/", "export/"),
    "onnxscript": ("inference/runtime/backends/", "export/"),
    "onnxruntime": ("inference/runtime/backends/libraries.py",),  # where their telemetry is off
    "openvino": ("inference/runtime/backends/libraries.py",),
    "nncf": ("inference/runtime/backends/libraries.py",),
    "zarr": ("storage/zarr_arrays.py",),
    "fastapi": ("serve/",),
    "uvicorn": ("serve/",),
    "gradio": ("serve/",),
    "typer": ("cli.py", "commands/"),
    "rich": ("cli.py", "commands/", "training/"),
    "pydantic": ("config.py", "data_options.py"),
    "yaml": ("config.py", "commands/overrides.py"),
    "safetensors": ("nets/local_weights.py", "storage/", "training/"),
}

PURE = ("nets/", "metrics/", "metrics.py", "tasks/", "ensemble/")
NOT_PURE = (
    "nets/backbones.py",
    "nets/local_weights.py",
)  # pretrained weights are found and read here: the one exception
DISK_LIBRARIES = ("PIL", "yaml", "lightning", "safetensors", "json")
DISK_CALLS = ("open", "read_text", "write_text", "read_bytes", "write_bytes")

LONGEST_FILE = 400
NAMES_WITHOUT_AN_IDEA = ("util", "utils", "helper", "helpers", "manager", "managers")


# --- reading the source ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    root: Path
    path: Path

    @property
    def place(self) -> str:
        """Path below the package: ``nets/cuts.py``."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def name(self) -> str:
        """Dotted name: ``densemble.nets.cuts``; a package's is its folder's."""
        parts = self.path.relative_to(self.root).with_suffix("").parts
        return ".".join((TOP, *(parts[:-1] if parts[-1] == "__init__" else parts)))

    @property
    def part(self) -> str:
        """Where it lives in LAYERS: ``nets``."""
        return self.path.relative_to(self.root).with_suffix("").parts[0]

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))


@dataclass(frozen=True)
class Import:
    name: str
    line: int


def find_modules(root: Path) -> list[Module]:
    return [Module(root, path) for path in sorted(root.rglob("*.py"))]


def imports(module: Module) -> Iterator[Import]:
    """Every imported name in full: ``from a.b import c`` is ``a.b.c``, whether ``c`` is a module or not."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = absolute_origin(module, node)
            for alias in node.names:
                yield Import(f"{origin}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and called_name(node) in ("import_module", "__import__"):
            match node.args:
                case [ast.Constant(value=str(name)), *_]:
                    yield Import(name, node.lineno)


def absolute_origin(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    package = module.name.split(".")
    if module.path.name != "__init__.py":
        package = package[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join((*base, node.module) if node.module else base)


def called_name(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def lies_in(place: str, allowed: Sequence[str]) -> bool:
    return any(place.startswith(door) if door.endswith("/") else place == door for door in allowed)


def longest_prefix(name: str, names: Sequence[str] | set[str]) -> str | None:
    """The longest of `names` that is `name` or one of its parents."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in names), None)


# --- the rules: each returns what is wrong, an empty list when nothing is -------------------------------------------


def upward_imports(module: Module) -> list[str]:
    if module.part not in LAYER_OF:
        return [f"{module.place}: '{module.part}' has no floor; give it one in LAYERS and in a decision record"]
    wrong = []
    for imported in imports(module):
        parts = imported.name.split(".")
        if parts[0] != TOP:
            continue
        inside = parts[1] if len(parts) > 1 and parts[1] in LAYER_OF else "__init__"
        if inside != module.part and LAYER_OF[inside] >= LAYER_OF[module.part]:
            wrong.append(
                f"{module.place}:{imported.line} imports {imported.name}: '{inside}' (floor {LAYER_OF[inside]}) "
                f"is not below '{module.part}' (floor {LAYER_OF[module.part]})"
            )
    return wrong


def cycles(modules: Sequence[Module]) -> list[str]:
    """Groups of modules that reach one another, one line each."""
    known = {module.name for module in modules}
    graph = {
        module.name: {target for imported in imports(module) if (target := longest_prefix(imported.name, known))}
        for module in modules
    }
    reach = {name: reachable(graph, name) for name in graph}
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return sorted("import cycle: " + " <-> ".join(sorted(group)) for group in groups)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(graph[name])
    return found


def wrong_doors(module: Module) -> list[str]:
    wrong = []
    for imported in imports(module):
        dependency = longest_prefix(imported.name, set(IMPORTERS))
        if dependency and not lies_in(module.place, IMPORTERS[dependency]):
            doors = ", ".join(IMPORTERS[dependency]) or "nowhere"
            wrong.append(f"{module.place}:{imported.line} imports {imported.name}; the door of {dependency} is {doors}")
    return wrong


def disk_on_pure_floors(module: Module) -> list[str]:
    if not lies_in(module.place, PURE) or lies_in(module.place, NOT_PURE):
        return []
    wrong = [
        f"{module.place}:{imported.line} imports {imported.name} on a floor that knows no disk"
        for imported in imports(module)
        if imported.name.split(".")[0] in DISK_LIBRARIES
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and called_name(node) in DISK_CALLS:
            wrong.append(f"{module.place}:{node.lineno} calls {called_name(node)}() on a floor that knows no disk")
    return wrong


def too_long(module: Module) -> list[str]:
    lines = len(module.path.read_text(encoding="utf-8").splitlines())
    return [f"{module.place} has {lines} lines, more than {LONGEST_FILE}: split it"] if lines > LONGEST_FILE else []


def nameless(module: Module) -> list[str]:
    parts = Path(module.place).with_suffix("").parts
    return [
        f"{module.place}: '{part}' names no idea; call it what it does"
        for part in parts
        if part.strip("_") in NAMES_WITHOUT_AN_IDEA
    ]


RULES = {
    "imports point down": upward_imports,
    "one door per dependency": wrong_doors,
    "pure floors know no disk": disk_on_pure_floors,
    "a file is one idea": too_long,
    "names say something": nameless,
}


# --- the house ------------------------------------------------------------------------------------------------------

MODULES = find_modules(SOURCE)


def test_the_source_is_found() -> None:
    assert {"densemble", "densemble.errors", "densemble.nets.backbones", "densemble.cli"} <= {m.name for m in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.place)
def test_module_keeps_the_rules(module: Module) -> None:
    assert {rule: found for rule, check in RULES.items() if (found := check(module))} == {}


def test_no_import_cycles() -> None:
    assert cycles(MODULES) == []


@pytest.mark.parametrize("name", densemble.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(densemble, name) is not None


# --- the checker itself: what is planted must be found --------------------------------------------------------------


def plant(root: Path, files: dict[str, str]) -> dict[str, Module]:
    for place, text in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {module.place: module for module in find_modules(root)}


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("shapes.py", "from densemble.tasks import Task"),
        ("nets/heads/__init__.py", "import densemble.storage.images"),
        ("tasks.py", "def late():\n    from densemble.ensemble import combine"),
        ("ensemble/select.py", "if TYPE_CHECKING:\n    from densemble.run import Run"),
        ("nets/heads/__init__.py", "from ...data import folder"),
        ("nets/__init__.py", "from ..tasks import Task"),
        ("nets/heads/__init__.py", "from densemble.config import RunConfig"),
        ("config.py", "from densemble.nets.heads import HEADS"),
        ("inference/predictor.py", "from densemble.training.fit import fit"),
        ("training/fit.py", "from densemble.inference.predict import predict"),
        ("cli.py", "from densemble import __version__"),
        ("cli.py", "import densemble as de"),
        ("data/decoded_cache.py", "import_module('densemble.cli')"),
        ("attic.py", ""),
    ],
)
def test_planted_upward_import_is_found(tmp_path: Path, place: str, text: str) -> None:
    assert len(upward_imports(plant(tmp_path, {place: text})[place])) == 1


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("nets/dense.py", "from densemble.nets.heads import HEADS\nfrom .cuts import Cut\nfrom ..shapes import Size"),
        ("cli.py", "def main():\n    from densemble.commands import train"),
        ("__init__.py", "from densemble.run import Run"),
        ("__main__.py", "from densemble.cli import main\nmain()"),
    ],
)
def test_downward_import_is_allowed(tmp_path: Path, place: str, text: str) -> None:
    assert upward_imports(plant(tmp_path, {place: text})[place]) == []


@pytest.mark.parametrize(
    ("a", "b", "c", "cycle"),
    [
        ("from densemble.nets.b import f", "def late():\n    from densemble.nets import a", "", "a b"),
        ("from . import b", "from .c import f", "import densemble.nets.a", "a b c"),
        ("from densemble.nets.a import f", "", "", "a"),
        ("", "from densemble.nets.c import f", "if TYPE_CHECKING:\n    from densemble.nets.b import g", "b c"),
    ],
    ids=["lazy", "three", "itself", "types"],
)
def test_planted_cycle_is_found(tmp_path: Path, a: str, b: str, c: str, cycle: str) -> None:
    user = "from densemble.nets import a, b"  # reaches the cycle and is no part of it
    files = {"nets/__init__.py": "", "nets/a.py": a, "nets/b.py": b, "nets/c.py": c, "nets/user.py": user}
    expected = " <-> ".join(f"densemble.nets.{name}" for name in cycle.split())
    assert cycles(list(plant(tmp_path, files).values())) == [f"import cycle: {expected}"]


def test_planted_cycle_through_a_package_is_found(tmp_path: Path) -> None:
    package, inside = "from densemble.metrics.a import f", "from densemble.metrics import g"
    modules = plant(tmp_path, {"metrics/__init__.py": package, "metrics/a.py": inside}).values()
    assert cycles(list(modules)) == ["import cycle: densemble.metrics <-> densemble.metrics.a"]


def test_a_diamond_is_no_cycle(tmp_path: Path) -> None:
    side = "import densemble.d"
    files = {"a.py": "import densemble.b, densemble.c", "b.py": side, "c.py": side, "d.py": ""}
    assert cycles(list(plant(tmp_path, files).values())) == []


@pytest.mark.parametrize("dependency", IMPORTERS)
def test_planted_door_violation_is_found(tmp_path: Path, dependency: str) -> None:
    text = f"def late():\n    import {dependency}.anything"
    assert len(wrong_doors(plant(tmp_path, {"tasks.py": text})["tasks.py"])) == 1


@pytest.mark.parametrize("dependency", [name for name, doors in IMPORTERS.items() if doors])
def test_door_is_open(tmp_path: Path, dependency: str) -> None:
    for door in IMPORTERS[dependency]:
        place = door + "inside.py" if door.endswith("/") else door
        assert wrong_doors(plant(tmp_path, {place: f"from {dependency} import anything"})[place]) == []


@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        ("data/transforms.py", "from torchvision import tv_tensors", 0),
        ("data/transforms.py", "from torchvision.transforms.v2 import functional", 0),
        ("data/transforms.py", "import torchvision", 1),
        ("data/transforms.py", "from torchvision import models, io", 2),
        ("storage/images.py", "from torchvision.models import alexnet", 1),
        ("nets/backbones.py", "from torchvision import models", 0),
        ("nets/backbones.py", "from torchvision import io", 1),
        ("nets/cuts.py", "from timm import create_model", 1),
        ("data/synthetic.py", "import richer, yamlish", 0),
    ],
)
def test_doors_of_a_divided_dependency(tmp_path: Path, place: str, text: str, found: int) -> None:
    assert len(wrong_doors(plant(tmp_path, {place: text})[place])) == found


@pytest.mark.parametrize(
    ("place", "text", "found"),
    [
        ("tasks/task.py", "open('x')", 1),
        ("ensemble/select.py", "def f(path):\n    with path.open() as file:\n        return file", 1),
        ("metrics/saliency.py", "import json", 1),
        ("nets/heads/__init__.py", "from safetensors.torch import load_file", 1),
        ("nets/local_weights.py", "from safetensors.torch import load_file\nopen('x')", 0),
        ("storage/runs.py", "import json\nopen('x')", 0),
        ("tasks/task.py", "opened = reopen('x')", 0),
    ],
)
def test_planted_disk_access_is_found(tmp_path: Path, place: str, text: str, found: int) -> None:
    assert len(disk_on_pure_floors(plant(tmp_path, {place: text})[place])) == found


@pytest.mark.parametrize(("lines", "found"), [(LONGEST_FILE, 0), (LONGEST_FILE + 1, 1)])
def test_planted_long_file_is_found(tmp_path: Path, lines: int, found: int) -> None:
    assert len(too_long(plant(tmp_path, {"tasks.py": "x = 1\n" * lines})["tasks.py"])) == found


@pytest.mark.parametrize(
    ("place", "found"), [("nets/utils.py", 1), ("helpers/a.py", 1), ("_manager.py", 1), ("run.py", 0)]
)
def test_planted_empty_name_is_found(tmp_path: Path, place: str, found: int) -> None:
    assert len(nameless(plant(tmp_path, {place: ""})[place])) == found
