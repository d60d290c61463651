"""Mutation check: insert single faults into the source, and check that the tests detect them.

The source tree is copied to a temporary folder; the original is not changed. Mutations are drawn with a seed, evenly
over the packages and the kinds of faults. Each is checked by the tests of its package (``TESTS``) until the first
failure. A timeout counts as a failure. Prints a table and a diff of every survivor, writes
benchmarks/results/mutations.json, and exits with 1 if less than 90 % are detected.

    python benchmarks/mutations.py [--seed 0] [--count 60] [--packages metrics,ensemble,selection]
                                   [--tests metrics=tests/metrics:tests/tasks/test_objectives.py]... [-o FILE]
"""

import argparse
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from environment import environment
from mutation_kinds import Mutation, mutations_of

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "mutations.json"
PACKAGES = ("metrics", "ensemble", "selection")
TESTS = {"metrics": ("tests/metrics", "tests/tasks/test_objectives.py")}
"""Tests of a package; default ``tests/PACKAGE``."""
LEAST_KILLED = 0.9
COPIED = ("src", "tests", "benchmarks", "examples", "pyproject.toml")
SHORTEST, SLOWER = 60.0, 10.0
"""Time limit of a run: this many seconds, or this multiple of the run without a mutation."""


@dataclass(frozen=True)
class Outcome:
    """Result of the tests for a mutation.

    Attributes:
        mutation: the fault.
        outcome: ``killed``, ``timeout`` or ``survived``.
        by: the first test that failed, if any.
        seconds: time of the tests.
    """

    mutation: Mutation
    outcome: str
    by: str | None
    seconds: float


