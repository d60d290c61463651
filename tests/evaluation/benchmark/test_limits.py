"""Limits of the machine: rates of operations with a known time, and how measurements are combined."""

import time

import pytest
import torch
from torch import Tensor

from densemble.evaluation.benchmark.machine_limits import PARTS, MachineLimits, _rates, measure_limits
from densemble.inference.runtime.backends.backend import native_bf16

CPU = torch.device("cpu")


def test_a_rate_is_work_divided_by_time() -> None:
    def sleep() -> Tensor:
        time.sleep(0.01)
        return torch.zeros(())

    rates = _rates(sleep, 1000, CPU, 0.03)
    assert len(rates) == PARTS
    assert 0 < max(rates) <= 1000 / 0.01  # asleep at least as long as asked for


@pytest.mark.slow
def test_all_supported_precisions_are_measured() -> None:
    limits = measure_limits(CPU, 0.001)
    assert set(limits.convolution) == set(limits.matmul) == {"fp32", *(["bf16"] if native_bf16(CPU) else [])}
    assert limits.bandwidth > 1e8 and min(limits.convolution.values()) > 1e8
    for precision, best in limits.convolution.items():
        ours = [values for name, values in limits.samples.items() if name.endswith(precision) and "channels" in name]
        assert len(ours) == 6 and best == max(sorted(values)[PARTS // 2] for values in ours)


def test_the_higher_of_two_rates_is_kept() -> None:
    first = MachineLimits({"fp32": 5.0}, {"fp32": 1.0}, 7.0, {"copy": [7.0]})
    later = MachineLimits({"fp32": 4.0}, {"fp32": 2.0}, 8.0, {"copy": [8.0]})
    assert first | later == MachineLimits({"fp32": 5.0}, {"fp32": 2.0}, 8.0, {"copy": [7.0, 8.0]})
    assert first.seconds(10, "fp32") == pytest.approx(2)
    assert first.seconds(10, "int8") is None
