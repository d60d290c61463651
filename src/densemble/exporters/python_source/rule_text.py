"""Text of the combination of an ensemble: rule, calibration, uncertainty and guarantee, for exactly what it uses."""

from collections.abc import Callable
from dataclasses import dataclass, field

from densemble.ensemble.calibrate import Temperature, VarianceScaling, VectorScaling
from densemble.ensemble.combination import Combination
from densemble.ensemble.guarantee import ConformalInterval
from densemble.exporters.python_source.code import call, numbers, table
from densemble.exporters.python_source.ensemble_snippets import BERNOULLI, CATEGORICAL, RULES, UNCERTAINTY
from densemble.exporters.python_source.member_text import refused
from densemble.tasks import Task


@dataclass
class CombinationText:
    """Code of the combination.

    Attributes:
        constants: definitions of constants.
        combined: expression of the combined and calibrated map, of the variable ``maps``.
        buffers: fitted tensors that the class needs as buffers, with their shapes.
        fields: expression of each map of a prediction, of ``mean`` and the variables that ``lines`` set.
        lines: statements before them.
    """

    constants: list[str]
    combined: str
    buffers: dict[str, tuple[int, ...]]
    fields: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)


def activation_text(task: Task) -> tuple[str, list[str]]:
    """Return the expression of a member's map, of the variable ``logits``, and its constants."""
    scale = float(getattr(task, "scale", 1.0))
    if task.distribution == "categorical":
        return "logits.softmax(1)", []
    if task.distribution == "bernoulli" or task.target_kind == "pixels":
        return "torch.sigmoid(logits)", []
    if task.target_kind == "density":
        count = f'COUNT = {scale!r}\n"""Count per image and channel that an output of 1 stands for."""'
        return "F.softplus(logits) * (COUNT / (logits.shape[-2] * logits.shape[-1]))", [count]
    if task.target_kind != "values":
        raise refused(f"maps of the task '{task.name}' are not written")
    positive = task.invalid_below is not None and task.invalid_below >= 0
    values = "F.softplus(logits)" if positive else "logits"
    if scale == 1:
        return values, []
    return f"{values} * SCALE", [f'SCALE = {scale!r}\n"""Unit of the networks, in the unit of the targets."""']


def combination_text(combination: Combination) -> CombinationText:
    """Return the code of a combination.

    Raises:
        UsageError: the rule cannot be written.
    """
    text = CombinationText([], "", {})
    text.combined = _calibrated(text, combination, _rule(text, combination))
    _predicted(text, combination)
    return text


def _rule(text: CombinationText, combination: Combination) -> str:
    if combination.rule not in _RULES:
        raise refused(f"the combination rule '{combination.rule}' is not written")
    return _RULES[combination.rule](text, combination)


def _plain(expression: str) -> Callable[[CombinationText, Combination], str]:
    return lambda text, combination: expression


def _trimmed(text: CombinationText, combination: Combination) -> str:
    return "trimmed_mean(maps)" if len(combination.weights) >= 3 else "weighted_mean(maps)"


def _class_weights(text: CombinationText, combination: Combination) -> str:
    text.buffers = {name: tuple(tensor.shape) for name, tensor in combination.fitted.items()}
    return "class_weighted_mean(maps, self.class_weights)"


def _inverse_variance(text: CombinationText, combination: Combination) -> str:
    precisions = dict(zip(combination.weights, combination.fitted["precisions"].tolist(), strict=True))
    text.constants.append(f'{table("PRECISIONS", precisions)}\n"""1 / squared error of the members, scaled."""')
    return "precision_mean(maps)"


def _stacking(text: CombinationText, combination: Combination) -> str:
    text.buffers = {name: tuple(tensor.shape) for name, tensor in combination.fitted.items()}
    if combination.task.distribution != "none":
        return "from_logits(stacked_logits(maps, self.kernel, self.bias))"
    values = "stacked_values(maps, self.kernel)"
    return f"{values}.clamp(0, 1)" if combination.task.target_kind == "pixels" else values


_RULES: dict[str, Callable[[CombinationText, Combination], str]] = {
    "mean": _plain("weighted_mean(maps)"),
    "logits": _plain("from_logits(weighted_mean([to_logits(part) for part in maps]))"),
    "median": _plain("weighted_median(maps)"),
    "trimmed": _trimmed,
    "vote": _plain("weighted_mean([decisions(part) for part in maps])"),
    "class_weights": _class_weights,
    "inverse_variance": _inverse_variance,
    "stacking": _stacking,
    "rank": _plain("weighted_mean([pixel_ranks(part) for part in maps])"),
    "histogram": _plain("matched_mean(maps)"),
}
"""Expression of the combined map, of the variable ``maps``, by rule; a function may add constants and buffers."""


