"""Architecture rules, checked on the source: downward imports, no cycles, few importers per dependency.

Imports are read from the syntax tree. Imports inside functions and under TYPE_CHECKING count as well.
"""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import densemble

SOURCE = Path(__file__).resolve().parents[1] / "src" / "densemble"
TOP = "densemble"

# From bottom to top. Parts of one layer must not import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("terminal",),
    ("errors", "messages", "progress", "versions"),
    ("shapes", "user_code", "input_files", "threads"),
    ("untrusted",),
    ("markup",),
    ("notebook",),
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
    ("run", "run_schema", "scoring"),
    ("tuning", "distillation"),
    ("exporters", "serve"),
    ("commands",),
    ("cli",),
    ("__init__", "__main__"),
)
LAYER_OF = {part: number for number, parts in enumerate(LAYERS) for part in parts}

# Dependency -> the only files and folders ("x/") that may import it. The longest matching dependency name applies.
IMPORTERS: dict[str, tuple[str, ...]] = {
    "torchvision": ("nets/backbones.py", "nets/weight_licences.py"),
    "torchvision.io": ("storage/images.py",),
    "torchvision.transforms": ("data/", "training/"),
    "torchvision.tv_tensors": ("data/", "training/"),
    "timm": ("nets/backbones.py", "nets/weight_licences.py"),
    "lightning": ("training/",),
    "pytorch_lightning": (),  # the same library under its old name
    "PIL": ("storage/pillow.py", "data/synthetic.py", "inference/drawing/", "report/", "markup.py"),
    "tifffile": ("storage/tiff.py", "storage/tiff_directories.py", "data/synthetic.py", "report/"),
    "rasterio": ("storage/geo.py",),
    "pycocotools": ("data/layouts/drawn_shapes.py", "inference/formats/coco_json.py"),
    "sklearn": ("data/splits.py",),
    "sklearn.datasets": ("exporters/verify.py",),
    "ray": ("engines/ray.py",),
    "optuna": ("tuning/study.py",),
    "onnx": ("inference/runtime/backends/", "exporters/"),
    "onnxscript": ("inference/runtime/backends/", "exporters/"),
    "onnxruntime": ("inference/runtime/backends/libraries.py",),  # this module turns telemetry off
    "onnxruntime.quantization": ("exporters/precision.py",),  # after load_onnxruntime
    "onnxruntime.transformers": ("exporters/precision.py",),
    "openvino": ("inference/runtime/backends/libraries.py",),
    "nncf": ("inference/runtime/backends/libraries.py",),
    "zarr": ("storage/zarr_arrays.py",),
    "fastapi": ("serve/",),
    "uvicorn": ("serve/",),
    "gradio": ("serve/",),
    "typer": ("cli.py", "commands/"),
    "rich": ("progress/display.py",),
    "pydantic": (
        "config.py",
        "data_options.py",
        "untrusted.py",
        "storage/",
        "inference/files/journal.py",
        "inference/runtime/remembered_choices.py",
    ),
    "yaml": ("config.py", "untrusted.py"),
    "huggingface_hub": ("storage/hub_download.py", "exporters/hub.py", "exporters/card.py"),
    "safetensors": ("nets/local_weights.py", "storage/", "training/", "exporters/"),
}

PURE = ("nets/", "metrics/", "metrics.py", "tasks/", "ensemble/")
NOT_PURE = ("nets/backbones.py", "nets/local_weights.py")  # the one exception: they read pretrained weights
DISK_LIBRARIES = ("PIL", "yaml", "lightning", "safetensors", "json")
DISK_CALLS = ("open", "read_text", "write_text", "read_bytes", "write_bytes")

