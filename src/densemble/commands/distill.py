"""The command ``distill``: train one network on the maps of an ensemble."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from densemble.commands.named_values import WEIGHTINGS, complete_backbone, completed, listed
from densemble.commands.output import print_json, print_table, say
from densemble.commands.progress import command_progress
from densemble.commands.shared_options import (
    ArtifactPath,
    ConfigPath,
    DataPath,
    Function,
    Json,
    PresetName,
    Quiet,
    Set,
    allowed_names,
    read_settings,
)
from densemble.terminal import print_result


def distill(
    artifact: ArtifactPath,
    data: DataPath,
    student: Annotated[
        str,
        typer.Option(
            autocompletion=complete_backbone,
            help="Backbone of the student. --set members.0.KEY=VALUE changes its other settings.",
        ),
    ],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Student artifact to write, NAME.safetensors; its run folder is NAME.")
    ],
    unlabelled: Annotated[
        list[Path] | None,
        typer.Option(help="Images without targets: a folder, glob or file. Can be given several times."),
    ] = None,
    label_share: Annotated[float, typer.Option(help="Weight of the loss on the targets, from 0 to below 1.")] = 0.5,
    weighting: Annotated[
        str,
        typer.Option(
            autocompletion=completed(WEIGHTINGS),
            help=f"Pixels with a higher weight: {listed(WEIGHTINGS)} (the same weight for all).",
        ),
    ] = "uncertain",
    no_baseline: Annotated[
        bool, typer.Option("--no-baseline", help="Do not train the same network on the targets alone.")
    ] = False,
    preset: PresetName = None,
    config: ConfigPath = None,
    setting: Set = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted distillation.")] = False,
    function: Function = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train one network on the calibrated maps of an ensemble, and compare it with the ensemble."""
    with command_progress():
        from densemble.commands.argument_order import require_artifact_first, require_data
        from densemble.distillation import DistillOptions
        from densemble.distillation import distill as run_distillation
        from densemble.storage.artifact import load, require_artifact_name
        from densemble.tasks.losses.mixture import loss_names
        from densemble.training.soft_targets import Weighting
        from densemble.user_code import require_allowed

        require_artifact_name(out)
        require_artifact_first("distill", artifact, [data])
        require_data("distill", data)
        options = DistillOptions(
            unlabelled=tuple(unlabelled or ()),
            label_share=label_share,
            weighting=cast(Weighting, weighting),
            baseline=not no_baseline,
        )
        ensemble = load(artifact, functions=function or ())
        values = read_settings(config, ensemble.task.name, student, setting)
        del values["task"]
        if preset is not None:
            values["preset"] = preset
        (member,) = values.pop("members")
        data_options = values.pop("data", None)
        parts = {"backbone": member} if isinstance(member, str) else member
        names = [str(parts["backbone"]), str(parts.get("head") or ""), *loss_names(str(values.get("loss", "")))]
        require_allowed(f"'{config}'", [("the student", n) for n in names], allowed_names(function, setting, student))
        try:
            result = run_distillation(
                ensemble, data, member, out, options, data_options=data_options, resume=resume, report=None, **values
            )
        except (KeyboardInterrupt, SystemExit):
            say("densemble: stopped; the training so far is kept, repeat the command with --resume to continue")
            raise
    if json:
        print_json({"teacher": str(artifact), "data": str(data), **result.report, "artifact": str(result.path)})
    else:
        print_comparison(result.report)
    say(f"wrote {result.path} ({result.path.stat().st_size / 1e6:.1f} MB); run in {result.run}")


def print_comparison(report: Mapping[str, Any]) -> None:
    """Print the models with scores, intervals and times, and the share of the gain that the student keeps."""
    models, metric = report["models"], report["metric"]
    further = [key for key in ("nll", "ece", "classwise_ece", "brier") if key in next(iter(models.values()))]
    rows = []
    for name, values in models.items():
        score = values["score"]
        label = f"best member ({report['best_member']})" if name == "best member" else name
        rows.append([label, score["value"], score["low"], score["high"], *(values[key] for key in further),
                     values["milliseconds"], report["times_as_fast"][name], values["parameters"]])  # fmt: skip
    note = ""
    if report["ensemble_fitted_on_these_images"]:
        note = "; the ensemble and its members were fitted on these images, the student was not"
    print_result(f"{report['images']} {report['reported_on']} images, 95 % intervals{note}")
    print_table(["", metric, "low", "high", *further, "ms", "times as fast", "parameters"], rows)
    for reference, share in report["share_kept"].items():
        if share["value"] is None:
            print_result(f"the ensemble gains nothing {reference}")
            continue
        interval = "" if share["low"] is None else f" ({share['low']:.0%} to {share['high']:.0%})"
        print_result(f"share of the ensemble's gain {reference} that the student keeps: {share['value']:.0%}{interval}")
