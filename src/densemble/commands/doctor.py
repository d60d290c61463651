"""The command ``doctor``: versions, extras, hardware, caches and free space of this machine."""

import os
import platform
import re
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from densemble.commands.output import print_json, print_table, say
from densemble.commands.shared_options import Json
from densemble.terminal import print_result

PACKAGES = ("densemble", "torch", "torchvision", "timm", "lightning", "torchmetrics", "safetensors", "pillow", "numpy")
DEVELOPMENT = ("dev", "bench", "docs", "audit")
"""Extras that users do not need."""
GIB, MIB = 1 << 30, 1 << 20
LEAST_FREE = 2 * GIB
"""Free space below which ``doctor`` reports a problem: a run of seven members takes about as much."""
VARIABLES = (
    "DENSEMBLE_CACHE_DIR", "DENSEMBLE_WEIGHTS_DIR", "TORCH_HOME", "HF_HOME", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)  # fmt: skip
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][^\s/\\:'\",;)]+)+[/\\]?|~[/\\][^\s:'\",;)]+")


def doctor(
    report: Annotated[
        bool,
        typer.Option("--report", help="Print the facts for a bug report, without paths, user name and host name."),
    ] = False,
    clean: Annotated[
        bool,
        typer.Option("--clean", help="Empty the cache of densemble, except what a running process uses."),
    ] = False,
    json: Json = False,
) -> None:
    """Check this machine: versions, extras, accelerator, caches and free space. Exit code 6 means a problem."""
    freed = _clean() if clean else None
    facts = _facts() | ({} if freed is None else {"freed": freed})
    if json:
        print_json(facts)
    elif report:
        print_result(_report(facts))
    else:
        for title, rows in _tables(facts):
            print_result(title)
            print_table(["", ""], [[f"  {name}", value] for name, value in rows], header=False)
        for problem in facts["problems"]:
            print_result(f"problem: {problem}")
        print_result("ok" if facts["ok"] else f"{len(facts['problems'])} problems")
    if facts["problems"]:
        raise typer.Exit(6)


def _clean() -> int:
    """Empty the cache of densemble; return the freed bytes."""
    from densemble.storage.user_cache import clean_caches, user_cache

    freed = sum(clean_caches().values())
    say(f"removed {freed / MIB:,.1f} MiB from {user_cache()}")
    return freed


def _facts() -> dict[str, Any]:
    """Versions, hardware and settings of the machine, and the problems with them."""
    import torch

    from densemble.nets.local_weights import WEIGHTS_DIR_VARIABLE
    from densemble.storage.user_cache import bytes_in
    from densemble.training.fit import bf16_is_fast
    from densemble.versions import installed_version

    weights = os.environ.get(WEIGHTS_DIR_VARIABLE)
    versions = {name: installed_version(name) for name in PACKAGES}
    count, problem = _backbones()
    cuda, cuda_problems = _cuda()
    problems = [f"{name} is not installed; reinstall densemble" for name in PACKAGES if not versions[name]]
    problems += ([] if problem is None else [problem]) + cuda_problems
    if weights and not Path(weights).is_dir():
        problems.append(
            f"${WEIGHTS_DIR_VARIABLE} is '{weights}', which is not a folder; create it or unset the variable"
        )
    places = {name: (place, shutil.disk_usage(place).free) for name, place in _places().items()}
    few = [(place, free) for place, free in places.values() if free < LEAST_FREE]
    problems += [f"only {free / GIB:.1f} GiB are free in '{place}'; free some space" for place, free in few]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "versions": versions,
        "extras": extras(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": _memory(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": cuda,
        "bf16": bf16_is_fast(),
        "backbones": count,
        "weights_dir": weights,
        "caches": {name: {"path": str(path), "bytes": bytes_in(path)} for name, path in _caches(weights).items()},
        "free": {name: free for name, (_, free) in places.items()},
        "variables": [name for name in VARIABLES if name in os.environ],
        "ok": not problems,
        "problems": problems,
    }


def _backbones() -> tuple[int, str | None]:
    """Return the number of backbones, and why they cannot be counted."""
    try:
        from densemble.nets.backbones import backbones

        return len(backbones()), None
    except Exception as error:  # a torchvision built for another torch fails on import with various errors
        remedy = "install a matching pair, see constraints.txt"
        return 0, f"torchvision or timm cannot be imported ({error}); {remedy}"


def _places() -> dict[str, Path]:
    """Return the folders to which densemble writes, or their nearest parents that exist."""
    from densemble.storage.user_cache import user_cache

    places = {"here": Path.cwd(), "cache": user_cache(), "temporary": Path(tempfile.gettempdir())}
    return {name: next(part for part in (path, *path.parents) if part.exists()) for name, path in places.items()}


