import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.backends import BACKENDS, Backend, Precision, Runner
from densemble.inference.tune import DRIFT, EXACT, candidates, tune

CPU = torch.device("cpu")


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()


@pytest.fixture
def example() -> Tensor:
    return torch.randn(1, 3, 128, 128)


def backend(change: float = 0.0, wait: float = 0.0, fails: str | None = None) -> Backend:
    """One that answers with the right numbers, changed by a share of the largest, at once or after a while."""

    def compile(network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]) -> Runner:
        if fails is not None:
            raise UsageError(fails)
        with torch.no_grad():
            known = network(example)
        pattern = torch.ones_like(known)
        pattern[..., ::2] = -1
        answer = known + change * known.abs().max() * pattern

        def run(images: Tensor) -> list[Tensor]:
            time.sleep(wait)
            return [answer]

        return run

    return Backend(lambda device: None, lambda device: ("fp32", "bf16"), compile, runs_network=True)


def chosen(network: nn.Module, example: Tensor, *pairs: tuple[str, Precision], named: str | None = None) -> str:
    choice, _ = tune(network, example, torch.sigmoid, pairs, named=named)
    return f"{choice.backend} {choice.precision}"


def test_the_fastest_with_right_numbers_is_chosen(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "quick", backend())
    monkeypatch.setitem(BACKENDS, "slow", backend(wait=0.05))
    assert chosen(network, example, ("slow", "fp32"), ("quick", "fp32")) == "quick fp32"


@pytest.mark.parametrize(
    ("precision", "change", "accepted"),
    [("fp32", EXACT / 2, True), ("fp32", EXACT * 2, False), ("bf16", EXACT * 2, True), ("bf16", 0.5, False)],
)
def test_wrong_numbers_are_refused(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch, precision: Precision, change: float,
    accepted: bool,
) -> None:  # fmt: skip
    monkeypatch.setitem(BACKENDS, "quick", backend(change))
    choice, run = tune(network, example, torch.sigmoid, [("quick", precision)])
    assert (choice.backend == "quick") == accepted
    assert (f"quick {precision}" in choice.refused) != accepted
    if not accepted:
        with torch.no_grad():
            torch.testing.assert_close(run(example)[0], network(example), rtol=1e-4, atol=1e-5)


def test_a_lower_precision_is_judged_by_the_variation_of_the_maps(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of maps changed by +-d everywhere the error is d over their standard deviation: here computed by hand."""
    with torch.no_grad():
        logits = network(example)
    change = 0.01
    monkeypatch.setitem(BACKENDS, "quick", backend(change))
    choice, _ = tune(network, example, lambda logits: logits, [("quick", "bf16")])
    deviation = (logits - logits.mean((-2, -1), keepdim=True)).square().mean().sqrt()
    by_hand = float(change * logits.abs().max() / deviation)
    if by_hand <= DRIFT:
        assert choice.error == pytest.approx(by_hand, rel=1e-3)
    else:
        assert f"{by_hand:.2g}" in choice.refused["quick bf16"]


def test_eager_is_kept_where_nothing_is_faster(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "slow", backend(wait=0.05))
    assert chosen(network, example, ("slow", "fp32")) == "eager fp32"
    assert chosen(network, example, ("slow", "fp32"), named="slow") == "slow fp32"


def test_a_backend_that_cannot_take_a_network_is_passed_over(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "none", backend(fails="no rule for this operation"))
    choice, _ = tune(network, example, torch.sigmoid, [("none", "fp32")], named="none")
    assert (choice.backend, choice.refused) == ("eager", {"none fp32": "no rule for this operation"})


def test_what_is_remembered_is_checked_and_not_timed(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "quick", backend())
    first, _ = tune(network, example, torch.sigmoid, [("quick", "fp32")])
    assert first.backend == "quick"
    kept = replace(first, seconds={"eager fp32": 3.0, "quick fp32": 1.0})
    again, _ = tune(network, example, torch.sigmoid, [("quick", "fp32")], remembered=kept)
    assert again.seconds == kept.seconds and again.speedup == 3
    monkeypatch.setitem(BACKENDS, "quick", backend(change=1.0))  # a new version that is wrong
    changed, _ = tune(network, example, torch.sigmoid, [("quick", "fp32")], remembered=kept)
    assert changed.backend == "eager"


def test_candidates() -> None:
    exact = [("eager", "fp32")]
    assert candidates("eager", "fp32", CPU) == exact
    assert all(precision == "fp32" for _, precision in candidates("auto", "fp32", CPU))
    assert all(precision != "int8" for _, precision in candidates("auto", "auto", CPU))
    assert exact[0] in candidates("openvino", "int8", CPU), "the reference is always there"
    assert "inductor" not in {name for name, _ in candidates("auto", "auto", CPU)}, "it compiles for minutes"


def test_onnxruntime_is_tried_where_openvino_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    if BACKENDS["onnxruntime"].missing(CPU) is not None or BACKENDS["openvino"].missing(CPU) is not None:
        pytest.skip("onnxruntime and openvino are not both installed")
    assert "onnxruntime" not in {name for name, _ in candidates("auto", "fp32", CPU)}
    monkeypatch.setitem(BACKENDS, "openvino", replace(BACKENDS["openvino"], missing=lambda device: "not here"))
    assert "onnxruntime" in {name for name, _ in candidates("auto", "fp32", CPU)}


def test_a_backend_that_is_not_there_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "absent", replace(backend(), missing=lambda device: "pip install absent"))
    with pytest.raises(UsageError, match="pip install absent"):
        candidates("absent", "fp32", CPU)
    assert "absent" not in {name for name, _ in candidates("auto", "fp32", CPU)}