def _calibrated(text: CombinationText, combination: Combination, combined: str) -> str:
    calibration = combination.calibration
    if isinstance(calibration, Temperature) and calibration.value != 1:
        text.constants.append(f'TEMPERATURE = {calibration.value!r}\n"""Divisor of the logits of the combined map."""')
        return f"from_logits(to_logits({combined}) / TEMPERATURE)"
    if isinstance(calibration, VectorScaling):
        for name, values, doc in (
            ("CLASS_SCALES", calibration.scales, "Factor of the logits of each class."),
            ("CLASS_BIASES", calibration.biases, "Number added to the logits of each class."),
        ):
            listed = numbers(values)
            if len(listed) > 100:
                listed = call("(", map(repr, values), used=len(name) + 3)
            text.constants.append(f'{name} = {listed}\n"""{doc}"""')
        return f"vector_scaled({combined})"
    if isinstance(calibration, VarianceScaling):
        text.constants.append(
            f"VARIANCE_SCALE, VARIANCE_FLOOR = {calibration.scale!r}, {calibration.floor!r}\n"
            '"""Expected squared error = scale * variance over the members + floor."""'
        )
    return combined


def _predicted(text: CombinationText, combination: Combination) -> None:
    distribution = combination.task.distribution
    scaled = isinstance(combination.calibration, VarianceScaling)
    variance = "variance * VARIANCE_SCALE + VARIANCE_FLOOR" if scaled else "variance"
    text.fields = {"mean": "mean", "variance": variance}
    if distribution == "none":
        text.lines.append("variance = member_variance(maps)")
    else:
        text.lines.append("variance, expected_entropy, mutual_information, disagreement = member_uncertainty(maps)")
        text.fields |= {"entropy": "entropy(mean)", "expected_entropy": "expected_entropy"}
        text.fields |= {"mutual_information": "mutual_information", "disagreement": "disagreement"}
    if distribution == "categorical":
        text.fields["label"] = "mean.max(1).indices"
    guarantee = combination.guarantee
    if isinstance(guarantee, ConformalInterval):
        doc = (
            f'"""Intervals miss a mean share of at most {guarantee.miscoverage:g} of an image\'s pixels, '
            'for images like the held-out ones."""'
        )
        distance = "REACH"
        constant = f"REACH = {guarantee.reach!r}"
        if guarantee.floor is not None:
            constant = f"REACH, REACH_FLOOR = {guarantee.reach!r}, {guarantee.floor!r}"
            text.lines.append("distance = REACH * (variance + REACH_FLOOR).sqrt()")
            distance = "distance"
        text.constants.append(f"{constant}\n{doc}")
        text.fields |= {"lower": f"mean - {distance}", "upper": f"mean + {distance}"}
    elif guarantee is not None:
        share = getattr(guarantee, "miscoverage", None) or getattr(guarantee, "risk", 0.0)
        text.constants.append(
            f"SET_THRESHOLD = {guarantee.threshold!r}\n"
            f'"""Sets miss a mean share of at most {share:g} per image, for images like the held-out ones."""'
        )
        categorical = distribution == "categorical"
        text.fields["included"] = "included(mean)" if categorical else "mean >= SET_THRESHOLD"


def snippets_for(task: Task) -> dict[str, str]:
    """Return the snippets of rules and uncertainty for the distribution of a task's maps."""
    categorical = task.distribution == "categorical"
    snippets = (CATEGORICAL if categorical else BERNOULLI) | RULES | UNCERTAINTY
    disagreement = "1 - votes.amax(1)" if categorical else "torch.minimum(votes, 1 - votes).mean(1)"
    if categorical:
        # Means of single classes need not sum to 1.
        for name, result, otherwise in (
            ("class_weighted_mean", "mean", "mean"),
            ("trimmed_mean", "trimmed", "mean"),
            ("weighted_median", "(lower + upper) / 2", "weighted_mean(maps)"),
        ):
            returned = f"return normalized({result}, {otherwise})\n"
            snippets[name] = snippets[name].replace(f"return {result}\n", returned)
    elif task.out_channels == 1:
        snippets["entropy"] = snippets["single_entropy"].replace("single_entropy", "entropy")
    return {name: text.replace("DISAGREEMENT", disagreement) for name, text in snippets.items()}
