import copy
import weakref
from pathlib import Path

import pytest
import torch
from sampled import sampled
from small_networks import OTHER, SMALL
from torch import Tensor

import densemble as de
from densemble.ensemble.member_views import ViewedMember
from densemble.inference.predict import prepared
from densemble.inference.runtime.backends.openvino import OpenVINORunner
from densemble.inference.runtime.execution import Execution
from densemble.inference.runtime.fast_ensemble import FastMember, accelerate, choices
from densemble.inference.runtime.shared_compilation import SharedRunner
from densemble.inference.runtime.tuned_network import RewrittenMembers
from densemble.nets.dense import DenseModel
from densemble.nets.rewrite import for_inference, same_tensors


def make(backbone: str = SMALL, seed: int = 0, **options: object) -> DenseModel:
    torch.manual_seed(seed)
    given = {"weights": None, "out_channels": 2, "out_size": (24, 32), "head": "upsample", **options}
    return DenseModel(backbone, **given).eval()  # type: ignore[arg-type]


def some_images(batch: int = 2, seed: int = 3) -> Tensor:
    return torch.rand(batch, 3, 64, 80, generator=torch.Generator().manual_seed(seed))


def three() -> de.Ensemble:
    return de.Ensemble([make(), make(OTHER, 1), make(seed=2)], weights=[3, 2, 1]).eval()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of outputs of every run of OpenVINO from now on."""
    calls: list[int] = []
    run = OpenVINORunner.__call__

    def watched(self: OpenVINORunner, images: Tensor) -> list[Tensor]:
        calls.append(len(result := run(self, images)))
        return result

    monkeypatch.setattr(OpenVINORunner, "__call__", watched)
    return calls


def test_joined_networks_run_once_and_give_equal_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = three()
    alone = accelerate(ensemble, some_images(), "openvino", "fp32", shared=False)
    joined = accelerate(ensemble, some_images(), "openvino", "fp32")
    calls = counted(monkeypatch)
    wanted = dict(alone.member_maps(some_images()))
    assert calls == [1, 1, 1]
    calls.clear()
    result = dict(joined.member_maps(some_images()))
    assert calls == [3], "one run for all"
    assert list(result) == list(wanted)
    for name, maps in wanted.items():
        assert torch.equal(result[name], maps), name


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.slow
def test_parts_of_a_batch_run_once_for_all_networks(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = three()
    joined = accelerate(ensemble, some_images(2), "openvino", "fp32")
    calls = counted(monkeypatch)
    result = joined(some_images(batch, seed=5))
    assert calls == [3] * -(-batch // 2)
    with torch.no_grad():
        torch.testing.assert_close(result, ensemble(some_images(batch, seed=5)), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_networks_that_normalize_differently_are_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = de.Ensemble([make(), make(seed=1), make(seed=2, mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))]).eval()
    joined = accelerate(ensemble, some_images(), "openvino", "fp32")
    calls = counted(monkeypatch)
    result = joined(some_images())
    assert sorted(calls) == [1, 2]
    with torch.no_grad():
        torch.testing.assert_close(result, ensemble(some_images()), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_network_with_a_rotated_view_runs_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    member = make()
    ensemble = de.Ensemble(
        {"a": member, "b": ViewedMember(member, "hflip"), "c": make(seed=1), "d": make(seed=2)}
    ).eval()
    joined = accelerate(ensemble, some_images(), "openvino", "fp32")
    calls = counted(monkeypatch)
    result = joined(some_images())
    assert sorted(calls) == [1, 1, 2]
    with torch.no_grad():
        torch.testing.assert_close(result, ensemble(some_images()), rtol=1e-4, atol=1e-5)


def test_other_images_written_into_the_same_tensor_are_seen() -> None:
    ensemble = three()
    for backend in ("eager", "openvino"):
        quick = accelerate(ensemble, some_images(), backend, "fp32")
        images = some_images()
        first = quick(images)
        images.copy_(some_images(seed=9))
        second = quick(images)
        by_member = quick.members[OTHER](images)
        images.copy_(some_images(seed=3))
        assert torch.equal(quick(images), first)
        with torch.no_grad():
            torch.testing.assert_close(second, ensemble(some_images(seed=9)), rtol=1e-4, atol=1e-5)
            wanted = ensemble.members[OTHER](some_images(seed=9))
        torch.testing.assert_close(by_member, wanted, rtol=1e-4, atol=1e-4)


def test_a_fast_ensemble_runs_inside_and_outside_inference_mode() -> None:
    quick = accelerate(three(), some_images(), "eager", "fp32")
    with torch.inference_mode():
        inside = quick(some_images())
    outside = quick(some_images())
    assert not outside.requires_grad
    assert torch.equal(inside, outside)


def test_only_the_last_network_stays_compiled_until_all_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[OpenVINORunner] = []
    rest = OpenVINORunner.rest

    def watched(self: OpenVINORunner) -> None:
        released.append(self)
        rest(self)

    monkeypatch.setattr(OpenVINORunner, "rest", watched)
    joined = accelerate(three(), some_images(), "openvino", "fp32")
    assert len({id(runner) for runner in released}) == 3
    runners = [tuned.runner for own in choices(joined).values() for tuned in own]
    assert all(isinstance(runner, SharedRunner) and runner.separate is None for runner in runners)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The number of outputs of every network that OpenVINO compiles from now on; nothing is remembered at first."""
    result: list[int] = []
    plain = OpenVINORunner._compiled

    def watched(self: OpenVINORunner) -> object:
        result.append(len(self.model.outputs))
        return plain(self)

    monkeypatch.setattr(OpenVINORunner, "_compiled", watched)
    monkeypatch.setenv("DENSEMBLE_CACHE_DIR", str(tmp_path))
    return result


