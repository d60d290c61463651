"""Calibration and uncertainty scores of an evaluation equal a computation on all pixels of all images at once."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from selection.written_runs import NAMES, Written, make_network
from sklearn.metrics import roc_auc_score

from densemble.ensemble.calibrate import VarianceScaling
from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.guarantee import ConformalInterval, ConformalSet, Guarantee, RiskControl
from densemble.ensemble.prediction import Prediction
from densemble.errors import ArtifactError
from densemble.evaluation.scores import evaluate, images_with_targets

Array = np.ndarray[Any, Any]
GUARANTEES: dict[str, Guarantee] = {
    "segmentation": ConformalSet(0.3, 0.2, 10),
    "multilabel": RiskControl(0.45, 0.3, 0.9, 10, "bernoulli"),
    "depth": ConformalInterval(1.25, 0.05, 0.25, 10),
}


def build(run: Written, **options: Any) -> Ensemble:
    members = {name: make_network(run.task, seed) for seed, name in enumerate(NAMES[:2])}
    return Ensemble(members, [2, 1], run.task, **options).eval()


def at(maps: torch.Tensor, target: torch.Tensor) -> Array:
    """Maps ``(K, h, w)`` at the target's size."""
    size = (target.shape[-2], target.shape[-1])
    grown: Array = F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0].double().numpy()
    return grown


def predictions(ensemble: Ensemble, run: Written) -> list[tuple[Prediction, torch.Tensor]]:
    return [(ensemble.predict(images), target) for images, target, _ in images_with_targets(run.data, "val")]


def area_under(uncertainty: Array, error: Array) -> float:
    """Mean over all coverages of the mean error of the most certain pixels."""
    ordered = error[np.argsort(uncertainty, kind="stable")]
    return float((np.cumsum(ordered) / np.arange(1, len(ordered) + 1)).mean())