# The only files that write, and calls of libraries that write into a file or folder that these files made.
WRITERS = (
    "storage/writing.py", "storage/temporary.py", "storage/folder_lock.py", "storage/user_cache.py",
    "storage/arrays.py", "storage/tensor_file.py", "terminal.py",
)  # fmt: skip
WRITING_CALLS = (
    "write_text", "write_bytes", "savefig", "open_memmap", "memmap", "save", "savez", "savez_compressed", "save_file",
    "save_model", "imwrite", "touch", "to_csv", "to_json", "tofile", "copyfile", "copy", "copy2", "copytree", "move",
    "symlink_to", "link_to", "hardlink_to",
)  # fmt: skip
TEMPORARIES = ("mkstemp", "mkdtemp", "mktemp", "TemporaryFile", "TemporaryDirectory", "NamedTemporaryFile")
INTO_A_TEMPORARY = "the path is one of atomic_path, atomic_files or cache_folder"
INTO_A_STREAM = "the stream is one of atomic_binary, or in memory"
MAY_WRITE: dict[tuple[str, str], str] = {
    ("data/layouts/archive.py", "target.open"): INTO_A_TEMPORARY,
    ("data/synthetic.py", "save"): INTO_A_STREAM,
    ("engines/isolation/calls.py", "os.open"): "it opens /dev/null",
    ("input_files.py", "os.open"): "it opens for reading",
    ("exporters/hub.py", "shutil.copyfile"): INTO_A_TEMPORARY,
    ("exporters/onnx.py", "exported.save"): INTO_A_TEMPORARY,
    ("exporters/openvino.py", "openvino.save_model"): INTO_A_TEMPORARY,
    ("exporters/precision.py", "onnx.save"): INTO_A_TEMPORARY,
    ("exporters/torch_program.py", "torch.export.save"): INTO_A_TEMPORARY,
    ("exporters/triton.py", "shutil.copyfile"): INTO_A_TEMPORARY,
    ("inference/image_prediction.py", "savefig"): INTO_A_STREAM,
    ("inference/runtime/backends/openvino.py", "openvino.save_model"): INTO_A_TEMPORARY,
    ("inference/runtime/backends/openvino.py", "path.touch"): "the file exists",
    ("inference/runtime/backends/openvino.py", "touch"): "the file exists",
    ("markup.py", "image.save"): INTO_A_STREAM,
    ("report/curves.py", "figure.savefig"): INTO_A_STREAM,
    ("report/preview.py", "figure.savefig"): INTO_A_STREAM,
    ("run.py", "table.to_csv"): "it returns a text",
    ("storage/geo.py", "rasterio.open"): INTO_A_TEMPORARY,
    ("storage/pillow.py", "image.save"): INTO_A_STREAM,
    ("storage/tiff.py", "tifffile.imwrite"): INTO_A_TEMPORARY,
    ("storage/weight_files.py", "save_file"): INTO_A_TEMPORARY,
    ("training/checkpoints.py", "torch.save"): INTO_A_TEMPORARY,
    ("commands/demo.py", "prediction.save"): "it writes with the functions of storage",
    ("inference/files/predict_files.py", "result.save"): "it writes with the functions of storage",
}
# The only files that may parse JSON; except for the first, they read text that densemble has just written.
JSON_PARSERS = (
    "untrusted.py",
    "evaluation/benchmark/fresh_process.py",
    "exporters/precision.py",
    "exporters/python_source/verify.py",
    "exporters/torch_program.py",
    "exporters/triton.py",
    "storage/artifact.py",
    "storage/coverage.py",
    "tuning/study.py",
)

LONGEST_FILE = 400
VAGUE_NAMES = ("util", "utils", "helper", "helpers", "manager", "managers")


# --- reading the source ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Module:
    root: Path
    path: Path

    @property
    def file(self) -> str:
        """Path relative to the package, such as ``nets/cuts.py``."""
        return self.path.relative_to(self.root).as_posix()

    @property
    def name(self) -> str:
        """Dotted name, such as ``densemble.nets.cuts``; for an ``__init__.py``, the name of the package."""
        parts = self.path.relative_to(self.root).with_suffix("").parts
        return ".".join((TOP, *(parts[:-1] if parts[-1] == "__init__" else parts)))

    @property
    def part(self) -> str:
        """Entry of LAYERS that the module belongs to, such as ``nets``."""
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
    """Yield every imported name in full: ``from a.b import c`` gives ``a.b.c``, even if ``c`` is no module."""
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


