"""Scores of cascade policies equal the scores of the maps that they return, at the size of the targets."""

from collections.abc import Callable

import pytest
import torch
from sampled import sampled
from selection.written_runs import Written

from densemble.ensemble.cascade import cascade_use
from densemble.ensemble.resize import resize_maps
from densemble.evaluation.scores import evaluate, images_with_targets
from densemble.inference.cascade_runner import predict_cascade
from densemble.selection import served_cascade as cascading

Fresh = Callable[[str], Written]


@pytest.mark.parametrize("kind", sampled(["saliency", "segmentation", "multilabel", "depth"], ["segmentation"]))
def test_scores_of_policies_equal_a_run_of_the_cascade(fresh: Fresh, kind: str) -> None:
    run = fresh(kind)
    ensemble = run.run.assemble(select="all")
    cascade, task = ensemble.cascade, run.task
    assert cascade is not None and cascade.images == len(run.data.val)
    assert cascade.full == pytest.approx(evaluate(ensemble, run.data, "val")[cascade.metric], rel=1e-4)
    assert any(len(policy.members) < 3 for policy in cascade.policies)
    for policy in cascade.policies:
        metric, used = task.metrics(), []
        for images, target, points in images_with_targets(run.data, "val"):
            result = predict_cascade(ensemble, images, policy)
            size = (int(target.shape[-2]), int(target.shape[-1]))
            maps = resize_maps(result.prediction.mean, size, task.target_kind == "density")
            metric.update(maps[0], target, points)
            used.append(result.used)
        assert policy.score == pytest.approx(metric.compute()[cascade.metric], rel=1e-4), policy
        assert policy.cost == pytest.approx(cascade_use(torch.cat(used), policy, cascade.shares).cost)


def test_policies_are_measured_on_evenly_spaced_images(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    run = fresh("saliency")
    monkeypatch.setattr(cascading, "MAX_IMAGES", 5)
    measured: list[object] = []
    fit = cascading.fit_cascade

    def spy(held, combination, objective, milliseconds, served):  # type: ignore[no-untyped-def]
        measured.extend(served.images)
        return fit(held, combination, objective, milliseconds, served)

    monkeypatch.setattr(cascading, "fit_cascade", spy)
    ensemble = run.run.assemble(select="all")
    assert ensemble.cascade is not None and ensemble.cascade.images == 5
    assert measured == [0, 1, 3, 4, 6]
