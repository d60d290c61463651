"""Packaging: the wheel has the files and metadata of the source, installs into a new environment, and runs there."""

import email
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Callable
from email.message import Message
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import densemble as de

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INFO = f"densemble-{de.__version__}.dist-info"
IN_USE = """
import densemble as de, torch
assert de.__file__.startswith({root!r}), de.__file__
net = de.DenseModel("squeezenet1_1", out_channels=1, out_size=(12, 16), weights=None)
de.save(de.Ensemble([net]), "small.safetensors")
"""


def build(source: Path, target: Path, *kinds: str) -> list[Path]:
    """Build a source tree into ``target``, without isolation and network."""
    pytest.importorskip("hatchling", reason="hatchling is not installed; make setup installs it")
    options = [word for kind in kinds for word in ("-t", kind)]
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(target), *options]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return sorted(target.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Source distribution and wheel of this tree."""
    wheel, sdist = build(ROOT, tmp_path_factory.mktemp("built"), "sdist", "wheel")
    return [sdist, wheel]


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return email.message_from_bytes(archive.read(f"{INFO}/METADATA"))


def test_the_wheel_holds_the_package_and_nothing_else(built: list[Path]) -> None:
    source = ROOT / "src"
    expected = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    expected = {name for name in expected if "__pycache__" not in name and ".egg-info" not in name}
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"{INFO}/entry_points.txt").decode()
    extra = {f"{INFO}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    assert names == expected | extra
    assert {"densemble/py.typed", "densemble/storage/coverage.jsonl"} <= names
    assert entry_points.split() == ["[console_scripts]", "densemble", "=", "densemble.cli:main"]


def test_the_source_distribution_holds_what_a_build_and_the_tests_need(built: list[Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "Dockerfile"}
    assert needed | {"src/densemble/cli.py", "tests/conftest.py", "docs/assets/portrait.jpg"} <= names
    assert not [name for name in names if name.startswith((".ci", ".venv"))]


def test_metadata(built: list[Path]) -> None:
    found, project = metadata(built[1]), PROJECT["project"]
    assert (found["Name"], found["Version"], found["License-Expression"]) == ("densemble", de.__version__, "Apache-2.0")
    assert found["Author"] == project["authors"][0]["name"]
    assert set(found["Requires-Python"].split(",")) == set(project["requires-python"].split(","))
    required = {str(requirement) for requirement in requirements(found) if requirement.marker is None}
    assert required == {str(Requirement(text)) for text in project["dependencies"]}
    assert set(found.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])


def requirements(found: Message) -> list[Requirement]:
    return [Requirement(text) for text in found.get_all("Requires-Dist", [])]


def test_the_tested_versions_satisfy_the_requirements(built: list[Path]) -> None:
    wrong = {
        requirement.name: version(requirement.name)
        for requirement in requirements(metadata(built[1]))
        if requirement.marker is None and not requirement.specifier.contains(version(requirement.name))
    }
    assert wrong == {}


def test_the_long_description_has_no_relative_links(built: list[Path]) -> None:
    text = str(metadata(built[1]).get_payload())
    assert text.startswith("# densemble\n")
    assert [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith(("https://", "#"))] == []


@pytest.fixture
def absolute_links() -> Callable[..., str]:
    pytest.importorskip("hatchling", reason="hatchling is not installed; make setup installs it")
    links: Callable[..., str] = runpy.run_path(str(ROOT / "hatch_build.py"))["absolute_links"]
    return links


def test_links_become_absolute(absolute_links: Callable[..., str]) -> None:
    text = "![a map](docs/a.jpg) and [![b](b.png)](docs/b.md#c), [d](https://e.org/f), [g](#h)"
    assert absolute_links(text, "https://x.org/tree/v1", "https://x.org/raw/v1/") == (
        "![a map](https://x.org/raw/v1/docs/a.jpg) and [![b](https://x.org/raw/v1/b.png)]"
        "(https://x.org/tree/v1/docs/b.md#c), [d](https://e.org/f), [g](#h)"
    )


def test_links_without_an_address_become_text(absolute_links: Callable[..., str]) -> None:
    text = "A\n\n![a map](docs/a.jpg)\n\n*Caption of the map.*\n\nB [c](d.md) ![e](https://f.org/g.png) h ![i](j.png)\n"
    assert absolute_links(text) == "A\n\nB c ![e](https://f.org/g.png) h \n"


def test_the_citation_file_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == de.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["authors"] == PROJECT["project"]["authors"]


def test_the_linter_finds_nothing_in_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed; make setup installs it on Linux on x86-64")
    done = subprocess.run([hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def copied_into_the_image() -> list[str]:
    """Files and folders that the first stage of the Dockerfile copies."""
    stage = (ROOT / "Dockerfile").read_text(encoding="utf-8").split("FROM ")[1]
    return [word for words in re.findall(r"^COPY (.+) \S+$", stage, re.MULTILINE) for word in words.split()]


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.slow
def test_a_wheel_of_the_source_distribution_is_equal(built: list[Path], tmp_path: Path) -> None:
    with tarfile.open(built[0]) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (wheel,) = build(source, tmp_path / "wheel", "wheel")
    assert contents(wheel) == contents(built[1])


@pytest.mark.slow
def test_a_wheel_of_the_files_in_the_image_is_equal(built: list[Path], tmp_path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    (tmp_path / "context").mkdir()
    for name in copied_into_the_image():
        assert f"!{name}" in ignored
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / "context" / name)
    (wheel,) = build(tmp_path / "context", tmp_path / "wheel", "wheel")
    assert contents(wheel) == contents(built[1])


@pytest.mark.slow
@pytest.mark.timeout(900)  # creates an environment with pip
@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_it_runs_in_a_new_environment(built: list[Path], kind: str, tmp_path: Path) -> None:
    """Install without network: the dependencies are those of the environment of the tests."""
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=True)
    python, programs = folder / "bin" / "python", folder / "bin"

    def run(*words: object) -> str:
        done = subprocess.run(
            [str(word) for word in words], cwd=tmp_path, env={"PATH": str(programs), "HOME": str(tmp_path)},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    paths = [path for path in sys.path if path.endswith("site-packages")]  # a line adds a folder, not its .pth files
    (packages / "tests.pth").write_text("\n".join(paths), encoding="utf-8")
    file = built[kind == "wheel"]
    run(python, "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed", file)
    run(python, "-c", IN_USE.format(root=str(packages)))
    assert "predict" in run(programs / "densemble", "--help")
    example = next((ROOT / "docs" / "assets").glob("*.jpg"))
    run(programs / "densemble", "predict", "small.safetensors", example, "-o", "out", "--save", "npy")
    assert [path.name for path in (tmp_path / "out").glob("*.npy")] == [f"{example.stem}.npy"]
