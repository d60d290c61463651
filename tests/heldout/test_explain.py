"""What members are worth and where they help: planted cases and plain numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_heldout import SIZE, TASKS, small_set

from densemble.ensemble.uncertainty import entropy
from densemble.errors import UsageError
from densemble.heldout.explain import class_scores, disputed, error_correlation, leave_one_out
from densemble.heldout.predictions import held_out
from densemble.tasks import MultilabelTask, SegmentationTask
from densemble.tasks.objectives import make_objective

MAE = make_objective(TASKS["mae"], "mae")
MIOU = make_objective(TASKS["miou"], "miou")


@pytest.mark.parametrize("metric", ["miou", "mae", "cc"])
def test_error_correlation_is_that_of_numpy(metric: str) -> None:
    held = small_set(TASKS[metric], (1.0, 1.2, 1.4))
    errors = []
    for maps in held.maps:
        own = []
        for predicted, (target, _) in zip(maps.astype(np.float64), held.truths, strict=True):
            wanted = target.numpy()
            if metric == "miou":
                own.append((predicted.argmax(0) != wanted)[wanted != 255])
            else:
                own.append(np.abs(predicted[0] - wanted).ravel())
        errors.append(np.concatenate(own).astype(float))
    np.testing.assert_allclose(error_correlation(held), np.corrcoef(errors), atol=1e-6)


def test_errors_of_masks_are_counted_where_they_are_known() -> None:
    target = torch.tensor([[[0, 1, 1, 0, 255]]])
    maps = [np.array([[[[0.9, 0.9, 0.1, 0.1, noise]]]], np.float16) for noise in (0.0, 1.0)]
    maps.append(np.array([[[[0.9, 0.9, 0.9, 0.1, 0.0]]]], np.float16))
    found = error_correlation(held_out(["a", "b", "c"], maps, [(target, None)], MultilabelTask(("road",))))
    wanted = np.corrcoef([[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_errors_that_never_vary_have_no_correlation() -> None:
    held = small_set(TASKS["mae"], (0.0, 1.0, 1.0))
    shifted = replace(held, maps=(np.stack([(t + 0.25).numpy()[None] for t, _ in held.truths]), *held.maps[1:]))
    found = error_correlation(shifted)
    assert found[0].isnan().all()
    assert found[1:, 1:].isfinite().all()


def test_leave_one_out_scores_the_others() -> None:
    held = small_set(TASKS["mae"], (0.3, 1.0, 3.0, 9.0))
    weights, times = [0.5, 0.25, 0.25, 0.0], (6.0, 1.0, 3.0, 100.0)
    found = leave_one_out(held, weights, MAE, times)
    maps = np.stack([np.asarray(own, np.float64)[:, 0] for own in held.maps])
    targets = np.stack([target.numpy() for target, _ in held.truths])

    def error(mixture: list[float]) -> float:
        return float(np.abs(np.average(maps, axis=0, weights=mixture) - targets).mean())

    whole = error(weights)
    assert [worth.name for worth in found] == ["member0", "member1", "member2"]
    for worth, mixture in zip(found, ([0, 1, 1, 0], [2, 0, 1, 0], [2, 1, 0, 0]), strict=True):
        assert worth.without == pytest.approx(error(mixture), rel=1e-5)
        assert worth.gain == pytest.approx(error(mixture) - whole, rel=1e-4)
    assert found[0].gain > 0 > found[2].gain
    assert [worth.share for worth in found] == [0.6, 0.1, 0.3]
    assert [worth.weight for worth in found] == [0.5, 0.25, 0.25]


def test_a_member_alone_has_nothing_to_compare_with() -> None:
    (worth,) = leave_one_out(small_set(TASKS["miou"], (1.0, 1.0)), [0.0, 2.0], MIOU)
    assert worth.name == "member1"
    assert worth.weight == 1
    assert np.isnan([worth.without, worth.gain]).all()
    assert worth.milliseconds is None
    assert worth.share is None


def test_each_class_is_scored_for_each_candidate() -> None:
    held = small_set(TASKS["miou"], (1.0, 1.5))
    found = class_scores(held, [1.0, 3.0])
    rows = [*found.members.values(), found.ensemble]
    assert list(found.members) == ["member0", "member1"]
    assert found.classes == ("a", "b", "c")
    for row, weights in zip(rows, ([1, 0], [0, 1], [1, 3]), strict=True):
        metric = held.task.metrics()
        for picture, truth in enumerate(held.truths):
            stack = np.stack([maps[picture].astype(np.float32) for maps in held.maps])
            metric.update(torch.from_numpy(np.average(stack, axis=0, weights=weights)), *truth)
        assert row == pytest.approx(metric.compute()["iou_per_class"])


def test_a_class_that_occurs_nowhere_has_no_score_and_other_tasks_have_no_classes() -> None:
    held = small_set(SegmentationTask(("a", "b", "c")), (0.0,))
    blank = replace(held, truths=[(torch.zeros(SIZE), None)] * 6, maps=(held.maps[0] * 0 + [[[1]], [[0]], [[0]]],))
    assert class_scores(blank, [1.0]).ensemble == pytest.approx((1, np.nan, np.nan), nan_ok=True)
    with pytest.raises(UsageError, match="saliency has no classes"):
        class_scores(small_set(TASKS["cc"], (1.0,)), [1.0])


@pytest.mark.parametrize("metric", ["miou", "mae"])
def test_the_planted_dispute_comes_first(metric: str) -> None:
    task = TASKS[metric]
    held = small_set(task, (0.05, 0.05, 0.05))
    for number, maps in enumerate(held.maps[:2]):
        maps[3] = np.roll(maps[3], number + 1, axis=-1)
    objective = make_objective(task, metric)
    found = disputed(held.only((5, 3, 1)), [1.0, 1.0, 0.0], objective)
    assert sorted(one.picture for one in found) == [1, 3, 5]
    assert found[0].picture == 3
    assert found[0].disagreement > 5 * found[1].disagreement
    sign = 1 if objective.higher_is_better else -1
    assert sign * found[0].score < min(sign * one.score for one in found[1:])


def test_disagreement_is_the_mutual_information_of_the_weighted_members() -> None:
    held = small_set(TASKS["nll"], (1.0, 1.5, 2.0), pictures=1)
    p = held.read(0).double()
    w = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    mean = torch.tensordot(w, p, 1)[None]
    wanted = entropy(mean, "categorical")[0] - torch.tensordot(w, entropy(p, "categorical"), 1)
    (found,) = disputed(held, [2.0, 1.0, 1.0], MIOU)
    assert found.disagreement == pytest.approx(float(wanted.mean()), rel=1e-4)


def test_without_probabilities_disagreement_is_the_spread() -> None:
    held = small_set(TASKS["mae"], (1.0, 1.5), pictures=1)
    (found,) = disputed(held, [1.0, 1.0], MAE)
    assert found.disagreement == pytest.approx(float(held.read(0).std(0, correction=0).mean()), rel=1e-5)
