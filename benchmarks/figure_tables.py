"""Tables in README and docs that are generated from result files; ``figures.py`` checks and rewrites them."""

from collections.abc import Callable

from figure_values import Results
from speed_tables import table

SETS = {"osie": "saliency-osie", "camvid": "segmentation-camvid"}


def coverage(results: Results) -> str:
    """Number of backbones in the sweep."""
    file = "../../src/densemble/storage/coverage.jsonl"
    total = results.show(file, "*", ",d", "count")
    good = results.show(file, "* > ok=true", ",d", "count")
    return (
        f"The last sweep built {total} backbones of torchvision and timm; {good} of them can be cut and give a map of "
        "exactly the requested size ([list](docs/reference/backbones.md))."
    )


def selection(results: Results) -> str:
    """Score of each selection: made on one half of the validation images, scored on the other."""
    file, rows = "choosing.json", []
    ways = ("best single", "mean of all", "five by hand", "best k", "greedy")
    known = [way for way in ways if way in results.read(file)["sets"]["osie"]["blocks"][0]]
    for key, title in SETS.items():
        metric = results.values(file, f"sets > {key} > metric")[0]
        images = results.show(file, f"sets > {key} > pictures", "d")
        paths = [f"sets > {key} > blocks > * > {way} > {metric} > value" for way in known]
        rows.append([title, images, metric, *(results.show(file, path, ".3f", "mean") for path in paths)])
    return table(["data", "validation images", "metric", *known], rows)


def peers(results: Results) -> str:
    """Working combinations of backbone and head of each system."""
    file, sizes = "compare_peers.json", ("360x480", "225x301")
    names = {
        "densemble": "densemble's heads",
        "densemble, decoders of smp": "smp's decoders on densemble's backbones",
        "smp": "smp, images not padded",
        "smp, padded": "smp, images padded to multiples of 32",
        "fastai": "fastai, DynamicUnet",
    }
    known = {row["system"] for row in results.read(file)["summary"]}
    rows = []
    for system, name in names.items():
        if system in known:
            lines = [f"summary > system={system} > size={size}" for size in sizes]
            heads = results.show(file, f"{lines[0]} > heads", "d")
            rows.append([name, heads, *(_share(results, file, line, "total") for line in lines)])
    missing = [name for system, name in names.items() if system not in known]
    if not any(row["system"] == "densemble" and row["head"] == "fpn" for row in results.read(file)["rows"]):
        missing.insert(0, "densemble's default head `fpn`")
    return table(["system", "heads", *sizes], rows) + _not_measured(missing)


def _not_measured(missing: list[str]) -> str:
    """Rows that the result file does not contain yet."""
    return f"\n\nNot measured yet: {'; '.join(missing)}." if missing else ""


def _share(results: Results, file: str, path: str, total: str) -> str:
    """``WORKS of TOTAL`` of one entry."""
    works = "work" if total == "combinations" else "works"
    return " of ".join(results.show(file, f"{path} > {key}", ",d") for key in (works, total))


def every_head(results: Results) -> str:
    """Working combinations of head, backbone and size."""
    file, rows = "every_head.json", []
    for kind, name in (("own heads", "densemble's heads"), ("decoders of smp", "decoders of smp")):
        path = f"of each kind > {kind}"
        rows.append([name, results.show(file, f"{path} > heads", "d"), _share(results, file, path, "combinations")])
    has_default = any(name.startswith("fpn x ") for name in results.read(file)["working sizes of each"])
    missing = [] if has_default else ["the default head `fpn`"]
    return table(["", "heads", "combinations that work"], rows) + _not_measured(missing)


def loader_share(results: Results) -> str:
    """Share of the training time spent waiting for images."""
    file, augmentations = "loader_share.json", ("none", "light", "strong")
    rows = []
    for name in dict.fromkeys(row["set"] for row in results.read(file)["rows"]):
        paths = [f"rows > set={name} > augment={augment} > shares > *" for augment in augmentations]
        rows.append([name, *(results.show(file, path, ".2%", "mean") for path in paths)])
    return table(["", *augmentations], rows)


