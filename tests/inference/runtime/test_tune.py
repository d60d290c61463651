"""Selection of a backend, with a clock that the backends move, and errors known by hand."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from densemble.errors import UsageError
from densemble.inference.runtime.backends import BACKENDS, Backend, Precision, Runner
from densemble.inference.runtime.choose_backend import DRIFT, EXACT, candidates, tune

CPU = torch.device("cpu")
module = sys.modules["densemble.inference.runtime.choose_backend"]


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1)).eval()


@pytest.fixture
def example() -> Tensor:
    return torch.randn(1, 3, 128, 128)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that runs of backends took, on which they are compared; eager takes one."""
    now = [0.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setitem(BACKENDS, "eager", timed(BACKENDS["eager"], now, 1.0))
    return now


def timed(backend: Backend, clock: list[float], seconds: float) -> Backend:
    """The backend, every run of which moves the clock on."""

    def compile(*arguments: Any) -> Runner:
        run = backend.compile(*arguments)

        def run_and_wait(images: Tensor) -> list[Tensor]:
            clock[0] += seconds
            return list(run(images))

        return run_and_wait

    return replace(backend, compile=compile)


def backend(change: float = 0.0, fails: str | None = None) -> Backend:
    """One that gives the right numbers, changed by a share of the largest."""

    def compile(network: nn.Module, example: Tensor, precision: Precision, calibration: Sequence[Tensor]) -> Runner:
        if fails is not None:
            raise UsageError(fails)
        with torch.no_grad():
            known = network(example)
        pattern = torch.ones_like(known)
        pattern[..., ::2] = -1
        answer = known + change * known.abs().max() * pattern

        return lambda images: [answer]

    return Backend(compile, precisions=lambda device: ("fp32", "bf16"))


def chosen(network: nn.Module, example: Tensor, *pairs: tuple[str, Precision], named: str | None = None) -> str:
    choice, _ = tune(network, example, torch.sigmoid, pairs, named=named)
    return f"{choice.backend} {choice.precision}"


def test_the_fastest_backend_with_right_outputs_is_selected(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setitem(BACKENDS, "quick", timed(backend(), clock, 0.5))
    monkeypatch.setitem(BACKENDS, "slow", timed(backend(), clock, 0.75))
    monkeypatch.setitem(BACKENDS, "wrong", timed(backend(change=1.0), clock, 0.25))
    pairs = [("slow", "fp32"), ("quick", "fp32"), ("wrong", "fp32")]
    choice, _ = tune(network, example, torch.sigmoid, pairs)  # type: ignore[arg-type]
    assert (choice.backend, choice.speedup) == ("quick", 2.0)
    assert choice.seconds == {"eager fp32": 1.0, "slow fp32": 0.75, "quick fp32": 0.5}


@pytest.mark.parametrize(
    ("precision", "change", "accepted"),
    [("fp32", EXACT / 2, True), ("fp32", EXACT * 2, False), ("bf16", EXACT * 2, True), ("bf16", 0.5, False)],
)
def test_wrong_outputs_are_refused(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch, clock: list[float], precision: Precision,
    change: float, accepted: bool,
) -> None:  # fmt: skip
    monkeypatch.setitem(BACKENDS, "quick", timed(backend(change), clock, 0.5))
    choice, run = tune(network, example, torch.sigmoid, [("quick", precision)])
    assert (choice.backend == "quick") == accepted
    assert (f"quick {precision}" in choice.refused) != accepted
    if not accepted:
        with torch.no_grad():
            torch.testing.assert_close(run(example)[0], network(example), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("background", "change", "by_hand", "refused"),
    [(0.0, 0.02, 0.02, False), (0.0, 0.04, 0.04, True), (3.0, 0.02, 0.08, True)],
)
def test_a_lower_precision_is_judged_by_the_variation_of_the_maps(
    example: Tensor, monkeypatch: pytest.MonkeyPatch, clock: list[float], background: float, change: float,
    by_hand: float, refused: bool,
) -> None:  # fmt: skip
    """A map of +1 and -1 around its mean has the standard deviation 1, whatever the mean.

    The backend changes it everywhere by ``change`` times its largest value, which is 1 + ``background``.
    """
    assert by_hand == pytest.approx(change * (1 + background)) and (by_hand > DRIFT) == refused
    checkerboard = torch.ones(1, 1, 8, 8)
    checkerboard[..., ::2, :] = -1

    class Checkerboard(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return checkerboard + background

    monkeypatch.setitem(BACKENDS, "quick", timed(backend(change), clock, 0.5))
    choice, _ = tune(Checkerboard(), example, lambda logits: logits, [("quick", "bf16")])
    if refused:
        assert choice.refused == {"quick bf16": f"its outputs differ by {by_hand:.2g} from eager fp32"}
    else:
        assert choice.backend == "quick" and choice.error == pytest.approx(by_hand, rel=1e-5)


def test_eager_is_kept_where_nothing_is_faster(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setitem(BACKENDS, "slow", timed(backend(), clock, 1.5))
    assert chosen(network, example, ("slow", "fp32")) == "eager fp32"
    assert chosen(network, example, ("slow", "fp32"), named="slow") == "slow fp32"
    monkeypatch.setitem(BACKENDS, "slow", timed(backend(), clock, 0.99))  # gains less than GAIN
    assert chosen(network, example, ("slow", "fp32")) == "eager fp32"


def test_a_backend_that_cannot_compile_a_network_is_skipped(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKENDS, "none", backend(fails="no rule for this operation"))
    choice, _ = tune(network, example, torch.sigmoid, [("none", "fp32")], named="none")
    assert (choice.backend, choice.refused) == ("eager", {"none fp32": "no rule for this operation"})


def test_a_remembered_choice_is_checked_and_not_timed(
    network: nn.Module, example: Tensor, monkeypatch: pytest.MonkeyPatch, clock: list[float]
) -> None:
    monkeypatch.setitem(BACKENDS, "quick", timed(backend(), clock, 0.5))
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


def test_a_missing_backend_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "absent", replace(backend(), missing=lambda device: "pip install absent"))
    with pytest.raises(UsageError, match="pip install absent"):
        candidates("absent", "fp32", CPU)
    assert "absent" not in {name for name, _ in candidates("auto", "fp32", CPU)}
