"""Help, version, completion, unknown names, swapped arguments, and what ``doctor`` tells about a machine."""

import json
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from densemble import cli
from densemble.commands import doctor, named_values
from densemble.commands.examples import EXAMPLES
from densemble.errors import did_you_mean

Command = Callable[..., Any]


def commands() -> Iterator[tuple[str, Any]]:
    """Words of each command, and the command; the program itself has no words."""
    program: Any = get_command(cli.app)
    yield "", program
    for name, command in program.commands.items():
        yield name, command
        for inner, inner_command in getattr(command, "commands", {}).items():
            yield f"{name} {inner}", inner_command


NAMES = [name for name, _ in commands()]


@pytest.mark.parametrize("name", NAMES)
def test_help_has_two_examples_no_type_of_flags_and_80_columns(
    name: str, densemble: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = densemble(*name.split(), "-h")
    assert shown.returncode == 0 and shown.stderr == ""
    _, _, examples = shown.stdout.partition("Examples:\n")
    assert len(re.findall(rf"^ +densemble {name}", examples, re.MULTILINE)) >= 2
    assert "<bool>" not in shown.stdout and "-h" in shown.stdout
    assert [line for line in shown.stdout.splitlines() if len(line) > 80] == []


def test_every_example_can_be_parsed() -> None:
    parsed = dict(commands())
    assert set(EXAMPLES) == set(parsed)
    for examples in EXAMPLES.values():
        for example in examples:
            words = shlex.split(example.partition(">")[0].replace("\\\n", " "))[1:]
            name = next(
                name for name in sorted(parsed, key=len, reverse=True) if words[: len(name.split())] == name.split()
            )
            parsed[name].make_context(name, words[len(name.split()) :])


def test_version(densemble: Command) -> None:
    assert densemble("--version").stdout == f"densemble {version('densemble')}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("trian", "no command is named 'trian'; did you mean 'train'? see `densemble --help`"),
        ("nonsense", "no command is named 'nonsense'; there are: demo, doctor"),
        ("info", "no command is named 'info'; did you mean 'card'? see `densemble --help`"),
        ("data chek", "no command is named 'chek'; did you mean 'check'? see `densemble data --help`"),
        ("train d --tsak saliency", "no option is named '--tsak'; did you mean '--task'"),
        ("train d", "Missing option '-o' / '--out'; see `densemble train --help`"),
        ("train d -o r --task sgmentation", "no task is named 'sgmentation'; did you mean 'segmentation'? there are:"),
        ("train d -o r --engine locl", "no engine is named 'locl'; did you mean 'local'? there are: local"),
        ("evaluate a d --split vall", "no split is named 'vall'; did you mean 'val'? there are: train, val, test"),
        ("benchmark a --backend openvin", "no backend is named 'openvin'; did you mean 'openvino'? available: auto"),
        ("benchmark a --rounds two", "Invalid value for '--rounds'"),
    ],
)  # fmt: skip
def test_an_unknown_name_is_answered_in_one_line(words: str, message: str, densemble: Command) -> None:
    done = densemble(*words.split())
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("densemble: ") and message in done.stderr and done.stderr.count("\n") == 1


def test_settings_and_other_named_values_get_a_hint(densemble: Command, scenes: Path, tmp_path: Path) -> None:
    train = ("train", scenes, "-o", tmp_path / "run", "--task", "saliency")
    assert "did you mean 'light'?" in densemble(*train, "--set", "training.augment=lihgt").stderr
    assert "did you mean 'balanced'?" in densemble(*train, "--preset", "balance").stderr
    assert did_you_mean("seg", ("segmentation", "image")) == "did you mean 'segmentation'? "
    assert did_you_mean("xyz", ("segmentation", "image")) == ""


