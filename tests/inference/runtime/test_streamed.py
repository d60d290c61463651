"""Streamed members: the maps of the plain ensemble, and at most two members on the device."""

from pathlib import Path

import pytest
import torch
from small_networks import small_dense

import densemble as de
from densemble.ensemble.member_views import ViewedMember
from densemble.ensemble.placement import weight_bytes
from densemble.inference.predict import prepared
from densemble.inference.runtime import streamed as streaming
from densemble.inference.runtime.streamed import WeightStream, is_streamed, placed, streamed

CPU = torch.device("cpu")


@pytest.fixture
def ensemble() -> de.Ensemble:
    members = {str(seed): small_dense(seed) for seed in range(4)}
    mirrored = ViewedMember(members["1"], "hflip")
    return de.Ensemble({**members, "mirrored": mirrored}, [5, 4, 3, 2, 1], task=de.TASKS["saliency"]()).eval()


def test_maps_are_those_of_the_plain_ensemble(ensemble: de.Ensemble) -> None:
    images = torch.rand(3, 3, 48, 64)
    made = streamed(ensemble, CPU)
    for _ in range(2):
        got, expected = made.predict_members(images), ensemble.predict_members(images)
        for name, maps in expected.maps().items():
            torch.testing.assert_close(getattr(got, name), maps, rtol=0, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(made(images), ensemble(images), rtol=0, atol=1e-6)
    assert is_streamed(made) and not is_streamed(ensemble) and prepared(made, "auto") is made
    assert made.cascade is None and list(made.weights) == list(ensemble.weights)


def test_the_weights_of_at_most_two_members_are_on_the_device(ensemble: de.Ensemble) -> None:
    made = streamed(ensemble, CPU)
    assert weight_bytes(made) == 0
    stream = next(member for _, member in made.named_members()).stream
    assert len(stream._host) == 4  # the mirrored member has the weights of another
    for index in (0, 1, 2, 3, 0):
        assert stream.weights(index).keys() == stream._host[index].keys()
        assert list(stream._ahead) == [(index + 1) % 4]


def test_weights_are_copied_one_network_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    copy_weights = WeightStream._copy

    def noted(self: WeightStream, index: int) -> dict[str, torch.Tensor]:
        copied.append(index)
        return copy_weights(self, index)

    monkeypatch.setattr(WeightStream, "_copy", noted)
    stream = WeightStream([small_dense(seed) for seed in range(3)], CPU)
    for index in (0, 1, 2, 0):
        stream.weights(index)
    assert copied == [0, 1, 2, 0, 1]  # only the first one was waited for
    stream.weights(2)  # out of order
    assert copied == [0, 1, 2, 0, 1, 2, 0]


def test_an_ensemble_that_does_not_fit_is_streamed(
    ensemble: de.Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]
) -> None:
    size = weight_bytes(ensemble)
    assert size == sum(p.nbytes for seed in range(4) for p in small_dense(seed).parameters())
    monkeypatch.setattr(streaming, "find_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(streaming, "streamed", lambda ensemble, device: device.type)
    monkeypatch.setattr(streaming, "on_device", lambda ensemble, name: name)
    for free, expected in ((1.9 * size, "cuda"), (2.1 * size, "auto")):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 10 * free))
        assert placed(ensemble, "auto") == expected
    assert [line for line in lines if "too large for the free memory of the GPU" in line] == lines and len(lines) == 1
