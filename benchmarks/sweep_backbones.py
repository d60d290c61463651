"""Check every backbone: where it can be cut, what is kept, and whether the map has the requested size.

Networks are built and run on the meta device, which computes shapes but no numbers (--real computes numbers). Each line
of the result is one backbone. Shards can run in parallel. A shard continues where it stopped.

    python benchmarks/sweep_backbones.py -o SWEEP [--shard 0/2] [--pattern 'timm/res*'] [--real]
    python benchmarks/sweep_backbones.py -o SWEEP --publish     writes the table that `densemble backbones` shows
                                                                and docs/reference/backbones.md
"""

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from backbones_page import PAGE, STRIDES, page

import densemble as de
from densemble.errors import CutError, DensembleError
from densemble.nets.automatic_cut import Limits, choose
from densemble.nets.cut import Cut
from densemble.nets.cuts import measured
from densemble.shapes import Size, format_size
from densemble.storage.coverage import COVERAGE

SIZE = (240, 320)
ASKED: tuple[tuple[Size, Size | None], ...] = (((240, 320), (48, 64)), ((225, 301), None), ((97, 131), (48, 64)))


def automatic(known: tuple[Cut, ...], name: str, stride: int) -> Cut | None:
    """The automatic cut with a stride of at most ``stride``."""
    try:
        return choose(known, "auto", Limits(max_stride=stride), name)
    except CutError:
        return None


def row(name: str, device: str) -> dict[str, Any]:
    """Facts about one backbone, or the reason why it cannot be cut."""
    started = time.perf_counter()
    try:
        known = measured(name, SIZE)
        usable = [cut for cut in known.cuts if cut.separates]
        if not usable:
            de.cuts(name, SIZE)
        found = {stride: automatic(known.cuts, name, stride) for stride in STRIDES}
        deepest = usable[-1]
        result = {
            "name": name,
            "ok": True,
            "nodes": len(usable),
            "kind": usable[-1].kind,
            "sizes": str(known.rule),
            "parameters": known.parameters,
            "macs": known.macs,
            "cuts": {f"1/{stride}": describe(cut) for stride, cut in found.items() if cut is not None},
            "deepest": describe(deepest),
            "outputs": outputs_anywhere(name, device),
        }
    except DensembleError as error:
        result = {"name": name, "ok": False, "reason": str(error)}
    except Exception as error:  # the sweep continues and reports the error
        result = {
            "name": name,
            "ok": False,
            "reason": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}",
        }
    return {**result, "seconds": round(time.perf_counter() - started, 2)}


def describe(cut: Cut) -> dict[str, Any]:
    return {
        "node": cut.node,
        "channels": cut.channels,
        "size": format_size(cut.size),
        "parameters": cut.parameters,
        "macs": cut.macs,
    }


def outputs_anywhere(name: str, device: str) -> list[str]:
    """The outputs, on real numbers if a network reads values, which the meta device does not have."""
    try:
        return outputs(name, device)
    except RuntimeError as error:
        if "meta" not in str(error):
            raise
        return outputs(name, "cpu")


def outputs(name: str, device: str, sizes: tuple[tuple[Size, Size | None], ...] = ASKED) -> list[str]:
    """Sizes of the maps for (input, requested) sizes, with the default cut and head.

    Raises:
        ValueError: a size is not the requested one, or a parameter is not used.
    """
    given = []
    for out_size in dict.fromkeys(asked for _, asked in sizes):
        with torch.device(device):
            model = de.DenseModel(name, weights=None, out_size=out_size, out_channels=2).eval()
        for size in (size for size, asked in sizes if asked == out_size):
            logits = model(torch.rand(2, 3, *size, device=device))
            wanted = (2, 2, *(out_size or size))
            if tuple(logits.shape) != wanted:
                raise ValueError(f"{format_size(size)} gave {tuple(logits.shape)} instead of {wanted}")
            if device != "meta" and not torch.isfinite(logits).all():
                raise ValueError(f"{format_size(size)} gave values that are not finite")
            given.append(f"{format_size(size)} -> {format_size(out_size or size)}")
        logits.sum().backward()
        unused = [key for key, p in model.named_parameters() if p.grad is None]
        if unused:
            raise ValueError(
                f"the cut network holds {len(unused)} parameters that its output does not use: {unused[:3]}"
            )
    return given


def sweep(folder: Path, names: list[str], shard: tuple[int, int], device: str) -> None:
    """Write one line per backbone that no shard has written yet."""
    folder.mkdir(parents=True, exist_ok=True)
    done = {entry["name"] for entry in read(folder)}
    mine = [name for i, name in enumerate(names) if i % shard[1] == shard[0] and name not in done]
    path = folder / f"shard-{shard[0]}-of-{shard[1]}.jsonl"
    cut_off = path.is_file() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" if cut_off else "")
        for number, name in enumerate(mine, 1):
            entry = row(name, device)
            file.write(json.dumps(entry) + "\n")
            file.flush()
            state = "ok" if entry["ok"] else f"NOT: {entry['reason']}"
            print(f"{number}/{len(mine)} {name} {entry['seconds']:.1f} s {state}", flush=True)


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines of all shards, without a last line that was interrupted."""
    entries = []
    for path in sorted(folder.glob("shard-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
    return sorted(entries, key=lambda entry: str(entry["name"]))


def publish(folder: Path, real: bool = False) -> None:
    """Write the table of the package and the page of the documentation."""
    entries = read(folder)
    missing = sorted(set(de.backbones()) - {entry["name"] for entry in entries})
    if missing:
        raise SystemExit(f"{len(missing)} backbones are not swept yet, first {missing[0]}; sweep them, then publish")
    kept = [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]
    COVERAGE.write_text("".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in kept), encoding="utf-8")
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm"))
    PAGE.write_text(page(kept, versions, real), encoding="utf-8")
    print(f"wrote {COVERAGE} and {PAGE}")


def parse_shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    return int(number), int(count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the shards' results")
    parser.add_argument("--shard", type=parse_shard, default=(0, 1), help="this shard of how many: 0/2")
    parser.add_argument("--pattern", default="*", help="backbones to sweep")
    parser.add_argument("--real", action="store_true", help="compute numbers too, not only shapes")
    parser.add_argument("--publish", action="store_true")
    arguments = parser.parse_args()
    if arguments.publish:
        publish(arguments.out, arguments.real)
    else:
        sweep(arguments.out, de.backbones(arguments.pattern), arguments.shard, "cpu" if arguments.real else "meta")


if __name__ == "__main__":
    main()