def test_named_values_are_those_of_the_code() -> None:
    from densemble.data.layouts import SPLITS
    from densemble.data.transforms import AUGMENT
    from densemble.distillation.options import WEIGHTINGS
    from densemble.ensemble.combine import COMBINE
    from densemble.exporters import EXPORTERS
    from densemble.inference.file_kinds import SAVE
    from densemble.inference.predict import BACKENDS, PRECISIONS
    from densemble.inference.ranking import RANKINGS
    from densemble.presets import PRESETS
    from densemble.selection.options import CALIBRATE, GUARANTEE
    from densemble.selection.strategies import SELECT
    from densemble.tasks import TASKS
    from densemble.tuning.space import NAMES as SEARCHED

    known: dict[str, Any] = {
        "TASKS": TASKS, "PRESETS": PRESETS, "SPLITS": SPLITS, "SELECT": SELECT, "COMBINE": COMBINE,
        "CALIBRATE": CALIBRATE, "GUARANTEE": GUARANTEE, "BACKENDS": ("auto", *BACKENDS), "PRECISIONS": PRECISIONS,
        "SAVE": SAVE, "RANKINGS": RANKINGS, "FORMATS": EXPORTERS, "WEIGHTINGS": WEIGHTINGS, "AUGMENT": AUGMENT,
        "SEARCHED": SEARCHED,
    }  # fmt: skip
    assert {name: set(getattr(named_values, name)) for name in known} == {name: set(known[name]) for name in known}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_and_values(tmp_path: Path) -> None:
    program = tmp_path / "densemble"
    code = "import sys; sys.argv[0] = 'densemble'; from densemble.cli import main; main()"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{code}" "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(densemble --show-completion)"
        complete_words() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); _densemble_completion densemble; }
        complete_words densemble tra; echo "${COMPREPLY[*]}"
        complete_words densemble predict --save map,ov; echo "${COMPREPLY[*]}"
        complete_words densemble cuts squeezenet1; echo "${COMPREPLY[*]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    shown = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env=environment, check=True).stdout
    assert shown.splitlines() == ["train", "map,overlay", "squeezenet1_0 squeezenet1_1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("predict photos gaze.safetensors -o out", "write `densemble predict gaze.safetensors photos ...`"),
        ("predict a.jpg b.jpg RUN -o out", "write `densemble predict RUN a.jpg b.jpg ...`"),
        ("evaluate my-data gaze.safetensors", "write `densemble evaluate gaze.safetensors my-data ...`"),
        ("distill my-data g.safetensors --student resnet18 -o s.safetensors", "write `densemble distill g.safetensors"),
        ("push user/name gaze.safetensors", "write `densemble push gaze.safetensors user/name ...`"),
        ("train gaze.safetensors -o out --task depth", "an artifact; `densemble train` takes a data folder there"),
        ("evaluate gaze.safetensors RUN", "is a run folder; `densemble evaluate` takes a data folder there"),
        ("assemble RUN/ensemble.safetensors -o g.safetensors", "takes the run folder of a training, such as 'RUN'"),
    ],
)
def test_swapped_arguments_are_named(words: str, message: str, densemble: Command, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("run.json", "run.yaml", "ensemble.safetensors"):
        (run / name).touch()
    done = densemble(*words.replace("RUN", str(run)).split())
    assert done.returncode == 2 and message.replace("RUN", str(run)) in done.stderr, done.stderr


def test_report_of_doctor_has_no_private_data(
    densemble: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "home" / "jane"
    (home / "cache").mkdir(parents=True)
    (home / "cache" / "file").write_bytes(bytes(3 << 20))
    variables = {"HOME": home, "DENSEMBLE_CACHE_DIR": home / "cache", "DENSEMBLE_WEIGHTS_DIR": "/data/secret"}
    for name, value in {**variables, **dict.fromkeys(("USER", "LOGNAME", "LNAME", "USERNAME"), "jane")}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(platform, "node", lambda: "janes-laptop.example.org")
    facts = densemble("doctor", "--json")
    assert facts.returncode == 6 and json.loads(facts.stdout)["caches"]["densemble"]["bytes"] == 3 << 20
    report = densemble("doctor", "--report").stdout
    for private in ("jane", "laptop", "secret", str(tmp_path), str(Path.cwd())):
        assert private not in report
    assert "problem: $DENSEMBLE_WEIGHTS_DIR is 'PATH'" in report and "  densemble            3 MiB" in report
    assert version("torch") in report and all(len(line) <= 100 for line in report.splitlines())
    assert doctor.without_private_data("on janes-laptop jane read /etc/x and ~/y") == "on HOST USER read PATH and PATH"


def test_doctor_empties_the_cache_alone(densemble: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path))
    for name in ("choices/a.json", "openvino/b.bin", "archives/c/image.png", "mine/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(1 << 20))
    done = densemble("doctor", "--clean", "--json")
    assert json.loads(done.stdout)["freed"] == 3 << 20 and "removed 3.0 MiB" in done.stderr
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["notes.txt"]


def test_doctor_names_the_extras_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from densemble import versions

    monkeypatch.setattr(versions, "installed_version", lambda name: None if name == "onnxscript" else "1.0")
    found = doctor.extras()
    assert found["onnx"] == {"missing": ["onnxscript"], "install": "pip install 'densemble[onnx]'"}
    assert found["geo"] == {"missing": [], "install": None} and "dev" not in found


def test_quiet_shows_warnings_alone(densemble: Command, scenes: Path, tmp_path: Path) -> None:
    shown = densemble("predict", tmp_path / "none.safetensors", scenes / "val" / "images", "-o", tmp_path / "o", "-q")
    assert shown.returncode == 4 and shown.stderr.startswith("densemble: no artifact at")


@pytest.mark.slow
@pytest.mark.parametrize(("code", "limit"), [("import densemble", 0.3), ("import densemble.cli", 1.0)])
def test_import_is_quick(code: str, limit: float) -> None:
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
        seconds.append(time.perf_counter() - started)
    assert statistics.median(seconds[1:]) < limit, seconds