@pytest.mark.slow
def test_networks_tuned_after_a_run_are_compiled_separately_then_joined(
    compiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Execution, "worth", lambda *_: True)
    quick = prepared(three(), "openvino", "fp32")
    for member in quick.members.values():
        assert isinstance(member, FastMember)
        member.network.execution.expected = 1000
    wanted = quick(some_images())
    assert compiled == [1, 1, 1]
    result = quick(some_images())
    assert compiled == [1, 1, 1, 3]
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)


def test_remembered_networks_are_compiled_once_together(compiled: list[int]) -> None:
    first = accelerate(three(), some_images(), "openvino", "fp32")
    assert compiled == [1, 1, 1, 3]
    compiled.clear()
    again = accelerate(three(), some_images(), "openvino", "fp32")
    assert compiled == [3]
    other = some_images(seed=8)
    assert torch.equal(again(other), first(other))


@pytest.mark.slow
def test_a_batch_of_remembered_networks_is_predicted_without_compiling(compiled: list[int]) -> None:
    ensemble = three()
    accelerate(ensemble, some_images(), "openvino", "fp32")
    compiled.clear()
    quick = prepared(ensemble, "openvino", "fp32")
    result = quick(some_images())
    assert compiled == []
    with torch.no_grad():
        torch.testing.assert_close(result, ensemble(some_images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("members", sampled([1, 3], [1]))
def test_remembered_networks_with_wrong_outputs_run_eagerly(
    members: int, compiled: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ensemble = de.Ensemble([make(), make(OTHER, 1), make(seed=2)][:members]).eval()
    accelerate(ensemble, some_images(), "openvino", "fp32")
    run = OpenVINORunner.__call__

    def wrong(self: OpenVINORunner, images: Tensor) -> list[Tensor]:
        return [*run(self, images)[:-1], run(self, images)[-1] + 1]

    monkeypatch.setattr(OpenVINORunner, "__call__", wrong)
    quick = accelerate(ensemble, some_images(), "openvino", "fp32")
    other = some_images(seed=8)
    with torch.no_grad():
        torch.testing.assert_close(quick(other), ensemble(other), rtol=1e-4, atol=1e-5)
    *right, last = [tuned.runner for own in choices(quick).values() for tuned in own]
    assert isinstance(last, SharedRunner) and last.separate is not None
    assert all(isinstance(runner, SharedRunner) and runner.separate is None for runner in right)


def test_rewritten_weights_are_released_if_the_backend_copies_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[DenseModel]] = []

    def watched(self: RewrittenMembers, seen: object, stops_at: object) -> object:
        result = network(self, seen, stops_at)  # type: ignore[arg-type]
        made.extend(weakref.ref(model) for model in self._models)
        return result

    network = RewrittenMembers.network
    monkeypatch.setattr(RewrittenMembers, "network", watched)
    kept = accelerate(de.Ensemble([make(OTHER)]), some_images(), "openvino", "fp32")
    assert made
    assert not [ref for ref in made if ref() is not None]
    made.clear()
    eager = accelerate(de.Ensemble([make(OTHER)]), some_images(), "eager", "fp32")
    assert [ref for ref in made if ref() is not None], "the eager runner needs them"
    assert kept(some_images()).shape == eager(some_images()).shape


def test_a_fast_member_has_the_weights_of_the_plain_one_in_the_same_memory() -> None:
    ensemble = de.Ensemble([make(OTHER)]).eval()
    quick = accelerate(ensemble, some_images(), "openvino", "fp32")
    (member,), (plain,) = quick.members.values(), ensemble.members.values()
    assert isinstance(member, FastMember)
    pairs = list(zip(member.parameters(), plain.parameters(), strict=True))
    assert all(own.data_ptr() == other.data_ptr() for own, other in pairs)
    assert all(own is not other for own, other in pairs)


def test_changing_the_memory_format_of_a_copy_keeps_the_original() -> None:
    plain = make(OTHER).train()
    before = copy.deepcopy(plain.state_dict())
    other = same_tensors(plain).eval().to(memory_format=torch.channels_last)
    for_inference(other)
    assert plain.training
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())
    assert plain.backbone.get_parameter(next(iter(dict(plain.backbone.named_parameters())))).is_contiguous()
