"""The mutation check on a toy package: which code it changes, which faults its tests detect, what it skips."""

import ast
from pathlib import Path

import pytest
from mutation_kinds import Mutation, mutations_of
from mutations import Sandbox, draw, shares

SOURCE = '''"""A toy: 1 + 1."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    LIMIT = 3


def total(a: int, b: "dict[str, int] | int" = 2) -> int:
    """The sum of a < b."""
    if a < 0:
        raise ValueError(f"{a + 1} is not above {0 + 1}")
    return a + b


def largest(a: int) -> int:
    return max(a, a)


def countdown(n: int) -> int:
    while n != 0:
        n = n - 1
    return n
'''
TEST = """from toy.sums.pairs import countdown, largest, total


def test_total():
    assert total(2, 3) == 5


def test_largest():
    assert largest(4) == 4 and countdown(3) == 0
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    for file, text in (("src/toy/sums/pairs.py", SOURCE), ("tests/sums/test_pairs.py", TEST)):
        (tmp_path / "toy" / file).parent.mkdir(parents=True)
        (tmp_path / "toy" / file).write_text(text)
    return tmp_path / "toy"


def one(kind: str, before: str) -> Mutation:
    (found,) = (m for m in mutations_of(SOURCE, "src/toy/sums/pairs.py") if (m.kind, m.before) == (kind, before))
    return found


@pytest.mark.parametrize(
    ("kind", "before", "after", "outcome"),
    [
        ("arithmetic", "a + b", "(a - b)", "killed"),
        ("min/max", "max(a, a)", "(min(a, a))", "survived"),  # equivalent
        pytest.param("border", "a < 0", "(a <= 0)", "survived", marks=pytest.mark.slow),  # no test of 0
        pytest.param("comparison", "a < 0", "(a >= 0)", "killed", marks=pytest.mark.slow),
        pytest.param("arithmetic", "n - 1", "(n + 1)", "timeout", marks=pytest.mark.slow),
    ],
)
def test_what_the_tests_notice(kind: str, before: str, after: str, outcome: str, toy: Path, tmp_path: Path) -> None:
    mutation = one(kind, before)
    assert mutation.after == after
    (tmp_path / "copy").mkdir()
    sandbox = Sandbox(toy, tmp_path / "copy")
    found = sandbox.check(mutation, ("tests/sums",), timeout=3 if outcome == "timeout" else 200)
    assert found.outcome == outcome
    assert (found.by is not None) == (outcome == "killed")
    copied = (sandbox.tree / mutation.file).read_text()
    assert copied == (toy / mutation.file).read_text() == SOURCE


def test_texts_annotations_and_errors_are_left_alone() -> None:
    found = mutations_of(SOURCE, "f.py")
    assert {m.line for m in found} == {9, 11, 13, 17, 21, 22}  # none of the docstrings, TYPE_CHECKING, raise
    assert [m.before for m in found if m.line == 9] == ["2"]  # of the signature only the default
    for mutation in found:
        changed = mutation.applied(SOURCE)
        assert changed != SOURCE and ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))


@pytest.mark.parametrize(
    ("source", "kind", "changed"),
    [
        ("x = a <= b < c", "border", {"x = (a < b < c)", "x = (a <= b <= c)"}),
        ("x = f(a, b, c)", "arguments", {"x = (f(b, a, c))"}),
        ("x = torch.any(y)", "min/max", {"x = (torch.all(y))"}),
        ("x = True", "true/false", {"x = False"}),
        ("x = y[2:]", "off by one", {"x = y[3:]"}),
        ("x = 0.5 + 1e-12", "constant", {"x = 1.0 + 1e-12"}),
        ("x += y", "arithmetic", {"x -= y"}),
        ("x = 'a' + y", "arithmetic", set()),
        ("x = a and b", "and/or", {"x = (a or b)"}),
        ("x = a if b else c", "condition", {"x = (a if not b else c)"}),
        ("x = not a", "condition", {"x = (a)"}),
        ("if a.b: pass", "branch", {"if (not a.b): pass"}),
        ("def f(): return a == b", "return", {"def f(): return not a == b"}),
        ("x = 'ä' * 2 // n", "arithmetic", {"x = ('ä' * 2 * n)"}),
    ],
)
def test_each_kind(source: str, kind: str, changed: set[str]) -> None:
    assert {m.applied(source) for m in mutations_of(source, "f.py") if m.kind == kind} == changed


def test_mutations_are_drawn_with_a_seed_and_evenly(toy: Path) -> None:
    first = draw(toy, "sums", 6, 0, source="src/toy")
    assert first == draw(toy, "sums", 6, 0, source="src/toy") != draw(toy, "sums", 6, 1, source="src/toy")
    assert len({m.kind for m in first}) >= 4 and len({m.start for m in first}) == 6
    assert shares(60, ["a", "b", "c", "d"]) == dict.fromkeys("abcd", 15)
    assert shares(5, ["a", "b"]) == {"a": 3, "b": 2}