def matches(file: str, paths: Sequence[str]) -> bool:
    return any(file.startswith(path) if path.endswith("/") else file == path for path in paths)


def longest_prefix(name: str, names: Sequence[str] | set[str]) -> str | None:
    """Return the longest of ``names`` that is ``name`` or one of its parents."""
    parts = name.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in names), None)


# --- the rules: each returns the violations as lines of text --------------------------------------------------------


def upward_imports(module: Module) -> list[str]:
    if module.part not in LAYER_OF:
        return [f"{module.file}: '{module.part}' has no layer; add it to LAYERS and to a decision record"]
    violations = []
    for imported in imports(module):
        parts = imported.name.split(".")
        if parts[0] != TOP:
            continue
        target = parts[1] if len(parts) > 1 and parts[1] in LAYER_OF else "__init__"
        if target != module.part and LAYER_OF[target] >= LAYER_OF[module.part]:
            violations.append(
                f"{module.file}:{imported.line} imports {imported.name}: '{target}' (layer {LAYER_OF[target]}) "
                f"is not below '{module.part}' (layer {LAYER_OF[module.part]})"
            )
    return violations


def cycles(modules: Sequence[Module]) -> list[str]:
    """Return one line for every group of modules that import each other, directly or not."""
    known = {module.name for module in modules}
    graph = {
        module.name: {target for imported in imports(module) if (target := longest_prefix(imported.name, known))}
        for module in modules
    }
    imported_by = {name: reachable(graph, name) for name in graph}
    groups = {frozenset(b for b in imported_by[a] if a in imported_by[b]) for a in graph if a in imported_by[a]}
    return sorted("import cycle: " + " <-> ".join(sorted(group)) for group in groups)


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    visited: set[str] = set()
    pending = list(graph[start])
    while pending:
        name = pending.pop()
        if name not in visited:
            visited.add(name)
            pending.extend(graph[name])
    return visited


def forbidden_dependencies(module: Module) -> list[str]:
    violations = []
    for imported in imports(module):
        dependency = longest_prefix(imported.name, set(IMPORTERS))
        if dependency and not matches(module.file, IMPORTERS[dependency]):
            importers = ", ".join(IMPORTERS[dependency]) or "no module"
            violations.append(
                f"{module.file}:{imported.line} imports {imported.name}; {dependency} may be imported by: {importers}"
            )
    return violations


def disk_access_in_pure_layers(module: Module) -> list[str]:
    if not matches(module.file, PURE) or matches(module.file, NOT_PURE):
        return []
    violations = [
        f"{module.file}:{imported.line} imports {imported.name} in a layer without disk access"
        for imported in imports(module)
        if imported.name.split(".")[0] in DISK_LIBRARIES
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and called_name(node) in DISK_CALLS:
            violations.append(f"{module.file}:{node.lineno} calls {called_name(node)}() in a layer without disk access")
    return violations


def writing_calls(module: Module) -> list[tuple[str, int]]:
    """Return the calls that may write a file, each as its dotted name with its line."""
    found = []
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Call):
            continue
        name, function = called_name(node), ast.unparse(node.func)
        is_method = isinstance(node.func, ast.Attribute)
        own = ("write_text", "save", "copy") if not is_method else ("copy.copy",)  # functions of densemble, and of copy
        writes = name in (*WRITING_CALLS, *TEMPORARIES) and name not in own and function not in own
        is_copy = is_method and name == "copy" and not function.startswith("shutil.")  # of a list, a dict or an array
        if (writes and not is_copy) or opens_to_write(node, function):
            plain = all(part.isidentifier() for part in function.split("."))
            found.append((function if plain else name, node.lineno))
    return found


