"""Build the documentation site; warnings are errors.

    python website/build.py [-o FOLDER]

The pages of docs/ are copied and completed: navigation, reference of the command line and of the Python API, data of
the table of backbones. mkdocs builds the site, and every link of the result is checked. The site needs no server:
open FOLDER/index.html.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from api_page import page as api_page
from backbone_table import backbone_rows
from check_site import check
from cli_page import page as cli_page
from navigation import navigation
from source import for_site

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "website"


def repository() -> str:
    """Address of the files of the repository, if pyproject.toml has one; else an empty text."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    address = next((urls[name] for name in ("Source", "Repository") if name in urls), "")
    return f"{address.rstrip('/')}/blob/main" if address else ""


def write_source(source: Path) -> None:
    """Copy docs/ and add the generated pages and assets."""
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "docs", source)
    address = repository()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = for_site(page.read_text(encoding="utf-8"), page, ROOT, address)
        (source / page.relative_to(ROOT / "docs")).write_text(text, encoding="utf-8")
    backbones = source / "reference" / "backbones.md"
    backbones.write_text(f"---\nhide: [toc]\n---\n{backbones.read_text(encoding='utf-8')}", encoding="utf-8")
    (source / "reference" / "cli.md").write_text(cli_page(), encoding="utf-8")
    (source / "reference" / "api.md").write_text(api_page(), encoding="utf-8")
    shutil.copytree(ROOT / "website" / "assets", source / "assets", dirs_exist_ok=True)
    rows = json.dumps(backbone_rows(), separators=(",", ":"))
    (source / "assets" / "backbones-data.js").write_text(f"var BACKBONES = {rows};\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=WORK / "site", help="default: build/website/site")
    site = parser.parse_args().out.resolve()
    source, settings = WORK / "source", WORK / "mkdocs.yml"
    write_source(source)
    config = {
        "INHERIT": "../../website/mkdocs.yml",
        "docs_dir": str(source),
        "site_dir": str(site),
        "nav": navigation(source),
    }
    settings.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--clean", "--strict", "--quiet", "-f", str(settings)]
    if subprocess.run(mkdocs, check=False, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}).returncode:
        raise SystemExit("mkdocs reported errors or warnings")
    problems = check(site)
    if problems:
        raise SystemExit("\n".join([*problems, f"{len(problems)} problems in {site}"]))
    print(f"wrote {site / 'index.html'}; all links of {len(list(site.rglob('*.html')))} pages resolve")


if __name__ == "__main__":
    main()
