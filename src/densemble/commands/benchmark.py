"""The command ``benchmark``: time an artifact, compared with a naive loop and with the limits of the machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.named_values import BACKENDS, PRECISIONS, completed, listed
from densemble.commands.output import print_json, print_table, say
from densemble.commands.shared_options import ArtifactPath, Device, Function, Json, MinMembers, Set, Split
from densemble.terminal import print_result

if TYPE_CHECKING:
    from torch import Tensor

    from densemble.data.folder import FolderData
    from densemble.ensemble.cascade import Policy
    from densemble.ensemble.ensemble import Ensemble
    from densemble.evaluation.benchmark.measure_ensemble import Modes
    from densemble.shapes import Size

GIGA = 1e9


def benchmark(
    artifact: ArtifactPath,
    size: Annotated[str, typer.Option(help="Image size, HEIGHTxWIDTH.")] = "240x320",
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 1,
    backend: Annotated[
        str, typer.Option(autocompletion=completed(BACKENDS), help=f"Backend: {listed(BACKENDS)}.")
    ] = "auto",
    precision: Annotated[
        str,
        typer.Option(autocompletion=completed(PRECISIONS), help=f"Lowest permitted precision: {listed(PRECISIONS)}."),
    ] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Timed rounds of each variant; medians are shown.")] = 9,
    seconds: Annotated[
        float, typer.Option(min=0, help="Time for all rounds together; no further round begins after it.")
    ] = 60,
    data: Annotated[Path | None, typer.Option(help="Data set to score the variants on.")] = None,
    split: Split = None,
    max_images: Annotated[
        int | None, typer.Option("--images", "--pictures", min=1, help="Score only this many images. Default: all.")
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="Also measure a cascade that keeps this share of the score.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Also measure a cascade that takes this share of the cost.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of threads. Default: that of PyTorch.")] = None,
    device: Device = "auto",
    function: Function = None,
    min_members: MinMembers = None,
    setting: Set = None,
    json: Json = False,
) -> None:
    """Time an ensemble, compared with a naive loop over its members and with the limits of this machine."""
    import torch

    from densemble.commands.split_data import require_split
    from densemble.evaluation.benchmark.execution_modes import name_of
    from densemble.evaluation.benchmark.fresh_process import Request
    from densemble.evaluation.benchmark.machine import machine
    from densemble.evaluation.benchmark.measure_ensemble import measure_batch, measure_processes, temporary_cache
    from densemble.evaluation.benchmark.plain_values import batch_values, process_values
    from densemble.inference.predict import check_execution
    from densemble.shapes import parse_size
    from densemble.storage.artifact import load

    require_split(split)
    check_execution(backend, precision)
    image_size = parse_size(size)
    torch.set_num_threads(threads or torch.get_num_threads())
    ensemble = load(artifact, device, function or (), min_members)
    policy = _policy(ensemble, keep, budget, data)
    variants = (("eager", "fp32"), (backend, "fp32"), (backend, precision))
    torch_device = next(ensemble.parameters()).device
    scored = None if data is None else _data_and_split(ensemble, data, split, setting)
    images = _images(ensemble, scored, batch, image_size)
    request = Request(
        str(artifact), "", backend, precision, str(torch_device), torch.get_num_threads(), function or (), min_members
    )
    values: dict[str, Any] = {
        "artifact": str(artifact), "size": list(image_size), "batch": batch, "rounds": rounds,
        "machine": machine(torch_device),
    }  # fmt: skip
    with temporary_cache():
        say(f"timing at most {rounds} rounds of each variant")
        values |= batch_values(measure_batch(ensemble, images.to(torch_device), variants, rounds, most_seconds=seconds))
        _print_batch(values, name_of(backend, precision), json)
        values["processes"] = process_values(measure_processes(request, images))
        _print_processes(values["processes"], json)
        if scored is not None:
            values |= _scores(ensemble, *scored, variants, policy, max_images)
            _print_scores(values, ensemble.task.primary, json)
    if json:
        print_json(values)


def _data_and_split(
    ensemble: "Ensemble", data: Path, split: str | None, settings: list[str] | None
) -> "tuple[FolderData, str]":
    """The data set of ``--data``, and the split that is scored: the default split of the data set if none is named."""
    from densemble.commands.split_data import data_for
    from densemble.evaluation.scores import default_split

    folder = data_for(ensemble, data, settings)
    return folder, split or default_split(folder)


def _images(ensemble: "Ensemble", scored: "tuple[FolderData, str] | None", batch: int, size: "Size") -> "Tensor":
    """The first images of the split that is scored, or synthetic images, ``(B, C, H, W)``."""
    from densemble.evaluation.benchmark.benchmark_images import split_images, synthetic_images

    if scored is None:
        return synthetic_images(batch, ensemble.in_channels, size)
    return split_images(*scored, batch, size)


def _scores(
    ensemble: "Ensemble",
    data: "FolderData",
    split: str,
    variants: "Modes",
    policy: "Policy | None",
    max_images: int | None,
) -> dict[str, Any]:
    """``split`` and ``scores``: score and time of the naive loop and of the variants on a split."""
    from densemble.evaluation.benchmark.measure_ensemble import measure_split
    from densemble.evaluation.benchmark.plain_values import score_values

    say(f"scoring each variant on images of {split}")
    scores = measure_split(ensemble, data, split, variants, policy, max_images)
    return {"split": split, "scores": score_values(scores, ensemble.task.primary, ensemble.task.higher_is_better)}


def _policy(ensemble: "Ensemble", keep: float | None, budget: float | None, data: Path | None) -> "Policy | None":
    """The cascade policy requested by the options, or ``None``.

    Raises:
        UsageError: both options are given, there is no data set, or the artifact has no cascade.
    """
    from densemble.errors import UsageError

    if keep is None and budget is None:
        return None
    if keep is not None and budget is not None:
        raise UsageError("--keep and --budget both select a cascade; leave one of them out")
    if data is None:
        raise UsageError("a cascade's time depends on the images: add --data with a data set")
    if ensemble.cascade is None:
        raise UsageError("the artifact has no cascade; write it again with `densemble assemble`")
    policy = ensemble.cascade.for_keep(keep) if keep is not None else ensemble.cascade.for_budget(float(budget or 0))
    say(f"cascade: runs {', '.join(policy.members)}; stops when the uncertainty is below {policy.threshold:.3g}")
    say("cascades are fitted on held-out images; on these images their scores are optimistic")
    return policy


def _print_batch(values: dict[str, Any], variant: str, json: bool) -> None:
    """Print limits of the machine, members (timed in one variant) and variants, unless JSON is printed at the end."""
    if json:
        return
    limits = values["limits"]
    peaks = ", ".join(f"{rate / GIGA:,.0f} GFLOP/s in {name}" for name, rate in limits["convolution"].items())
    print_result(f"limits: convolutions {peaks}; copies {limits['bandwidth'] / GIGA:.0f} GB/s\n")
    print_table(
        ["member", "GFLOPs", "naive ms", "densemble ms", "backend", "precision", "share of peak"],
        [_member_row(member, variant) for member in values["members"]],
    )
    rows: list[list[Any]] = []
    for name, timing in values["ways"].items():
        ratio = timing["times_the_least"]
        row = [name, _ms(timing), round(timing["times_as_fast"], 2), f"{timing['relative_error']:.1e}"]
        rows.append([*row, None if ratio is None else round(ratio, 2)])
    print_result("")
    print_table(["variant", "ms", "times as fast", "relative error", "time over limit"], rows)


def _print_processes(processes: dict[str, Any], json: bool) -> None:
    """Print the table of fresh processes, unless JSON is printed at the end."""
    if json:
        return
    steps = ["python", "import", "load", "compile", "predict"]
    rows = [
        [name, process["peak_mib"] and round(process["peak_mib"]), round(process["cold_start_seconds"], 2)]
        + [round(process["seconds"][step], 2) for step in steps]
        for name, process in processes.items()
    ]
    print_result("")
    print_table(["fresh process", "peak MiB", "first map after s", *steps], rows)


def _print_scores(values: dict[str, Any], primary: str, json: bool) -> None:
    """Print the table of scores on a split, unless JSON is printed at the end."""
    if json:
        return
    rows = [
        [name, score[primary], score["lost"], score["seconds"], round(score["times_as_fast"], 2)]
        for name, score in values["scores"].items()
    ]
    print_result("")
    print_table([f"{values['split']} images", primary, "score lost", "seconds", "times as fast"], rows)


def _member_row(member: dict[str, Any], variant: str) -> list[Any]:
    naive, timing = member["ways"]["naive loop"], member["ways"][variant]
    share = timing["share_of_peak"]
    percent = None if share is None else f"{share:.0%}"
    flops = round(member["flops_rewritten"] / GIGA, 2)
    return [member["name"], flops, _ms(naive), _ms(timing), timing["backend"], timing["precision"], percent]


def _ms(timing: dict[str, Any]) -> float:
    return round(float(timing["median_seconds"]) * 1000, 1)