def opens_to_write(node: ast.Call, function: str) -> bool:
    if function == "os.open":
        return True
    if called_name(node) not in ("open", "fdopen"):
        return False
    values = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "mode")]
    texts = [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return any(set(text) <= set("rwxabt+") and set(text) & set("wxa+") for text in texts)


def writes_outside_the_writer(module: Module) -> list[str]:
    if module.file in WRITERS:
        return []
    return [
        f"{module.file}:{line} calls {name}; write with densemble.storage.writing, see WRITERS and MAY_WRITE"
        for name, line in writing_calls(module)
        if (module.file, name) not in MAY_WRITE
    ]


def json_parsing(module: Module) -> list[str]:
    if matches(module.file, JSON_PARSERS):
        return []
    calls = (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))
    return [
        f"{module.file}:{call.lineno} parses JSON; read text of unknown origin with densemble.untrusted"
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in ("loads", "load")
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "json"
    ]


def too_long(module: Module) -> list[str]:
    lines = len(module.path.read_text(encoding="utf-8").splitlines())
    return [f"{module.file} has {lines} lines, more than {LONGEST_FILE}: split it"] if lines > LONGEST_FILE else []


def vague_names(module: Module) -> list[str]:
    parts = Path(module.file).with_suffix("").parts
    return [
        f"{module.file}: '{part}' is a vague name; name the file after what it does"
        for part in parts
        if part.strip("_") in VAGUE_NAMES
    ]


RULES = {
    "imports point down": upward_imports,
    "few importers per dependency": forbidden_dependencies,
    "no disk access in pure layers": disk_access_in_pure_layers,
    "one writer": writes_outside_the_writer,
    "one reader of JSON": json_parsing,
    f"at most {LONGEST_FILE} lines per file": too_long,
    "descriptive file names": vague_names,
}


# --- the source -----------------------------------------------------------------------------------------------------

MODULES = find_modules(SOURCE)


def test_all_modules_are_checked() -> None:
    assert {"densemble", "densemble.errors", "densemble.nets.backbones", "densemble.cli"} <= {m.name for m in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.file)
def test_module_follows_the_rules(module: Module) -> None:
    assert {rule: violations for rule, check in RULES.items() if (violations := check(module))} == {}


def test_every_exception_of_the_writer_is_needed() -> None:
    calls = {(module.file, name) for module in MODULES for name, _ in writing_calls(module)}
    assert MAY_WRITE.keys() - calls == set()
    assert {module.file for module in MODULES} >= set(WRITERS)


def test_no_import_cycles() -> None:
    assert cycles(MODULES) == []


@pytest.mark.parametrize("name", densemble.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(densemble, name) is not None


# --- the rules themselves must find planted violations --------------------------------------------------------------


def plant(root: Path, files: dict[str, str]) -> dict[str, Module]:
    for file, text in files.items():
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {module.file: module for module in find_modules(root)}


@pytest.mark.parametrize(
    ("file", "text"),
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
def test_planted_upward_import_is_found(tmp_path: Path, file: str, text: str) -> None:
    assert len(upward_imports(plant(tmp_path, {file: text})[file])) == 1


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("nets/dense.py", "from densemble.nets.heads import HEADS\nfrom .cuts import Cut\nfrom ..shapes import Size"),
        ("cli.py", "def main():\n    from densemble.commands import train"),
        ("__init__.py", "from densemble.run import Run"),
        ("__main__.py", "from densemble.cli import main\nmain()"),
    ],
)
def test_downward_import_is_allowed(tmp_path: Path, file: str, text: str) -> None:
    assert upward_imports(plant(tmp_path, {file: text})[file]) == []


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
    user = "from densemble.nets import a, b"  # imports the cycle but is no part of it
    files = {"nets/__init__.py": "", "nets/a.py": a, "nets/b.py": b, "nets/c.py": c, "nets/user.py": user}
    expected = " <-> ".join(f"densemble.nets.{name}" for name in cycle.split())
    assert cycles(list(plant(tmp_path, files).values())) == [f"import cycle: {expected}"]


def test_planted_cycle_through_a_package_is_found(tmp_path: Path) -> None:
    package, inside = "from densemble.metrics.a import f", "from densemble.metrics import g"
    modules = plant(tmp_path, {"metrics/__init__.py": package, "metrics/a.py": inside}).values()
    assert cycles(list(modules)) == ["import cycle: densemble.metrics <-> densemble.metrics.a"]