class Sandbox:
    """A copy of a project in which files are changed and tests run.

    Args:
        root: the project; its ``src`` contains the package.
        folder: an empty folder for the copy.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self.tree = folder / "tree"
        for name in COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, self.tree / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
            elif source.is_file():
                shutil.copy(source, self.tree / name)
        for name in ("docs", "README.md"):  # read by tests, never changed
            if (root / name).exists():
                (self.tree / name).symlink_to(root / name)
        if (root.parent / "shared").is_dir():
            (folder / "shared").symlink_to(root.parent / "shared")

    def run(self, tests: Sequence[str], timeout: float | None = None) -> tuple[int | None, str, float]:
        """Run tests until the first failure.

        Returns:
            Exit code, ``None`` after a timeout; output; seconds.
        """
        command = [
            sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header",
            "--tb=no", "-rfE", *tests,
        ]  # fmt: skip
        path = os.pathsep.join([str(self.tree / "src"), os.environ.get("PYTHONPATH", "")])
        environ = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=self.tree, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None, "", time.monotonic() - started
        return process.returncode, output, time.monotonic() - started

    def check(self, mutation: Mutation, tests: Sequence[str], timeout: float) -> Outcome:
        """Runs tests against a mutation; the file is put back afterwards.

        Raises:
            RuntimeError: pytest itself failed.
        """
        path = self.tree / mutation.file
        original = path.read_text()
        path.write_text(mutation.applied(original))
        try:
            code, output, seconds = self.run(_nearest_first(tests, mutation, self.tree), timeout)
        finally:
            path.write_text(original)
        if code not in (None, 0, 1, 2):  # 1: a test failed, 2: tests cannot be imported
            raise RuntimeError(f"pytest ended with {code}:\n{output}")
        outcome = "timeout" if code is None else "killed" if code else "survived"
        failed = [line.split(" - ")[0].split(maxsplit=1)[-1] for line in output.splitlines() if _is_failure(line)]
        return Outcome(mutation, outcome, failed[0] if failed else None, seconds)


def _is_failure(line: str) -> bool:
    return line.startswith(("FAILED ", "ERROR "))


def _nearest_first(tests: Sequence[str], mutation: Mutation, tree: Path) -> list[str]:
    """The test file of the same name first, because most mutations are detected there."""
    stem = Path(mutation.file).stem
    near = [file for place in tests for file in sorted((tree / place).rglob(f"test_{stem}*.py"))]
    return [*(str(file.relative_to(tree)) for file in near), *tests]


def draw(root: Path, package: str, count: int, seed: int, source: str = "src/densemble") -> list[Mutation]:
    """Seeded mutations of a package, evenly over their kinds, at different positions."""
    chosen: list[Mutation] = []
    found: dict[str, list[Mutation]] = {}
    for file in sorted((root / source / package).rglob("*.py")):
        for mutation in mutations_of(file.read_text(), str(file.relative_to(root))):
            found.setdefault(mutation.kind, []).append(mutation)
    order = random.Random(f"{seed} {package}")
    for rest in found.values():
        order.shuffle(rest)
    while len(chosen) < count and any(found.values()):
        for kind in sorted(found):
            taken = {(one.file, one.start) for one in chosen}
            found[kind] = [one for one in found[kind] if (one.file, one.start) not in taken]
            if found[kind] and len(chosen) < count:
                chosen.append(found[kind].pop())
    return chosen


def shares(count: int, packages: Sequence[str]) -> dict[str, int]:
    """Number of mutations of each package."""
    return {name: count // len(packages) + (i < count % len(packages)) for i, name in enumerate(packages)}


def check_all(
    root: Path, chosen: Mapping[str, Sequence[Mutation]], tests: Mapping[str, Sequence[str]]
) -> list[Outcome]:
    """Runs the tests of each package against its mutations.

    Raises:
        RuntimeError: tests fail without any mutation.
    """
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        sandbox = Sandbox(root, Path(folder))
        for package, mutations in chosen.items():
            code, output, seconds = sandbox.run(tests[package])
            if code != 0:
                raise RuntimeError(f"the tests of {package} fail without a mutation:\n{output}")
            print(f"{package}: {seconds:.0f} s of tests without a mutation", flush=True)
            for mutation in mutations:
                outcome = sandbox.check(mutation, tests[package], max(SHORTEST, SLOWER * seconds))
                outcomes.append(outcome)
                print(f"{outcome.outcome:9} {outcome.seconds:6.1f} s  {mutation}", flush=True)
    return outcomes


def difference(mutation: Mutation, root: Path) -> str:
    """A unified diff of one mutation."""
    original = (root / mutation.file).read_text()
    lines = difflib.unified_diff(
        original.splitlines(), mutation.applied(original).splitlines(), mutation.file, mutation.file, "", "", 2, ""
    )
    return "\n".join(lines)


def report(outcomes: Sequence[Outcome], root: Path, seed: int, tests: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """Prints counts and survivors; the values of the result file."""
    rows: dict[str, dict[str, int]] = {}
    for one in outcomes:
        row = rows.setdefault(Path(one.mutation.file).parts[2], dict.fromkeys(("killed", "timeout", "survived"), 0))
        row[one.outcome] += 1
    print(f"\n{'package':12}{'mutations':>10}{'killed':>8}{'timeout':>9}{'survived':>10}")
    for package, row in rows.items():
        print(f"{package:12}{sum(row.values()):10}{row['killed']:8}{row['timeout']:9}{row['survived']:10}")
    survivors = [one.mutation for one in outcomes if one.outcome == "survived"]
    for mutation in survivors:
        print(f"\nsurvived: {mutation}\n{difference(mutation, root)}")
    killed = len(outcomes) - len(survivors)
    print(f"\n{killed} of {len(outcomes)} killed")
    return {
        "environment": environment(), "seed": seed, "tests": {name: list(places) for name, places in tests.items()},
        "killed": killed, "mutations": len(outcomes), "packages": rows,
        "outcomes": [asdict(replace(one, seconds=round(one.seconds, 1))) for one in outcomes],
        "survivors": [difference(mutation, root) for mutation in survivors],
    }  # fmt: skip


def main() -> int:
    """Parse arguments, run, write; 0 if enough mutations are detected."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--packages", default=",".join(PACKAGES))
    parser.add_argument("--tests", action="append", default=[], help="PACKAGE=PATH[:PATH...]")
    parser.add_argument("-o", "--out", type=Path, default=RESULT)
    asked = parser.parse_args()
    packages = asked.packages.split(",")
    tests: dict[str, Sequence[str]] = {name: TESTS.get(name, (f"tests/{name}",)) for name in packages}
    tests |= {name: places.split(":") for name, places in (one.split("=", 1) for one in asked.tests)}
    chosen = {name: draw(ROOT, name, count, asked.seed) for name, count in shares(asked.count, packages).items()}
    values = report(outcomes := check_all(ROOT, chosen, tests), ROOT, asked.seed, tests)
    asked.out.write_text(json.dumps(values, indent=1) + "\n")
    return int(values["killed"] < LEAST_KILLED * len(outcomes))  # type: ignore[operator]


if __name__ == "__main__":
    sys.exit(main())
