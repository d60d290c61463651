"""The error of an optional package that is not installed."""

import pytest

from densemble.errors import UsageError, needs_package


def test_absent_package_names_its_extra() -> None:
    with pytest.raises(UsageError) as raised, needs_package("abacus", "counting", "count"):
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
    expected = "counting needs abacus (No module named 'no_such_package'); install it with pip install"
    assert str(raised.value) == f"{expected} 'densemble[count]'"


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), needs_package("abacus", "counting", "count"):
        raise ZeroDivisionError
