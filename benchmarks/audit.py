"""Check the packages that densemble needs: known vulnerabilities with pip-audit, and licences.

``make audit`` runs it. It prints one line for each package with a problem and a summary, and fails if there is a
problem. Where the advisory service cannot be reached, it says so and checks the licences alone.
"""

import json
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

DEVELOPMENT = ("dev", "bench", "docs", "audit")
"""Extras that users do not install."""
PERMISSIVE = re.compile(
    r"\b(MIT|(Free)?BSD|Apache|ISC|PSF|Python Software Foundation|HPND|Historical Permission|MPL|Mozilla|Zlib|0BSD|CC0|"
    r"Unlicense|Public Domain|CNRI)\b",
    re.IGNORECASE,
)
COPYLEFT = re.compile(r"\b(A?GPL|General Public)", re.IGNORECASE)
PROPRIETARY = re.compile(r"^(nvidia-|cuda-)")
"""CUDA libraries, which the CUDA build of torch installs under NVIDIA's terms; densemble does not distribute them."""


def needed(name: str) -> dict[str, Distribution]:
    """Return the installed distributions that a package and its user extras need, by normalized name."""
    found: dict[str, Distribution] = {}
    root = distribution(name)
    extras = [extra for extra in root.metadata.get_all("Provides-Extra") or [] if extra not in DEVELOPMENT]
    waiting = [(root, tuple(extras))]
    while waiting:
        holder, wanted = waiting.pop()
        for line in holder.requires or []:
            requirement = Requirement(line)
            marker = requirement.marker
            if marker and not any(marker.evaluate({"extra": extra}) for extra in (*wanted, "")):
                continue
            key = normalized(requirement.name)
            try:
                package = distribution(requirement.name)
            except PackageNotFoundError:
                continue  # an extra that is not installed here
            if key not in found and key != name:
                found[key] = package
                waiting.append((package, tuple(requirement.extras)))
    return found


def normalized(name: str) -> str:
    """Return the name of a package as in the index: lower case, hyphens."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(package: Distribution) -> str:
    """Return the licence in the metadata of a package, shortened; empty if it names none."""
    metadata = package.metadata
    classifiers = [
        text.split(" :: ")[-1] for text in metadata.get_all("Classifier") or [] if text.startswith("License")
    ]
    texts = [metadata.get("License-Expression") or "", *classifiers, (metadata.get("License") or "").strip()]
    return next((text[:200] for text in texts if text and text != "OSI Approved"), "")


def licence_problem(name: str, text: str) -> str | None:
    """Return what is wrong with a licence, ``None`` for a permissive one or one of several to choose from."""
    if PROPRIETARY.match(name):
        return None
    for part in re.split(r"\bAND\b|,", text):
        if COPYLEFT.search(part) and not PERMISSIVE.search(part) and "exception" not in part:
            return f"copyleft licence: {text}"
    return None if PERMISSIVE.search(text) else f"no known licence: {text or 'none in the metadata'}"


def vulnerabilities(names: set[str]) -> tuple[list[str], str | None]:
    """Return the known vulnerabilities of the installed packages, and why they could not be asked for."""
    command = [sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--local"]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or ["pip-audit gave no result"])[-1]
    packages = [package for package in packages if normalized(package["name"]) in names]
    asked = [package for package in packages if "vulns" in package]
    problems = [
        f"{package['name']} {package['version']}: {entry['id']}, fixed in {', '.join(entry['fix_versions']) or 'none'}"
        for package in asked
        for entry in package["vulns"]
    ]
    missing = len(packages) - len(asked)
    return problems, f"the advisory service answered for {len(asked)} of {len(packages)} packages" if missing else None


def main() -> int:
    """Print the problems and a summary; return the exit code."""
    packages = needed("densemble")
    problems = [
        f"{name} {package.version}: {problem}"
        for name, package in sorted(packages.items())
        if (problem := licence_problem(name, licence(package)))
    ]
    known, unanswered = vulnerabilities(set(packages))
    for problem in (*problems, *known):
        print(problem)
    print(f"{len(packages)} packages: {len(problems)} with a problematic licence, {len(known)} known vulnerabilities")
    if unanswered:
        print(f"vulnerabilities not or only partly checked: {unanswered}")
    return 1 if problems or known else 0


if __name__ == "__main__":
    sys.exit(main())
