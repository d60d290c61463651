"""The commands ``train``, ``assemble`` and ``leaderboard``: from a data folder to an artifact."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from densemble.commands.named_values import (
    CALIBRATE,
    COMBINE,
    ENGINES,
    GUARANTEE,
    SELECT,
    complete_members,
    completed,
    listed,
)
from densemble.commands.output import print_json, print_table, say
from densemble.commands.progress import command_progress
from densemble.commands.results import assemble_values, train_values
from densemble.commands.shared_options import (
    ConfigPath,
    DataPath,
    Function,
    Json,
    PresetName,
    Quiet,
    RunPath,
    Set,
    TaskName,
    allowed_names,
    function_options,
    read_settings,
    split_names,
)
from densemble.errors import PartialError, UsageError, unknown_name
from densemble.terminal import print_result

if TYPE_CHECKING:
    from densemble.run import Run


def train(
    context: typer.Context,
    data: DataPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Run folder to write.")],
    task: TaskName = None,
    members: Annotated[
        str | None,
        typer.Option(
            autocompletion=complete_members,
            help="Comma-separated backbones. Default: alexnet, densenet201, inception_v3, resnet152, squeezenet1_1, "
            "vgg19_bn and resdeconv.",
        ),
    ] = None,
    preset: PresetName = None,
    config: ConfigPath = None,
    setting: Set = None,
    time: Annotated[
        str | None,
        typer.Option(help="Time limit for the whole command, for example 30m; members that do not fit are left out."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Like --resume, but train all members again if the data has changed.")
    ] = False,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep last.ckpt and the decoded images after the run.")
    ] = False,
    function: Function = None,
    engine: Annotated[
        str, typer.Option(autocompletion=completed(ENGINES), help=f"Engine that trains the members: {listed(ENGINES)}.")
    ] = "local",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train each member separately into a run folder, then assemble RUN/ensemble.safetensors."""
    failure: PartialError | None = None
    _start_server(setting or [])
    with command_progress():
        from densemble.commands.argument_order import require_data
        from densemble.engines.budget import Budget, parse_time
        from densemble.engines.configure import open_data, require_functions
        from densemble.engines.local import forget_changed
        from densemble.progress.phases import set_limit
        from densemble.run import run_members

        if engine not in ENGINES:
            raise UsageError(unknown_name("engine", engine, ENGINES))
        require_data("train", data)
        budget = Budget(parse_time(time), context.obj)
        set_limit(budget)
        resume, stored = resume or retrain, out / "run.yaml"
        if resume and stored.is_file() and config is None and members is None:
            config = stored
        if keep_checkpoints:
            setting = [*(setting or []), "trainer.keep_checkpoints=true"]
        values = read_settings(config, task, members, setting) | ({} if preset is None else {"preset": preset})
        folder, settings = open_data(data, values, str(config or "the settings"))
        if config is not None:  # user code named by a file needs --function
            require_functions(settings, allowed_names(function, setting, members), f"'{config}'")
        functions = " ".join(["", *function_options(settings)])
        if retrain:
            forget_changed(folder, settings, out)
        try:
            with _explained_stop(f"densemble train {data} -o {out} --resume{functions}"):
                run_members(folder, settings, out, resume, budget)
        except PartialError as error:
            failure = error
    if json:
        print_json(train_values(out))
    if failure is not None:
        raise failure
    predict = f"densemble predict {out}/ensemble.safetensors IMAGES -o OUT{functions}"
    say(f"run in {out}; next:\n  densemble leaderboard {out}\n  {predict}")


def _start_server(settings: list[str]) -> None:
    """Begin to import what the processes of the members need, while this process reads the data."""
    from densemble.engines.isolation.calls import prepare

    prepare(False if "trainer.isolated=false" in settings else None)