def beside_smp(results: Results) -> str:
    """Members and ensemble beside segmentation-models-pytorch's FPN."""
    file = "camvid_beside_smp.json"
    named = {
        "EfficientNet-Lite0, head `fpn`": "ours > members > tf_efficientnet_lite0",
        "EfficientNet-Lite0, smp's FPN": "smp > FPN",
        "EfficientNet-Lite1, head `fpn`": "ours > members > tf_efficientnet_lite1",
        "greedy ensemble of the two with `fpn`": "ours > ensemble",
        "baseline: mean map": "ours > baselines > mean map",
    }
    rows = []
    for name, path in named.items():
        scores = path if "baselines" in path else f"{path} > val"
        cells = [results.show(file, f"{scores} > {key}", ".4f") for key in ("miou", "pixel_accuracy", "ece")]
        is_one_network = "members" in path or "smp" in path
        size = f"{results.show(file, f'{path} > parameters', '0.000001*.2f')} M" if is_one_network else ""
        rows.append([name, *cells, size])
    return table(["", "miou", "pixel_accuracy", "ece", "parameters"], rows)


def ablation_osie(results: Results) -> str:
    return _ablation(results, "saliency-osie", "cc")


def ablation_camvid(results: Results) -> str:
    return _ablation(results, "segmentation-camvid", "miou")


def _ablation(results: Results, name: str, metric: str) -> str:
    """Head by stride."""
    file, strides = "ablation_cut_head.json", (4, 8, 16, 32)
    every = f"rows > set={name} > backbone=timm/tf_efficientnet_lite0"
    rows = []
    for head in ("upsample", "deconv", "subpixel", "aspp", "ppm", "skip"):
        paths = [f"{every} > head={head} > stride={stride} > {metric}" for stride in strides]
        rows.append([head, *(results.show(file, path, ".3f") for path in paths)])
    return table([f"{name}, {metric}", *(f"stride {stride}" for stride in strides)], rows)


def rewrite(results: Results) -> str:
    """All seven members, plain and rewritten."""
    file = "rewrite.json"
    forms = {
        "plain": "plain",
        "folded": "folded",
        "folded, third identity wherever it saves work": "fewer operations",
    }
    rows = []
    for head in ("skip", "upsample"):
        for name, form in forms.items():
            path = f"totals > {head} > {form}"
            macs = results.show(file, f"{path} > macs", "1e-9*.2f")
            speed = results.show(file, [f"totals > {head} > plain > seconds", f"{path} > seconds"], ".2f", "ratio")
            rows.append([f"head `{head}`, {name}", macs, speed])
    return table(["all seven", "GMACs", "times as fast as plain"], rows)


def rewrite_members(results: Results) -> str:
    """The third identity, member by member."""
    file, rows = "rewrite.json", []
    for member in dict.fromkeys(row["member"] for row in results.read(file)["rows"]):
        path = f"rows > member={member} > head=skip"
        macs = [results.show(file, f"{path} > macs > {form}", "1e-6*.0f") for form in ("plain", "fewer operations")]
        times = [f"{path} > median_seconds > {form}" for form in ("fewer operations", "folded")]
        rows.append([member, *macs, results.show(file, times, ".2f", "ratio")])
    return table(["head `skip`, MMACs", "plain", "third identity", "time over folded alone"], rows)


def ensembles_cost(results: Results) -> str:
    """Time and memory of the same ensemble in four libraries."""
    file = "ensembles_beside_others.json"
    names = {
        "members alone": "members alone",
        "torch-uncertainty": "torch-uncertainty",
        "pytorch-toolbelt": "pytorch-toolbelt",
        "MONAI": "MONAI",
        "densemble, ens(x)": "densemble, `ens(x)`: the mean",
        "densemble, ens.predict(x)": "densemble, `ens.predict(x)`: the mean, the label and five maps of uncertainty",
    }
    rows = []
    for way, name in names.items():
        cells = []
        for part, form in (("with members", "1000*.0f"), ("combination", "1000*.1f")):
            cells.append(results.show(file, f"{part} > median seconds > {way}", form) + " ms")
            cells.append(results.show(file, f"{part} > ratio to ours > {way}", ".2f"))
        known = way in results.read(file)["peak in maps"]
        cells += [results.show(file, f"peak in maps > {way} > {count}", ".1f") if known else "" for count in (3, 12)]
        rows.append([name, *cells])
    columns = ["with members", "over `ens(x)`", "combination", "over `ens(x)`", "most memory, 3 members", "12 members"]
    return table(["", *columns], rows)


