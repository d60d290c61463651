"""train, assemble, leaderboard: from a data folder to one file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.output import print_json, print_table, say
from densemble.commands.shared_options import DataPath, Function, Json, RunPath, Set, function_options, read_settings

if TYPE_CHECKING:
    from densemble.run import Run


def train(
    context: typer.Context,
    data: DataPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Run folder to write.")],
    task: Annotated[
        str | None, typer.Option(help="saliency, segmentation, multilabel, depth, regression, heatmap or image.")
    ] = None,
    members: Annotated[
        str | None, typer.Option(help="Backbones, joined by commas; default the seven of the story.")
    ] = None,
    preset: Annotated[str | None, typer.Option(help="fast, balanced or best: settings that need no expert.")] = None,
    config: Annotated[Path | None, typer.Option(help="run.yaml to start from.")] = None,
    setting: Set = None,
    time: Annotated[
        str | None,
        typer.Option(help="Limit for everything, for instance 30m; members it is not enough for are left out."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was cut off.")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Like --resume; where the data has changed, train all members again.")
    ] = False,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep last.ckpt and decoded images when the run is complete.")
    ] = False,
    function: Function = None,
    engine: Annotated[str, typer.Option(help="Where members are trained: local.")] = "local",
) -> None:
    """Train every member on its own into a run folder, and assemble them into RUN/ensemble.safetensors."""
    from densemble.commands.overrides import with_settings
    from densemble.config import read_config
    from densemble.engines.budget import Budget, parse_time
    from densemble.engines.configure import open_data, require_functions
    from densemble.engines.local import forget_changed
    from densemble.errors import UsageError
    from densemble.run import run_members

    if engine != "local":
        raise UsageError(f"no engine is named '{engine}'; there is: local")
    budget = Budget(parse_time(time), context.obj)
    stored = out / "run.yaml"
    resume = resume or retrain
    resumed = resume and stored.is_file() and config is None and members is None
    if resumed:
        values = with_settings(read_config(stored), setting or [])
        if task is not None and task != values.get("task"):
            raise UsageError(f"--task {task} contradicts 'task: {values.get('task')}' of the run in '{out}'")
        source = str(stored)
    else:
        values, source = read_settings(config, task, members, setting), str(config or "the settings")
    if preset is not None:
        values["preset"] = preset
    if keep_checkpoints:
        values = with_settings(values, ["trainer.keep_checkpoints=true"])
    folder, settings = open_data(data, values, source)
    if members is None and (resumed or config is not None):  # else the command line itself names them
        require_functions(settings, function or (), f"'{source}'")
    again = " ".join(["", *function_options(settings)])
    if retrain:
        forget_changed(folder, settings, out)
    try:
        run_members(folder, settings, out, resume, budget)
    except (KeyboardInterrupt, SystemExit):
        command = f"densemble train {data} -o {out} --resume{again}"
        say(f"densemble: stopped; finished epochs are kept, go on with `{command}`")
        raise
    predict = f"densemble predict {out}/ensemble.safetensors IMAGES -o OUT{again}"
    say(f"run in {out}; next: densemble leaderboard {out}, {predict}")


def assemble(
    run: RunPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="NAME.safetensors to write.")],
    select: Annotated[
        str, typer.Option(help="greedy, all, best, exhaustive, or member names joined by commas.")
    ] = "greedy",
    weights: Annotated[str | None, typer.Option(help="One number per named member, joined by commas.")] = None,
    combine: Annotated[
        str,
        typer.Option(
            help="mean, logits, median, trimmed, vote, class_weights, stacking, inverse_variance, rank, histogram; or "
            "auto: the best that surely gains over the mean."
        ),
    ] = "mean",
    metric: Annotated[str | None, typer.Option(help="Metric that is chosen by; default the task's own.")] = None,
    budget: Annotated[float | None, typer.Option(help="Milliseconds per image that the members may take.")] = None,
    views: Annotated[
        str | None, typer.Option(help="Members seen mirrored, turned or scaled as further candidates: hflip,scale125.")
    ] = None,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Snapshots of the trainings as further candidates.")
    ] = False,
    soups: Annotated[
        bool, typer.Option("--soups", help="Networks with averaged weights as further candidates.")
    ] = False,
    calibrate: Annotated[str, typer.Option(help="auto, none, temperature, vector; variance for values.")] = "auto",
    guarantee: Annotated[
        str,
        typer.Option(
            help="none; set or risk for classes, interval for values: fitted on half of the validation images."
        ),
    ] = "none",
    level: Annotated[float, typer.Option(help="What the guarantee allows to be missed.")] = 0.1,
    confidence: Annotated[float, typer.Option(help="In a guarantee about risk.")] = 0.95,
    min_members: Annotated[
        int, typer.Option(help="Members that are missing or damaged are dropped as long as this many remain.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of intervals, and of the images selected on if over 500.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Where the images lie now, if they moved.")] = None,
    function: Function = None,
) -> None:
    """Choose members by their held-out predictions and write the ensemble as one file, with RUN/report.html."""
    from densemble.errors import PartialError, UsageError
    from densemble.run import Run
    from densemble.storage.artifact import require_artifact_name, save

    require_artifact_name(out)
    try:
        numbers = [float(part) for part in weights.split(",")] if weights else None
    except ValueError:
        raise UsageError(f"--weights {weights}: write numbers joined by commas, for instance 2,1,1") from None
    opened = Run(run, data, function or ())
    if views is not None:
        opened.add_views([view.strip() for view in views.split(",") if view.strip()])
    if snapshots:
        opened.add_snapshots()
    if soups:
        opened.add_soups()
    ensemble = opened.assemble(
        select, combine, numbers, metric=metric, budget=budget, calibrate=calibrate, guarantee=guarantee,
        level=level, confidence=confidence, min_members=min_members, seed=seed,
    )  # fmt: skip
    scores = ensemble.metrics["val"]
    shown = ", ".join(f"{key} {value:.4f}" for key, value in scores.items() if isinstance(value, float))
    say(f"val, which it was fitted on: {shown}")
    for line in opened.cross_fitted():
        say(line)
    path, count = save(ensemble, out), len(ensemble.members)
    say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, {count} member{'s' if count > 1 else ''})")
    say(f"selection and scores explained: {opened.folder.report}")
    dropped = opened.analysis()["dropped"]
    if dropped:
        names = ", ".join(row["name"] for row in dropped)
        raise PartialError(f"{len(dropped)} of the members could not be used, the ensemble was made without: {names}")


def leaderboard(run: RunPath, json: Json = False) -> None:
    """Held-out scores of all members and of the assembled ensemble; strategies and rules, cross-fitted."""
    from densemble.run import Run

    opened = Run(run)
    if not json:
        print_leaderboard(opened)
        return
    analysis = opened.analysis()
    keys = ("cross_fitted", "strategies", "rules", "pareto", "dropped")
    compared = {key: analysis[key] for key in keys if analysis.get(key)}
    print_json({"run": str(run), "leaderboard": _leaderboard_rows(opened), **compared})


def print_leaderboard(run: "Run") -> None:
    """Tables of members, strategies and rules on stdout."""
    rows, analysis = _leaderboard_rows(run), run.analysis()
    print_table([str(key) for key in rows[0]], [list(row.values()) for row in rows])
    if analysis.get("strategies"):
        _print_strategies(analysis)
    if analysis.get("rules"):
        typer.echo("\nrules, cross-fitted: members and rule fitted on the other folds, without calibration")
        _print_rules(analysis)


def _leaderboard_rows(run: "Run") -> list[dict[str, Any]]:
    table = run.leaderboard().reset_index()
    plain = table.astype(object).where(table.notna(), None)
    rows = [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
    for row in rows:
        row |= {key: int(row[key]) for key in ("parameters", "epochs") if row.get(key) is not None}
    return rows


def _print_rules(analysis: dict[str, Any]) -> None:
    rules = analysis["rules"]
    more = [key for key in ("nll", "ece") if key in rules[0]]
    keys = ("name", "score", "low", "high")
    rows = []
    for row in rules:
        gain = row.get("gain_over_mean") or {}
        gains = (gain.get(key) for key in ("value", "low", "high"))
        rows.append([*(row[key] for key in keys), *gains, *(row.get(key) for key in more)])
    print_table(["rule", analysis["metric"], "low", "high", "over mean", "from", "to", *more], rows)


def _print_strategies(analysis: dict[str, Any]) -> None:
    folds = analysis["cross_fitted"]["folds"]
    typer.echo(
        f"\nstrategies, cross-fitted ({folds}): members, weights, rule and calibration fitted on the other folds; "
        "95 % intervals"
    )
    gains = ("over best", "from", "to", "over all", "from", "to")
    columns = ["choice", analysis["metric"], "low", "high", *gains, "members", "ms"]
    keys = ("name", "score", "low", "high")
    rows = [
        [
            *(row[key] for key in keys),
            *row["gain_over_best"].values(),
            *row["gain_over_all"].values(),
            row["members"],
            row["milliseconds"],
        ]
        for row in analysis["strategies"]
    ]
    print_table(columns, rows)