def extras() -> dict[str, dict[str, Any]]:
    """Return for each extra its missing packages, and the command that installs them; empty without metadata."""
    from importlib.metadata import PackageNotFoundError, metadata, requires

    from densemble.versions import installed_version

    try:
        names, lines = metadata("densemble").get_all("Provides-Extra") or [], requires("densemble") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, dict[str, Any]] = {}
    for extra in sorted(name for name in names if name not in DEVELOPMENT):
        packages = [_package(line) for line in lines if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", line)]
        missing = [name for name in packages if installed_version(name) is None]
        found[extra] = {"missing": missing, "install": f"pip install 'densemble[{extra}]'" if missing else None}
    return found


def _package(requirement: str) -> str:
    """Return the name at the start of a requirement such as ``onnx>=1.18; extra == 'onnx'``."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return match[0]


def _cuda() -> tuple[dict[str, Any], list[str]]:
    """Return the CUDA version of PyTorch, the NVIDIA driver and the devices, ``None`` for what is absent; problems."""
    import torch

    driver = None
    program = shutil.which("nvidia-smi")
    if program is not None:
        with suppress(OSError, subprocess.SubprocessError):
            query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
            shown = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
            driver = next(iter(shown.split()), None)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = [torch.cuda.get_device_properties(number) for number in range(count)]
    problems = []
    if driver and torch.version.cuda and not devices:
        problems.append(
            f"the NVIDIA driver {driver} is installed, but PyTorch for CUDA {torch.version.cuda} finds no GPU; "
            "update the driver, or check CUDA_VISIBLE_DEVICES"
        )
    return {
        "toolkit": torch.version.cuda,
        "driver": driver,
        "devices": [{"name": device.name, "bytes": device.total_memory} for device in devices],
    }, problems


def _memory() -> int | None:
    """Return the memory of the machine in bytes; ``None`` where the system does not tell."""
    with suppress(AttributeError, ValueError, OSError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def _caches(weights: str | None) -> dict[str, Path]:
    """Return the folders that grow with use, by their content."""
    import torch

    from densemble.storage.hub_download import hub_cache
    from densemble.storage.user_cache import user_cache

    folders = {
        "densemble": user_cache(),
        "torchvision weights": Path(torch.hub.get_dir()) / "checkpoints",
        "Hugging Face": hub_cache(),
    }
    return folders | ({"weights_dir": Path(weights).expanduser()} if weights else {})


def _tables(facts: dict[str, Any], private: bool = True) -> list[tuple[str, list[list[str]]]]:
    """Return the tables of the facts with their titles; without ``private``, no path is in them."""
    cuda, versions = facts["cuda"], facts["versions"]
    devices = ", ".join(f"{device['name']} ({device['bytes'] / GIB:.0f} GiB)" for device in cuda["devices"])
    machine = [
        ["system", facts["system"]],
        ["python", facts["python"]],
        ["cpus", f"{facts['cpus']}, PyTorch uses {facts['threads']} threads"],
        ["memory", f"{facts['memory'] / GIB:.1f} GiB" if facts["memory"] else "unknown"],
        ["accelerator", devices or "none"],
        ["CUDA of PyTorch", cuda["toolkit"] or "none"],
        ["NVIDIA driver", cuda["driver"] or "none"],
        ["bf16 in hardware", "yes" if facts["bf16"] else "no"],
        ["backbones", str(facts["backbones"])],
        ["variables", ", ".join(facts["variables"]) or "none"],
    ]
    rows = [[name, number or "missing"] for name, number in versions.items()]
    more = [[name, f"not installed: {row['install']}" if row["missing"] else "installed"]
            for name, row in facts["extras"].items()]  # fmt: skip
    caches = []
    for name, cache in facts["caches"].items():
        amount = f"{cache['bytes'] / MIB:,.0f} MiB"
        caches.append([name, f"{amount} in {cache['path']}" if private else amount])
    free = [[name, f"{amount / GIB:.1f} GiB"] for name, amount in facts["free"].items()]
    return [("machine", machine), ("versions", rows), ("extras", more), ("caches", caches), ("free space", free)]


def _report(facts: dict[str, Any]) -> str:
    """Return the facts as Markdown without private data: no path, no user name, no host name."""
    lines = ["```text"]
    for title, rows in _tables(facts, private=False):
        width = max((len(name) for name, _ in rows), default=0)
        lines += [title, *(f"  {name.ljust(width)}  {value}" for name, value in rows)]
    lines += [f"problem: {problem}" for problem in facts["problems"]] or ["no problems"]
    return without_private_data("\n".join([*lines, "```"]))


def without_private_data(text: str) -> str:
    """Replace paths by PATH, the name of the user by USER and that of the host by HOST."""
    with suppress(RuntimeError):  # there is no home folder
        text = text.replace(str(Path.home()), "~") if len(str(Path.home())) > 1 else text
    text = _PATH.sub("PATH", text)
    for name, word in ((_user(), "USER"), (platform.node(), "HOST"), (platform.node().partition(".")[0], "HOST")):
        if name:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", word, text)
    return text


def _user() -> str:
    import getpass

    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return ""