@contextmanager
def _explained_stop(command: str) -> Iterator[None]:
    """Say how a training that is stopped by Ctrl-C or SIGTERM continues."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        say(f"densemble: stopped; the training so far is kept, continue with\n  {command}")
        raise


def assemble(
    run: RunPath,
    out: Annotated[Path, typer.Option("-o", "--out", help="Artifact to write, NAME.safetensors.")],
    select: Annotated[
        str,
        typer.Option(
            autocompletion=completed(SELECT),
            help=f"Selection: {listed(SELECT, 'or')}; or comma-separated member names.",
        ),
    ] = "greedy",
    weights: Annotated[str | None, typer.Option(help="Comma-separated weights, one per selected name.")] = None,
    combine: Annotated[
        str,
        typer.Option(
            autocompletion=completed(("auto", *COMBINE)),
            help=f"Combination rule: {listed(COMBINE)}; auto: the best rule that is significantly better than the "
            "mean; MODULE:NAME: your own.",
        ),
    ] = "mean",
    metric: Annotated[str | None, typer.Option(help="Metric for the selection; default: that of the task.")] = None,
    budget: Annotated[float | None, typer.Option(help="Maximum milliseconds per image of the ensemble.")] = None,
    views: Annotated[
        str | None, typer.Option(help="Add views of the members as candidates, for example hflip,scale125.")
    ] = None,
    snapshots: Annotated[bool, typer.Option("--snapshots", help="Add snapshots from training as candidates.")] = False,
    soups: Annotated[bool, typer.Option("--soups", help="Add networks with averaged weights as candidates.")] = False,
    calibrate: Annotated[
        str, typer.Option(autocompletion=completed(CALIBRATE), help=f"Calibration: {listed(CALIBRATE)}.")
    ] = "auto",
    guarantee: Annotated[
        str,
        typer.Option(
            autocompletion=completed(GUARANTEE),
            help=f"Guarantee: {listed(GUARANTEE)}; fitted on half of the validation images.",
        ),
    ] = "none",
    level: Annotated[float, typer.Option(help="Share that the guarantee may miss.")] = 0.1,
    confidence: Annotated[float, typer.Option(help="Confidence of the guarantee 'risk'.")] = 0.95,
    min_members: Annotated[
        int, typer.Option(help="Leave out missing or damaged members if at least this many remain.")
    ] = 1,
    seed: Annotated[int, typer.Option(help="Random seed for intervals and subsampling.")] = 0,
    data: Annotated[Path | None, typer.Option(help="Data folder, if it has moved since the training.")] = None,
    function: Function = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Select members by their held-out predictions; write the artifact and RUN/report.html."""
    with command_progress():
        from densemble.commands.argument_order import require_run
        from densemble.run import Run
        from densemble.storage.artifact import require_artifact_name

        require_artifact_name(out)
        require_run("assemble", run)
        try:
            numbers = [float(part) for part in weights.split(",")] if weights else None
        except ValueError:
            raise UsageError(f"--weights {weights}: write numbers separated by commas, for example 2,1,1") from None
        opened = Run(run, data, function or ())
        if views is not None:
            opened.add_views(split_names(views))
        if snapshots:
            opened.add_snapshots()
        if soups:
            opened.add_soups()
        ensemble = opened.assemble(
            select, combine, numbers, metric=metric, budget=budget, calibrate=calibrate, guarantee=guarantee,
            level=level, confidence=confidence, min_members=min_members, seed=seed,
        )  # fmt: skip
    from densemble.storage.artifact import save

    scores = ensemble.metrics["val"]
    shown = ", ".join(f"{key} {value:.4f}" for key, value in scores.items() if isinstance(value, float))
    say(f"val (fitted on these images): {shown}")
    for line in opened.cross_fitted():
        say(line)
    path, count = save(ensemble, out), len(ensemble.members)
    say(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB, {count} member{'s' if count > 1 else ''})")
    say(f"report and leaderboard of the run now describe this ensemble: {opened.folder.report}")
    if json:
        print_json(assemble_values(opened, path))
    dropped = opened.analysis()["dropped"]
    if dropped:
        names = ", ".join(row["name"] for row in dropped)
        raise PartialError(f"{len(dropped)} of the members could not be used; the ensemble was made without: {names}")


def leaderboard(run: RunPath, json: Json = False) -> None:
    """Show held-out scores of members and ensemble, and cross-fitted scores of strategies and rules."""
    from densemble.commands.argument_order import require_run
    from densemble.run import Run

    require_run("leaderboard", run)
    opened = Run(run)
    if not json:
        print_leaderboard(opened)
        return
    analysis = opened.analysis()
    keys = ("cross_fitted", "strategies", "rules", "pareto", "dropped")
    compared = {key: analysis[key] for key in keys if analysis.get(key)}
    print_json({"run": str(run), "leaderboard": _leaderboard_rows(opened), **compared})


def print_leaderboard(run: "Run") -> None:
    """Print the tables of members, selection strategies and combination rules on stdout."""
    rows, analysis = _leaderboard_rows(run), run.analysis()
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    if analysis.get("strategies"):
        print_result(
            f"\nstrategies, cross-fitted ({analysis['cross_fitted']['folds']}): members, weights, rule and calibration "
            "are fitted on the other folds; 95 % intervals"
        )
        gains = {"gain_over_best": "over best", "gain_over_all": "over all"}
        _print_intervals("strategy", analysis, "strategies", gains, {"members": "members", "milliseconds": "ms"})
    if analysis.get("rules"):
        print_result("\nrules, cross-fitted: members and rule are fitted on the other folds, without calibration")
        further = {key: key for key in ("nll", "ece") if key in analysis["rules"][0]}
        _print_intervals("rule", analysis, "rules", {"gain_over_mean": "over mean"}, further)


def _leaderboard_rows(run: "Run") -> list[dict[str, Any]]:
    table = run.leaderboard().reset_index()
    plain = table.astype(object).where(table.notna(), None)
    rows = [{str(key): value for key, value in row.items()} for row in plain.to_dict("records")]
    for row in rows:
        row |= {key: int(row[key]) for key in ("parameters", "epochs") if row.get(key) is not None}
    return rows


def _print_intervals(
    title: str, analysis: dict[str, Any], key: str, gains: dict[str, str], further: dict[str, str]
) -> None:
    """Print rows of the analysis with their scores, gains and intervals.

    Args:
        title: heading of the first column.
        analysis: of a run.
        key: key of the rows in the analysis.
        gains: key of a gain in a row -> heading of its column.
        further: key of another value in a row -> heading of its column.
    """
    columns = [title, analysis["metric"], "low", "high"]
    for heading in gains.values():
        columns += [heading, "from", "to"]
    rows = []
    for row in analysis[key]:
        cells = [row.get(name) for name in ("name", "score", "low", "high")]
        for name in gains:
            gain = row.get(name) or {}
            cells += [gain.get(end) for end in ("value", "low", "high")]
        rows.append([*cells, *(row.get(name) for name in further)])
    print_table([*columns, *further.values()], rows)
