"""Sections of a model card, in Markdown."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from densemble.ensemble.member_views import ViewedMember
from densemble.exporters.card_facts import CardFacts, one_number
from densemble.exporters.metric_meanings import MEANINGS
from densemble.nets.backbones import OWN, is_published
from densemble.nets.dense import DenseModel
from densemble.nets.local_weights import HUB, SUFFIXES, is_file_name
from densemble.nets.weight_licences import published_weights
from densemble.report.rounding import gain, intervals, number, numbers, plain
from densemble.report.trust_sections import GUARANTEE_CONDITIONS, guarantee_statement
from densemble.shapes import Size
from densemble.tasks import TargetKind, Task

UNKNOWN, NOT_STATED = "not recorded", "none stated"
_MAPS: dict[TargetKind, str] = {
    "labels": "for each pixel, the probability of its class",
    "masks": "for each pixel, the probability that a class is present",
    "heat": "heat maps with values in [0, 1]",
    "density": "density maps whose sum is a count",
    "values": "one value per pixel",
    "pixels": "images with values in [0, 1]",
}
_CALIBRATION_MEASURES = {"ece": "expected calibration error", "brier": "Brier score", "nll": "negative log-likelihood"}


def counted(count: int, noun: str) -> str:
    """Return ``1 member`` or ``3 members``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def table(columns: Mapping[str, Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns; columns whose cells are all empty are left out."""
    kept = [[cell.replace("|", "\\|") for cell in (name, *cells)] for name, cells in columns.items() if any(cells)]
    widths = [max(map(len, cells)) for cells in kept]
    padded = [[cell.ljust(width) for cell in cells] for cells, width in zip(kept, widths, strict=True)]
    header, *rows = zip(*padded, strict=True)
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["-" * width for width in widths], *rows))


def summary(facts: CardFacts, address: str) -> str:
    """First paragraphs: what the model is, its best known score, and what is not recorded."""
    ensemble, fitted = facts.ensemble, facts.scores.get(facts.metric)
    meaning = f" ({ensemble.task.meaning})" if ensemble.task.meaning else ""
    text = (
        f"An ensemble of {counted(len(ensemble.members), 'member')} for the task *{ensemble.task.name}*{meaning}, made "
        f"with densemble {facts.versions.get('densemble', '')}. It predicts {_output(ensemble.task)}."
    )
    if score := facts.cross_fitted.get("score"):
        [(value, span)] = intervals([score], "value")
        interval = f" (95 % interval over images: {span})" if span else ""
        text += f" Cross-fitted {facts.metric} on {_val_images(facts)}: **{value}**{interval}."
    elif isinstance(fitted, int | float):
        text += (
            f" Its {facts.metric} is **{number(fitted)}** on {_all_images(facts)}; it was fitted on them, so this "
            "score is optimistic."
        )
    return "\n\n".join([text, *_not_recorded(facts, address)])


def _not_recorded(facts: CardFacts, address: str) -> list[str]:
    """One paragraph about the facts that are not recorded and where to get them; empty if there are none."""
    recorded = {
        "scores on images that it was not fitted on": facts.cross_fitted,
        "the data of its training": facts.data,
        "the initial weights of its members": facts.figures.get("members"),
    }
    missing = [name for name, known in recorded.items() if not known]
    if not missing:
        return []
    return [
        f"Not recorded: {', '.join(missing)}. Ask its author for `densemble card {address} --run RUN`, or score it on "
        f"your own images: `densemble evaluate {address} DATA`."
    ]


def _output(task: Task) -> str:
    unit = getattr(task, "unit", "")
    count = f" ({counted(len(task.classes), 'channel')})" if task.classes else ""
    return f"{_MAPS[task.target_kind]}{f', in {unit}' if unit else ''}{count}"


def _val_images(facts: CardFacts) -> str:
    images = facts.figures.get("images") or facts.val_images
    name = facts.data.get("name")
    return f"{counted(images, 'validation image') if images else 'validation images'}{f' of {name}' if name else ''}"


def _all_images(facts: CardFacts) -> str:
    """All validation images; a cascade is fitted on them, or on some of them if a guarantee takes the others."""
    cascade = facts.ensemble.cascade
    if facts.val_images is None:
        return "all validation images" + ("" if cascade is None else f" (at least {cascade.images})")
    return f"all {counted(facts.val_images, 'validation image')}"


def run_it(facts: CardFacts, address: str) -> str:
    """Code that loads the artifact and predicts images."""
    python = [
        "import densemble as de",
        f'ensemble = de.load("{address}")',
        'for p in de.predict(ensemble, "photos/"): p.save("out")',
    ]
    return (
        "```python\n" + "\n".join(python) + f"\n```\n```\ndensemble predict {address} photos/ -o out\n```\n"
        "Predictions are resized to the size of each image. No code from the file is executed."
    )


def _size(size: Size | None) -> str:
    return f"{size[0]}x{size[1]}" if size else "the size of the image"


def inputs_and_outputs(facts: CardFacts, address: str) -> str:
    """Input, output, sizes and combination rule."""
    ensemble = facts.ensemble
    inputs = {_size(member.spec.input_size) for _, member in ensemble.named_members()}
    channels = "RGB" if ensemble.in_channels == 3 else f"{ensemble.in_channels} channels"
    resized = "" if inputs == {_size(None)} else f" resizes them to {' or '.join(sorted(inputs))} and"
    sides = f"{ensemble.out_size[0]}, {ensemble.out_size[1]}" if ensemble.out_size else "H, W"
    uncertain = "maps of entropy, mutual information, disagreement and variance of the members"
    lines = [
        f"- Input: images of any size, {channels}. In Python, `ensemble(x)` takes float `(B, {ensemble.in_channels}, "
        f"H, W)` in [0, 1], not normalized: each member{resized} normalizes them.",
        f"- Output: {_output(ensemble.task)}. `ensemble(x)` returns `(B, {ensemble.task.out_channels}, {sides})`; "
        "`de.predict` and `densemble predict` return and write maps at the size of each image.",
        f"- Uncertainty: {uncertain if len(ensemble.members) > 1 else 'entropy; a single member cannot disagree'}.",
        f"- Combination rule: `{ensemble.combine}`.",
    ]
    if ensemble.task.classes:
        lines.append(f"- Channels, in this order: {', '.join(ensemble.task.classes)}.")
    if ensemble.reading:
        lines.append(f"- Images are read as in training: {plain(dict(ensemble.reading))}.")
    return "\n".join(lines)


def data(facts: CardFacts, address: str) -> str:
    """Data of the training."""
    values = facts.data
    if not values:
        return f"{UNKNOWN.capitalize()}."
    splits = ", ".join(f"{counted(count, 'image')} in `{name}`" for name, count in values["splits"].items())
    lines = [f"Data set `{values['name']}`: {splits}."]
    if "layout" in values:
        lines.append(f"Layout: {values['layout']}, split by {values.get('split_by', UNKNOWN)}.")
    if values.get("left_out"):
        lines.append(f"{counted(values['left_out'], 'file')} without a partner left out.")
    digest = values.get("digest")
    lines.append(f"Digest of the train and val pairs: `{digest}`." if digest else "A digest was not recorded.")
    lines.append("The licence of the data is not recorded.")
    return " ".join(lines)


def members(facts: CardFacts, address: str) -> str:
    """Table of the members."""
    named = dict(facts.ensemble.named_members())
    specs = [member.spec for member in named.values()]
    scores = numbers([one_number(facts.member_scores.get(name, {}).get(facts.metric)) for name in named])
    columns = {
        "member": list(named),
        "backbone": [f"`{spec.backbone}`" for spec in specs],
        "cut": [f"`{spec.node}`" for spec in specs],
        "head": [f"`{spec.head}`" for spec in specs],
        "view": [member.view.name if isinstance(member, ViewedMember) else "" for member in named.values()],
        "weight": [f"{facts.ensemble.weights[name]:.3f}" for name in named],
        "parameters": [f"{sum(p.numel() for p in member.parameters()):,}" for member in named.values()],
        f"{facts.metric}, val": scores,
    }
    networks = {id(member.member if isinstance(member, ViewedMember) else member): member for member in named.values()}
    total = sum(p.numel() for member in networks.values() for p in member.parameters())
    text = f"{table(columns)}\n\nParameters together: {total:,}."
    if any(scores):
        text += (
            f" The column *{facts.metric}, val* is the score of each single member on {_all_images(facts)}; its best "
            "epoch was selected on them."
        )
    select = facts.figures.get("select")
    return text + (f" The members and weights were selected by `{select}` on held-out predictions." if select else "")


def scores(facts: CardFacts, address: str) -> str:
    """Table of the scores, and the images that they were measured on."""
    crossed: Mapping[str, Any] = facts.cross_fitted.get("scores") or {}
    names = [name for name, value in (facts.scores or crossed).items() if isinstance(value, int | float)]
    if not names:
        return "The artifact holds no scores."
    objectives = facts.ensemble.task.metrics().objectives
    fitted = [number(one_number(facts.scores.get(name))) for name in names]
    columns = {
        "metric": [f"`{name}`" for name in names],
        "meaning": [MEANINGS.get(name, "") for name in names],
        "better": [_direction(objectives[name].higher_is_better) if name in objectives else "" for name in names],
        "cross-fitted": [number(one_number(crossed.get(name))) for name in names],
        "95 % interval": ["" for _ in names],
        "fitted on these images": fitted,
    }
    score = facts.cross_fitted.get("score")
    if score and facts.metric in names:
        at = names.index(facts.metric)
        [(columns["cross-fitted"][at], columns["95 % interval"][at])] = intervals([score], "value")
    return f"{table(columns)}\n\n{_measured_on(facts)}"


def _direction(higher: bool) -> str:
    return "higher" if higher else "lower"


def _measured_on(facts: CardFacts) -> str:
    sentences = []
    if facts.cross_fitted:
        sentences.append(
            f"Cross-fitted scores were measured on {_val_images(facts)}, with {facts.cross_fitted['folds']}: for each "
            "fold, members, weights, rule and calibration were fitted on the other folds. The best epoch of each "
            "member was selected on all validation images, so the scores are slightly optimistic. The interval is a "
            "bootstrap over images."
        )
        total = facts.cross_fitted["gain"]["total"]
        if total.get("value") is not None:
            name = facts.cross_fitted.get("best_member")
            best = f"the best member, {name}" if name else "the best single member"
            sentences.append(f"Gain in {facts.metric} over {best}: {gain(total)}.")
    if facts.scores:
        sentences.append(
            f"Scores *fitted on these images* are those of the saved file on {_all_images(facts)}, which it was "
            "fitted on: they are optimistic."
        )
    for row in facts.figures.get("baselines", []):
        if row.get("score") is not None:
            sentences.append(f"Baseline without training, {row['name']}: {facts.metric} {number(row['score'])}.")
    return " ".join(sentences)


def calibration(facts: CardFacts, address: str) -> str:
    """Calibration of the ensemble, with its effect on images that it was not fitted on."""
    ensemble, values = facts.ensemble, facts.figures.get("calibration")
    tempered = {name: value for name, value in ensemble.temperatures.items() if value != 1}
    if ensemble.calibration is None and not tempered:
        return "The maps are not calibrated: do not read their values as frequencies."
    kind = str(ensemble.calibration.describe()["kind"]) if ensemble.calibration is not None else "none"
    lines = [f"Calibration of the combined map: `{kind}`."]
    lines += [f"Temperatures of the members: {plain(tempered)}."] if tempered else []
    if not values:
        return " ".join([*lines, "Its effect was not recorded."])
    if "coverage" in values:
        rows = values["coverage"]
        columns = {key: numbers([row.get(key) for row in rows]) for key in ("nominal", "before", "after")}
        shown = table(columns)
    else:
        keys = [key for key in _CALIBRATION_MEASURES if values.get("after", {}).get(key) is not None]
        if not keys:
            return " ".join([*lines, "Its effect was not recorded."])
        pairs = [numbers([values.get("before", {}).get(key), values["after"][key]]) for key in keys]
        names = [_CALIBRATION_MEASURES[key] for key in keys]
        shown = table({"lower is better": names, "before": [a for a, _ in pairs], "after": [b for _, b in pairs]})
    return " ".join(lines) + f"\n\n{shown}\n\nMeasured on {_val_images(facts)}, cross-fitted."


def guarantee(facts: CardFacts, address: str) -> str:
    """The guarantee, its conditions, and its measured coverage; empty if there is none."""
    if facts.ensemble.guarantee is None:
        return "None was fitted."
    described = facts.ensemble.guarantee.describe()
    sentences = [guarantee_statement(described), GUARANTEE_CONDITIONS]
    measured: Mapping[str, Any] = facts.figures.get("guarantee") or {}
    if measured.get("coverage") is None:
        return " ".join([*sentences, "Its coverage was not measured, or was not recorded."])
    [(coverage, span)] = intervals([dict(measured)], "coverage")
    interval = f" (95 % interval over images: {span})" if span else ""
    return " ".join(
        [*sentences, "Measured coverage, fitted on one half of its images and measured on the other half: "
         f"{coverage}{interval}, on {counted(measured.get('checked_on', 0), 'image')}."]
    )  # fmt: skip


def cascade(facts: CardFacts, address: str) -> str:
    """The cascade: how to use it, and its cost and score on images that it was not fitted on."""
    fitted = facts.ensemble.cascade
    if fitted is None:
        return "None was fitted: `densemble predict` runs all members on every image."
    text = (
        "Members can run in order and stop early where the result is certain enough. `--keep SHARE` keeps about this "
        f"share of {fitted.metric}, and `--budget SHARE` spends at most this share of the cost: `densemble predict "
        f"{address} photos/ -o out --keep 0.99`."
    )
    if not fitted.checks:
        return f"{text} Its cost and score on other images were not measured."
    columns = {
        "option": [f"`--{check.asked} {check.share:g}`" for check in fitted.checks],
        "share of the cost": [f"{check.cost:.2f}" for check in fitted.checks],
        f"share of {fitted.metric}": ["" if check.kept is None else f"{check.kept:.4f}" for check in fitted.checks],
    }
    measured = f"Fitted on one half of {counted(fitted.images, 'validation image')} and measured on the other half."
    return f"{text}\n\n{table(columns)}\n\n{measured}"


def limits(facts: CardFacts, address: str) -> str:
    """What was not measured."""
    splits = facts.data.get("splits", {})
    lines = []
    if not facts.cross_fitted:
        lines.append("There are no scores of images that played no part in the fit.")
    if splits.get("test"):
        lines.append(f"The {counted(splits['test'], 'image')} of `test` are not scored in this card.")
    elif splits:
        lines.append("The data has no test split: no image outside `train` and `val` was scored.")
    name = facts.data.get("name", "the training data")
    lines.append(f"Images of other sources than {name} were not scored: other cameras, places and subjects.")
    lines.append("Scores of groups of images (by camera, place or subject) were not measured.")
    total = facts.cross_fitted.get("gain", {}).get("total", {})
    if total.get("low") is not None and total["low"] <= 0:
        lines.append("The interval of the gain over the best single member includes 0: the gain may be chance.")
    return "\n".join(f"- {line}" for line in lines)


def licences(facts: CardFacts, address: str) -> str:
    """Initial weights of each member, and their licence as stated by their publisher."""
    recorded: Mapping[str, Mapping[str, Any]] = facts.figures.get("members", {})
    named = dict(facts.ensemble.named_members())
    rows = [_initial_weights(member, recorded.get(name)) for name, member in named.items()]
    columns = {
        "member": list(named),
        "initial weights": [name for name, _ in rows],
        "licence stated by the publisher": [licence for _, licence in rows],
    }
    return (
        f"{table(columns)}\n\n{facts.licence} The table has the licences of the weights only: the terms of the data "
        "that they were trained on, such as ImageNet, were not checked."
    )


def _initial_weights(member: DenseModel | ViewedMember, record: Mapping[str, Any] | None) -> tuple[str, str]:
    """Initial weights of a member, and their licence, as text."""
    backbone = member.spec.backbone
    if record is None or "weights" not in record:
        default = published_weights(backbone, "DEFAULT")
        known = "" if default is None else f"; of the default weights `{default.name}`: {default.licence or NOT_STATED}"
        return UNKNOWN, f"{UNKNOWN}{known}"
    if record["weights"] is None or (backbone in OWN and record["weights"] == "DEFAULT"):
        return "random", "not applicable"
    weights = str(record["weights"])
    loaded = record.get("loaded", "")
    if is_file_name(weights) or not is_published(backbone) or weights.startswith(HUB):
        return f"`{loaded or weights}`", UNKNOWN
    published = published_weights(backbone, weights)
    if published is None:
        return f"`{backbone}`, weights `{weights}`", UNKNOWN
    source = f", read from the file `{loaded}`" if loaded.endswith(SUFFIXES) else ""
    return f"`{published.name}`{source}", published.licence or NOT_STATED


def versions(facts: CardFacts, address: str) -> str:
    """Versions, and where the figures are from."""
    used = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return (
        f"Written with {used}. Every figure of this card is stored in the artifact or was computed from it, or is in "
        f"`analysis.json` of its run. SHA-256 of the artifact's description: `{facts.fingerprint}`."
    )


def methods(facts: CardFacts, address: str) -> str:
    """Methods that were used, with their papers."""
    ensemble = facts.ensemble
    kind = ensemble.guarantee.describe()["kind"] if ensemble.guarantee is not None else ""
    calibrated = ensemble.calibration.describe()["kind"] if ensemble.calibration is not None else ""
    tempered = any(value != 1 for value in ensemble.temperatures.values())
    used = {
        "Selection: Caruana et al., Ensemble Selection from Libraries of Models, ICML 2004.":
            facts.figures.get("select") == "greedy",
        "Calibration: Guo et al., On Calibration of Modern Neural Networks, ICML 2017.":
            tempered or calibrated in ("temperature", "vector"),
        "Calibration of variances: Laves et al., Well-calibrated Regression Uncertainty in Medical Imaging with Deep "
        "Learning, MIDL 2020.": calibrated == "variance",
        "Prediction sets: Sadinle et al., Least Ambiguous Set-Valued Classifiers with Bounded Error Levels, JASA 2019.":
            kind == "conformal_set",
        "Expected coverage: Angelopoulos et al., Conformal Risk Control, ICLR 2024.": kind.startswith("conformal"),
        "Risk control: Bates et al., Distribution-free, Risk-controlling Prediction Sets, JACM 2021.":
            kind == "risk_control",
    }  # fmt: skip
    return "\n".join(f"- {text}" for text, is_used in used.items() if is_used)


SECTIONS: dict[str, Callable[[CardFacts, str], str]] = {
    "How to run": run_it,
    "Input and output": inputs_and_outputs,
    "Training data": data,
    "Members": members,
    "Scores": scores,
    "Calibration": calibration,
    "Guarantee": guarantee,
    "Cascade": cascade,
    "Limits": limits,
    "Licences": licences,
    "Methods": methods,
    "Versions and sources": versions,
}
"""Title of each section -> function of the facts and the address of the artifact; an empty text leaves it out."""