def require_risk(result: dict[str, Any], uncertainty: list[Array], error: list[Array], by: str) -> None:
    all_of_it, errors = np.concatenate(uncertainty), np.concatenate(error)
    assert result["by"] == by
    assert result["risk"] == pytest.approx(errors.mean()) == pytest.approx(result["curve"][-1][1])
    assert result["aurc"] == pytest.approx(area_under(all_of_it, errors), abs=2e-3)
    half = np.argsort(all_of_it)[: len(errors) // 2]
    assert dict(map(tuple, result["curve"]))[0.5] == pytest.approx(errors[half].mean(), abs=5e-3)


def test_segmentation(written: Callable[[str], Written]) -> None:
    run, guarantee = written("segmentation"), GUARANTEES["segmentation"]
    ensemble = build(run, guarantee=guarantee)
    result = evaluate(ensemble, run.data, "val")
    uncertainty, errors, confidence, held, sizes = [], [], [], [], []
    for prediction, target in predictions(ensemble, run):
        known, labels = (target != 255).numpy(), target.numpy()
        mean = at(prediction.mean[0], target)
        entropy = -(mean * np.log(mean)).sum(0)
        uncertainty.append(entropy[known])
        errors.append((mean.argmax(0) != labels)[known].astype(float))
        confidence.append(mean.max(0)[known])
        sets = (mean >= 0.3) | (np.arange(3)[:, None, None] == mean.argmax(0))
        held.append(np.take_along_axis(sets, np.where(known, labels, 0)[None], 0)[0][known].mean())
        sizes.append(sets.sum(0)[known].mean())
    require_risk(result["risk_coverage"], uncertainty, errors, "entropy")
    # Entropies that differ by less than 0.1 % count as equal: the leading 19 bits of a float32.
    ranks = np.concatenate(uncertainty).astype(np.float32).view(np.int32) >> 13
    auroc = roc_auc_score(np.concatenate(errors), ranks)
    assert result["risk_coverage"]["error_auroc"] == pytest.approx(auroc, abs=2e-3)
    drawn = np.random.default_rng(1).choice(held, (20_000, 8)).mean(1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert result["guarantee"] == {
        **guarantee.describe(), "promised": 0.8, "checked_on": 8,
        "coverage": pytest.approx(np.mean(held)), "mean_size": pytest.approx(np.mean(sizes)),
        "low": pytest.approx(low, abs=0.01), "high": pytest.approx(high, abs=0.01),
    }  # fmt: skip
    right, sure = 1 - np.concatenate(errors), np.concatenate(confidence)
    for row in result["reliability"]:
        inside = (sure >= row["low"]) & (sure < row["high"])
        if row["low"] == 1:
            inside = sure >= 1
        assert abs(row["count"] - inside.sum()) <= 1  # a value on an edge
        if inside.sum() > 50:
            assert row["accuracy"] == pytest.approx(right[inside].mean(), abs=0.02)
            assert row["confidence"] == pytest.approx(sure[inside].mean(), abs=1e-3)
    assert sum(row["count"] for row in result["reliability"]) == len(sure)
    assert "interval_coverage" not in result


def test_multilabel(written: Callable[[str], Written]) -> None:
    run, guarantee = written("multilabel"), GUARANTEES["multilabel"]
    ensemble = build(run, guarantee=guarantee)
    result = evaluate(ensemble, run.data, "val")
    uncertainty, errors, held = [], [], []
    for prediction, target in predictions(ensemble, run):
        mean, masks = at(prediction.mean[0], target), target.numpy()
        assert set(np.unique(masks)) <= {0, 1}
        uncertainty.append(-(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).mean(0).ravel())
        errors.append(((mean >= 0.5) != (masks == 1)).mean(0).ravel())
        held.append((mean >= 0.45)[masks == 1].mean())
    require_risk(result["risk_coverage"], uncertainty, errors, "entropy")
    assert result["guarantee"]["coverage"] == pytest.approx(np.mean(held))
    assert result["guarantee"]["promised"] == 0.7 and result["guarantee"]["kind"] == "risk_control"
    assert sum(row["count"] for row in result["reliability"]) == sum(error.size for error in errors) * 2


def test_depth(written: Callable[[str], Written]) -> None:
    run, guarantee = written("depth"), GUARANTEES["depth"]
    ensemble = build(run, guarantee=guarantee, calibration=VarianceScaling(2.0, 0.3))
    result = evaluate(ensemble, run.data, "val")
    uncertainty, errors, held, widths = [], [], [], []
    examples = images_with_targets(run.data, "val")
    for (prediction, target), (images, _, _) in zip(predictions(ensemble, run), examples, strict=True):
        with torch.no_grad():
            members = [maps for _, maps in ensemble.member_maps(images)]
        valid, metres = (target > 0).numpy(), target.numpy()
        mean = at(prediction.mean[0], target)[0]
        one, two = (at(own[0], target)[0] for own in members)  # of weight 2/3 and 1/3
        spread = 2 / 9 * (one - two) ** 2
        variance = 2.0 * spread + 0.3
        uncertainty.append(variance[valid])
        errors.append(np.abs(mean - metres)[valid])
        reach = 1.25 * np.sqrt(spread + 0.05)  # the interval follows the members' variance before it was scaled
        lower, upper = mean - reach, mean + reach
        held.append(((lower <= metres) & (metres <= upper))[valid].mean())
        widths.append((upper - lower)[valid].mean())
    require_risk(result["risk_coverage"], uncertainty, errors, "variance")
    assert result["risk_coverage"]["error_auroc"] is None
    assert result["guarantee"]["coverage"] == pytest.approx(np.mean(held), abs=1e-3)
    assert result["guarantee"]["mean_size"] == pytest.approx(np.mean(widths), rel=1e-4)
    deviation, error = np.sqrt(np.concatenate(uncertainty)), np.concatenate(errors)
    intervals = result["interval_coverage"]
    for level, share in zip(intervals["levels"], intervals["coverage"], strict=True):
        reach = {0.5: 0.67449, 0.8: 1.28155, 0.9: 1.64485, 0.95: 1.95996}[level]
        assert share == pytest.approx((error <= reach * deviation).mean(), abs=1e-3)
    assert "reliability" not in result


@pytest.mark.parametrize("kind", ["saliency", "keypoints", "density", "image"])
def test_tasks_without_errors_have_no_trust_values(kind: str, written: Callable[[str], Written]) -> None:
    run = written(kind)
    result = evaluate(build(run), run.data, "val")
    assert not {"risk_coverage", "interval_coverage", "guarantee", "reliability"} & set(result)
    assert set(result["members"]) == {"one", "two"} and result["images"] == 8


def test_no_guarantee_is_checked_without_one(written: Callable[[str], Written]) -> None:
    run = written("segmentation")
    assert "guarantee" not in evaluate(build(run), run.data, "val")


def test_an_ensemble_in_train_mode_is_scored_in_eval_mode(written: Callable[[str], Written]) -> None:
    run = written("segmentation")
    expected = evaluate(build(run), run.data, "val")
    ensemble = build(run).train()
    before = {name: tensor.clone() for name, tensor in ensemble.state_dict().items()}
    assert evaluate(ensemble, run.data, "val") == expected
    assert all(module.training for module in ensemble.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ensemble.state_dict().items())


def test_a_member_is_scored_on_the_images_with_usable_maps(written: Callable[[str], Written]) -> None:
    run = written("segmentation")
    whole, spoilt = build(run), build(run, min_members=1)
    member = spoilt.members["two"].head.logits  # what runs of a member is not its whole forward
    calls = iter(range(8))

    def sometimes(module: Any, images: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits * torch.nan if next(calls) % 2 else logits

    handle = member.register_forward_hook(sometimes)
    with pytest.warns(UserWarning, match="'two' gives NaN"):
        result = evaluate(spoilt, run.data, "val")
    handle.remove()
    expected = evaluate(whole, run.data, "val")
    assert result["images"] == 8 and result["miou"] is not None
    assert result["members"]["one"] == expected["members"]["one"]
    assert result["members"]["two"] != expected["members"]["two"]
    odd = [str(sample.image) for sample in run.data.val[1::2]]
    assert result["without"] == [{"image": image, "members": {"two": "gives NaN or infinity"}} for image in odd]
    assert "without" not in expected
    always = member.register_forward_hook(lambda module, images, logits: logits * torch.nan)
    with pytest.warns(UserWarning):
        none = evaluate(spoilt, run.data, "val")
    with pytest.raises(ArtifactError, match=f"{run.data.val[0].image}': member 'two' gives NaN"):
        evaluate(Ensemble(dict(spoilt.members), None, run.task).eval(), run.data, "val")  # type: ignore[arg-type]
    always.remove()
    assert none["members"]["two"]["nll"] is None and none["members"]["one"] == expected["members"]["one"]
    assert none["miou"] == pytest.approx(none["members"]["one"]["miou"])