def structure(results: Results) -> str:
    """Size and shape of the source before and after decision 0012, and now."""
    file = "structure.json"
    rows = []
    for key in results.read(file)["after"]:
        rows.append([key, *(results.show(file, f"{tree} > {key}", ",d") for tree in ("before", "after", "now"))])
    return table(["", "before", "after", "now"], rows)


def distill_drawn(results: Results) -> str:
    """Scores on drawn scenes: the ensemble, its best member, and students with different settings."""
    file, rows = "distill.json", []
    for name in results.read(file)["drawn"]["means"]:
        path = f"drawn > means > {name}"
        each = [results.show(file, f"drawn > seeds > * > {name} > miou", ".3f", end) for end in ("min", "max")]
        numbers = [results.show(file, f"{path} > {metric}", ".3f") for metric in ("miou", "nll", "ece")]
        rows.append([name, numbers[0], " to ".join(each), *numbers[1:]])
    return table(["model", "miou", "lowest to highest", "nll", "ece"], rows)


def distill_runs(results: Results) -> str:
    """Scores and times of distilled ensembles on real data."""
    file, rows = "distill.json", []
    for data, report in results.read(file).items():
        if data == "drawn":
            continue
        for name in report["models"]:
            path = f"{data} > models > {name}"
            low, high = (results.show(file, f"{path} > score > {end}", ".3f") for end in ("low", "high"))
            score = f"{results.show(file, f'{path} > score > value', '.3f')} ({low} to {high})"
            times = [results.show(file, f"{path} > milliseconds", ".0f"),
                     results.show(file, f"{data} > times_as_fast > {name}", ".1f")]  # fmt: skip
            rows.append([data, name, report["metric"], score, *times])
    return table(["data", "model", "metric", "score", "ms", "times as fast"], rows)


def install_size(results: Results) -> str:
    """Distributions and MiB of libraries beside torch and torchvision alone."""
    file, rows = "install_and_start.json", []
    for name in results.read(file)["size"]:
        cells = [results.show(file, f"size > {name} > {key}", form) for key, form in
                 (("distributions", "d"), ("mebibytes", ",.0f"))]  # fmt: skip
        if "added mebibytes" in results.read(file)["size"][name]:
            cells += [results.show(file, f"size > {name} > added {key}", form) for key, form in
                      (("distributions", "d"), ("mebibytes", ".0f"))]  # fmt: skip
        rows.append([name, *cells, *[""] * (4 - len(cells))])
    return table(["environment", "distributions", "MiB", "added distributions", "added MiB"], rows)


def install_largest(results: Results) -> str:
    """Largest distributions that densemble adds to torch and torchvision."""
    file = "install_and_start.json"
    size = results.read(file)["size"]
    path = "size > densemble > mebibytes by distribution"
    base = size["torch and torchvision"]["versions"]
    added = [name for name in size["densemble"]["mebibytes by distribution"] if name not in base]
    rows = [[name, results.show(file, f"{path} > {name}", ".0f")] for name in added[:8]]
    return table(["distribution", "MiB"], rows)


def start(results: Results) -> str:
    """Wall and CPU time of the first steps."""
    file, rows = "install_and_start.json", []
    for name in results.read(file)["start"]["rows"]:
        path = f"start > rows > {name}"
        rows.append([f"`{name}`", *(results.show(file, f"{path} > {kind}", ".2f") for kind in ("wall", "cpu"))])
    return table(["new process", "seconds", "seconds of CPU"], rows)


BLOCKS: dict[str, Callable[[Results], str]] = {
    "coverage": coverage,
    "selection": selection,
    "peers": peers,
    "every-head": every_head,
    "loader-share": loader_share,
    "beside-smp": beside_smp,
    "ablation-osie": ablation_osie,
    "ablation-camvid": ablation_camvid,
    "rewrite": rewrite,
    "rewrite-members": rewrite_members,
    "ensembles-cost": ensembles_cost,
    "structure": structure,
    "distill-drawn": distill_drawn,
    "distill-runs": distill_runs,
    "install-size": install_size,
    "install-largest": install_largest,
    "start": start,
}
