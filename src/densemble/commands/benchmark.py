"""benchmark: what an artifact costs on this machine, beside the naive way and beside what the machine can do."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.output import print_json, print_table, say
from densemble.commands.shared_options import ArtifactPath, Function, Json, MinMembers, Set

if TYPE_CHECKING:
    from densemble.ensemble.cascade import Policy
    from densemble.ensemble.ensemble import Ensemble

GIGA = 1e9


def benchmark(
    artifact: ArtifactPath,
    size: Annotated[str, typer.Option(help="Of the images, HEIGHTxWIDTH.")] = "240x320",
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 1,
    backend: Annotated[str, typer.Option(help="auto, or the name of a backend.")] = "auto",
    precision: Annotated[str, typer.Option(help="The lowest that may be chosen: auto, fp32, bf16, int8.")] = "auto",
    rounds: Annotated[int, typer.Option(min=1, help="Of every way, in turn; medians are shown.")] = 9,
    data: Annotated[Path | None, typer.Option(help="Data set: its images are used, and the ways are scored.")] = None,
    split: Annotated[str | None, typer.Option(help="test, val or train; default test if there, else val.")] = None,
    most: Annotated[
        int | None, typer.Option("--images", "--pictures", min=1, help="Score only the first so many images.")
    ] = None,
    keep: Annotated[float | None, typer.Option(help="Also score the cascade that keeps this share.")] = None,
    budget: Annotated[float | None, typer.Option(help="Also score the cascade of this share of the cost.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of PyTorch and the backends; default its own.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    function: Function = None,
    min_members: MinMembers = None,
    setting: Set = None,
    json: Json = False,
) -> None:
    """Time an ensemble beside the naive loop over its members, and beside what this machine can do."""
    import torch

    from densemble.commands.split_data import data_for, require_split
    from densemble.evaluation.benchmark.benchmark_images import split_images, synthetic_images
    from densemble.evaluation.benchmark.execution_modes import name_of
    from densemble.evaluation.benchmark.fresh_process import Request
    from densemble.evaluation.benchmark.machine import machine
    from densemble.evaluation.benchmark.measure_ensemble import (
        choosing_anew,
        measure_batch,
        measure_processes,
        measure_split,
    )
    from densemble.evaluation.benchmark.plain_values import batch_values, process_values, score_values
    from densemble.evaluation.scores import default_split
    from densemble.inference.predict import check_execution
    from densemble.shapes import parse_size
    from densemble.storage.artifact import load

    require_split(split)
    check_execution(backend, precision)
    pixels = parse_size(size)
    if threads is not None:
        torch.set_num_threads(threads)
    ensemble = load(artifact, device, function or (), min_members)
    policy = _policy(ensemble, keep, budget, data)
    kinds = (("eager", "fp32"), (backend, "fp32"), (backend, precision))
    folder = None if data is None else data_for(ensemble, data, setting)
    place = torch.device(device)
    where = split or (default_split(folder) if folder is not None else "")
    images = synthetic_images(batch, ensemble.in_channels, pixels)
    if folder is not None:
        images = split_images(folder, where, batch, pixels)
    request = Request(
        str(artifact), "", backend, precision, device, torch.get_num_threads(), function or (), min_members
    )
    values: dict[str, Any] = {
        "artifact": str(artifact), "size": list(pixels), "batch": batch, "rounds": rounds, "machine": machine(place),
    }  # fmt: skip
    with choosing_anew():
        values["processes"] = process_values(measure_processes(request, images))
        values |= batch_values(measure_batch(ensemble, images.to(place), kinds, rounds))
        if folder is not None:
            task = ensemble.task
            found = measure_split(ensemble, folder, where, kinds, policy, most)
            values |= {"split": where, "scores": score_values(found, task.primary, task.higher_is_better)}
    if json:
        print_json(values)
    else:
        _print(values, name_of(backend, precision), ensemble.task.primary)


def _policy(ensemble: "Ensemble", keep: float | None, budget: float | None, data: Path | None) -> "Policy | None":
    """The cascade that was asked for.

    Raises:
        UsageError: both are given, there is nothing to score it on, or the artifact has none.
    """
    from densemble.errors import UsageError

    if keep is None and budget is None:
        return None
    if keep is not None and budget is not None:
        raise UsageError("--keep and --budget both choose a cascade; leave one of them out")
    if data is None:
        raise UsageError("a cascade's time depends on the images: add --data with a data set")
    if ensemble.cascade is None:
        raise UsageError("the artifact has no cascade; make it anew with `densemble assemble`")
    policy = ensemble.cascade.for_keep(keep) if keep is not None else ensemble.cascade.for_budget(float(budget or 0))
    say(f"the cascade runs {', '.join(policy.members)}; an image less unsure than {policy.threshold:.3g} stops")
    say("a cascade is fitted on held-out images: on the very same ones its score is no estimate for others")
    return policy


def _print(values: dict[str, Any], ours: str, primary: str) -> None:
    """The tables: members, ways, fresh processes, scores."""
    limits = values["limits"]
    peaks = ", ".join(f"{rate / GIGA:,.0f} GFLOP/s in {name}" for name, rate in limits["convolution"].items())
    typer.echo(f"limits: convolutions {peaks}; copies {limits['bandwidth'] / GIGA:.0f} GB/s\n")
    print_table(
        ["member", "GFLOPs", "naive ms", "ours ms", "backend", "precision", "share of peak"],
        [_member_row(member, ours) for member in values["members"]],
    )
    typer.echo("")
    rows = []
    for name, way in values["ways"].items():
        error, least = f"{way['relative_error']:.1e}", way["times_the_least"]
        rows.append([name, _ms(way), round(way["times_as_fast"], 2), error, None if least is None else round(least, 2)])
    print_table(["way", "ms", "times as fast", "relative error", "times the least"], rows)
    typer.echo("")
    steps = ["python", "import", "load", "compile", "predict"]
    processes = [
        [name, one["peak_mib"] and round(one["peak_mib"]), round(one["cold_start_seconds"], 2)]
        + [round(one["seconds"][step], 2) for step in steps]
        for name, one in values["processes"].items()
    ]
    print_table(["fresh process", "peak MiB", "to the first map s", *steps], processes)
    if "scores" in values:
        typer.echo("")
        scored = [
            [name, one[primary], one["lost"], one["seconds"], round(one["times_as_fast"], 2)]
            for name, one in values["scores"].items()
        ]
        print_table([f"{values['split']} images", primary, "lost", "seconds", "times as fast"], scored)


def _member_row(member: dict[str, Any], ours: str) -> list[Any]:
    naive, own = member["ways"]["naive loop"], member["ways"][ours]
    share = own["share_of_peak"]
    percent = None if share is None else f"{share:.0%}"
    flops = round(member["flops_rewritten"] / GIGA, 2)
    return [member["name"], flops, _ms(naive), _ms(own), own["backend"], own["precision"], percent]


def _ms(row: dict[str, Any]) -> float:
    return round(float(row["median_seconds"]) * 1000, 1)