def test_a_diamond_is_not_a_cycle(tmp_path: Path) -> None:
    side = "import densemble.d"
    files = {"a.py": "import densemble.b, densemble.c", "b.py": side, "c.py": side, "d.py": ""}
    assert cycles(list(plant(tmp_path, files).values())) == []


@pytest.mark.parametrize("dependency", IMPORTERS)
def test_planted_forbidden_dependency_is_found(tmp_path: Path, dependency: str) -> None:
    text = f"def late():\n    import {dependency}.anything"
    assert len(forbidden_dependencies(plant(tmp_path, {"tasks.py": text})["tasks.py"])) == 1


@pytest.mark.parametrize("dependency", [name for name, importers in IMPORTERS.items() if importers])
def test_importers_may_import_their_dependency(tmp_path: Path, dependency: str) -> None:
    for importer in IMPORTERS[dependency]:
        file = importer + "inside.py" if importer.endswith("/") else importer
        assert forbidden_dependencies(plant(tmp_path, {file: f"from {dependency} import anything"})[file]) == []


@pytest.mark.parametrize(
    ("file", "text", "violations"),
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
def test_submodules_with_different_importers(tmp_path: Path, file: str, text: str, violations: int) -> None:
    assert len(forbidden_dependencies(plant(tmp_path, {file: text})[file])) == violations


@pytest.mark.parametrize(
    ("file", "text", "violations"),
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
def test_planted_disk_access_is_found(tmp_path: Path, file: str, text: str, violations: int) -> None:
    assert len(disk_access_in_pure_layers(plant(tmp_path, {file: text})[file])) == violations


@pytest.mark.parametrize(
    ("text", "violations"),
    [
        ("path.open('w')", 1),
        ("open(path, mode='xb')", 1),
        ("path.open('r+b')", 1),
        ("path.open('rb')", 0),
        ("open(path)", 0),
        ("os.open(path, os.O_CREAT)", 1),
        ("path.write_text('a')", 1),
        ("write_text(path, 'a')", 0),
        ("Image.fromarray(a).save(path)", 1),
        ("np.save(path, a)", 1),
        ("np.lib.format.open_memmap(path, 'w+')", 1),
        ("tempfile.mkdtemp()", 1),
        ("with TemporaryDirectory() as folder: pass", 1),
        ("tempfile.gettempdir()", 0),
        ("shutil.copy(a, b)", 1),
        ("copy.copy(a)\na.copy()\nname.replace('a', 'b')", 0),
    ],
)
def test_planted_writing_is_found(tmp_path: Path, text: str, violations: int) -> None:
    assert len(writes_outside_the_writer(plant(tmp_path, {"report/a.py": text})["report/a.py"])) == violations
    assert writes_outside_the_writer(plant(tmp_path, {"storage/writing.py": text})["storage/writing.py"]) == []


@pytest.mark.parametrize(("file", "violations"), [("run.py", 2), ("untrusted.py", 0)])
def test_planted_json_parsing_is_found(tmp_path: Path, file: str, violations: int) -> None:
    text = "import json\ndef f(text, file):\n    return json.loads(text), json.load(file), json.dumps(text)"
    assert len(json_parsing(plant(tmp_path, {file: text})[file])) == violations


@pytest.mark.parametrize(("lines", "violations"), [(LONGEST_FILE, 0), (LONGEST_FILE + 1, 1)])
def test_planted_long_file_is_found(tmp_path: Path, lines: int, violations: int) -> None:
    assert len(too_long(plant(tmp_path, {"tasks.py": "x = 1\n" * lines})["tasks.py"])) == violations


@pytest.mark.parametrize(
    ("file", "violations"), [("nets/utils.py", 1), ("helpers/a.py", 1), ("_manager.py", 1), ("run.py", 0)]
)
def test_planted_vague_name_is_found(tmp_path: Path, file: str, violations: int) -> None:
    assert len(vague_names(plant(tmp_path, {file: ""})[file])) == violations
