"""Short functions, and one class for each name; ``benchmarks/structure.py`` counts."""

from pathlib import Path

from structure import measure

SOURCE = Path(__file__).resolve().parents[1] / "src" / "densemble"


def test_functions_are_short_and_class_names_unique() -> None:
    counted = measure(SOURCE)
    assert counted["files"] > 300
    assert counted["long functions"] == {}
    assert counted["class names in several places"] == {}


def test_a_long_function_and_a_repeated_class_are_found(tmp_path: Path) -> None:
    lines = "\n".join(["def long():", '    """Docstring."""', *["    x = 1"] * 41])
    (tmp_path / "a.py").write_text(f"class Twice:\n    pass\n\n\n{lines}\n", encoding="utf-8")
    (tmp_path / "b.py").write_text("class Twice:\n    pass\n", encoding="utf-8")
    counted = measure(tmp_path)
    assert counted["long functions"] == {"a.py:long": 41}
    assert counted["class names in several places"] == {"Twice": ["a.py", "b.py"]}
