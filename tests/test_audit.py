"""benchmarks/audit.py: which licences pass, and which packages are looked at."""

import audit
import pytest


@pytest.mark.parametrize(
    ("name", "text", "passes"),
    [
        ("numpy", "BSD-3-Clause AND 0BSD AND MIT", True),
        ("tqdm", "MPL-2.0 AND MIT", True),
        ("dual", "GPL-2.0-or-later OR MIT", True),  # the user may choose
        ("both", "MIT AND GPL-3.0-only", False),
        ("runtime", "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1", True),
        ("readline", "GNU General Public License v3 (GPLv3)", False),
        ("server", "AGPL-3.0-only", False),
        ("unknown", "", False),
        ("nvidia-cudnn-cu13", "LicenseRef-NVIDIA-Proprietary", True),
    ],
)
def test_licences(name: str, text: str, passes: bool) -> None:
    assert (audit.licence_problem(name, text) is None) == passes


def test_packages_of_users_are_looked_at_and_those_of_developers_are_not() -> None:
    packages = audit.needed("densemble")
    assert {"torch", "pillow", "openvino"} <= set(packages)  # openvino is an extra
    assert not {"ruff", "pytest", "mkdocs"} & set(packages)
