from collections.abc import Callable

import pytest
import torch
from small_networks import OTHER, SMALL
from torch import Tensor, nn

import densemble as de
from densemble.ensemble.member_views import ViewedMember
from densemble.inference.predict import prepared
from densemble.inference.runtime import choose_backend as tune
from densemble.inference.runtime.disk_cache import identity
from densemble.inference.runtime.fast_ensemble import FastMember, accelerate, choices
from densemble.inference.runtime.tuned_network import MOST_SHAPES
from densemble.nets.dense import DenseModel
from densemble.storage.user_cache import prune, user_cache

Make = Callable[..., DenseModel]


def make(backbone: str = SMALL, seed: int = 0, **options: object) -> DenseModel:
    torch.manual_seed(seed)
    given = {"weights": None, "out_channels": 2, "out_size": (24, 32), "head": "upsample", **options}
    return DenseModel(backbone, **given).eval()  # type: ignore[arg-type]


def some_images(batch: int = 2, height: int = 64, width: int = 80) -> Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(3))


def same(result: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "backend"),
    [
        pytest.param({}, "openvino", marks=pytest.mark.slow),
        pytest.param({}, "auto", marks=pytest.mark.slow),
        pytest.param({"out_size": None}, "openvino", marks=pytest.mark.slow),
        ({"out_size": None}, "eager"),
        ({"out_size": None, "input_size": (48, 64)}, "openvino"),
        pytest.param(
            {"out_size": (6, 8), "input_size": (96, 128)}, "openvino", marks=pytest.mark.slow
        ),  # smaller than the head's own map
        ({"out_size": (6, 8), "input_size": (96, 128)}, "eager"),
    ],
)
def test_the_same_map_as_the_plain_ensemble(options: dict[str, object], backend: str) -> None:
    ensemble = de.Ensemble([make(**options), make(OTHER, 1, **options)], weights=[2, 1]).eval()
    images = some_images()
    quick = accelerate(ensemble, images, backend, "fp32")
    for one in (images, images * 0.5, some_images(1), some_images(5), some_images(2, 90, 70)):
        with torch.no_grad():
            same(quick(one), ensemble(one))


def test_views_of_a_member_run_on_its_network() -> None:
    member = make()
    ensemble = de.Ensemble(
        {"plain": member, "mirrored": ViewedMember(member, "hflip"), "turned": ViewedMember(member, "rot90")}
    )
    images = some_images()
    quick = accelerate(ensemble.eval(), images, "openvino", "fp32")
    with torch.no_grad():
        same(quick(images), ensemble(images))
    networks = {id(m.member if isinstance(m, ViewedMember) else m) for _, m in quick.named_members()}
    assert len(networks) == 1


@pytest.mark.parametrize("batch", [1, *(pytest.param(batch, marks=pytest.mark.slow) for batch in (2, 3, 4)), 7])
def test_other_batch_sizes_run_in_parts_of_the_tuned_size(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = de.Ensemble([make()]).eval()
    quick = accelerate(ensemble, some_images(3), "openvino", "fp32")
    monkeypatch.setattr(DenseModel, "grid", lambda *_: pytest.fail("ran eagerly"))
    result = quick(some_images(batch))
    monkeypatch.undo()
    with torch.no_grad():
        same(result, ensemble(some_images(batch)))


def test_images_are_resized_and_normalized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    plain = DenseModel.resized

    def counted(self: DenseModel, images: Tensor) -> Tensor:
        calls.append(images.shape)
        return plain(self, images)

    size = {"input_size": (48, 64)}
    ensemble = de.Ensemble([make(**size), make(seed=1, **size), make(seed=2, input_size=(32, 32))]).eval()
    quick = prepared(ensemble)
    images, others = some_images(), some_images(1)
    with torch.no_grad():
        wanted = ensemble(images), ensemble(others)
        monkeypatch.setattr(DenseModel, "resized", counted)
        result = quick(images), quick(others)
    same(result[0], wanted[0])
    same(result[1], wanted[1])
    assert len(calls) == 4, "two sizes, two batches"


def test_few_images_run_eagerly_and_many_tune_networks() -> None:
    ensemble = de.Ensemble([make()]).eval()
    few, many = prepared(ensemble, "auto", expected=2), prepared(ensemble, "auto", expected=100_000_000)
    for one in (few, many):
        with torch.no_grad():
            for _ in range(2):
                one(some_images())
    assert not choices(few)[SMALL]
    assert [tuned.batch for tuned in choices(many)[SMALL]] == [2]


def test_shapes_that_come_once_are_not_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("densemble.inference.runtime.execution.candidates", lambda *_: [("eager", "fp32")])
    quick = prepared(de.Ensemble([make()]).eval(), "auto", expected=100_000_000)
    shapes = [(64, 16 * number) for number in range(2, 9)]
    with torch.no_grad():
        for height, width in shapes:
            quick(some_images(1, height, width))
    assert len(choices(quick)[SMALL]) == 1, "the first one that comes: it is all that there is so far"
    with torch.no_grad():
        for height, width in shapes * 2:
            quick(some_images(1, height, width))
    assert len(choices(quick)[SMALL]) == MOST_SHAPES


def test_a_choice_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble = de.Ensemble([make(seed=11)]).eval()
    first = choices(accelerate(ensemble, some_images(), "openvino", "fp32"))[SMALL][0].choice
    assert list((user_cache() / "openvino").glob("*.bin"))
    monkeypatch.setattr(torch.export, "export", lambda *_: pytest.fail("converted again"))
    again = choices(accelerate(ensemble, some_images(), "openvino", "fp32"))[SMALL][0].choice
    assert again.seconds == first.seconds, "measured once"


def test_a_choice_of_auto_is_not_used_for_a_named_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both choose among the same pairs; where eager was faster, it is still not what was asked for by name."""
    monkeypatch.setattr(tune, "_times", lambda runners, example: {pair: 1.0 + (pair[0] != "eager") for pair in runners})
    ensemble = de.Ensemble({"small": make(seed=13)}).eval()
    for backend, wanted in (("auto", "eager"), ("openvino", "openvino"), ("auto", "eager")):
        result = choices(accelerate(ensemble, some_images(), backend, "fp32"))["small"][0].choice
        assert result.backend == wanted


def test_a_damaged_cache_does_no_harm() -> None:
    ensemble = de.Ensemble([make(seed=12)]).eval()
    accelerate(ensemble, some_images(), "openvino", "fp32")
    for file in (user_cache() / "openvino").iterdir():
        file.write_bytes(b"nonsense")
    for file in (user_cache() / "choices").iterdir():
        file.write_text("{")
    with torch.no_grad():
        same(accelerate(ensemble, some_images(), "openvino", "fp32")(some_images()), ensemble(some_images()))


def test_identity_tells_weights_shapes_and_structure_apart() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    example = torch.zeros(1, 3, 8, 8)
    same_again = identity(network, example)
    assert identity(network, example) == same_again
    assert identity(network, torch.zeros(2, 3, 8, 8)) != same_again
    assert identity(nn.Sequential(network[0], nn.Sigmoid()), example) != same_again
    assert identity(network, example, "int8") != same_again
    with torch.no_grad():
        network[0].weight[0, 0, 0, 0] += 1
    assert identity(network, example) != same_again


def test_the_cache_keeps_what_was_used_last(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import os

    for age, name in enumerate(["new", "older", "oldest"]):
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))
    prune(tmp_path, limit=20)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "older"]


def test_the_plain_ensemble_is_not_changed() -> None:
    ensemble = de.Ensemble([make()]).eval()
    before = {key: value.clone() for key, value in ensemble.state_dict().items()}
    quick = accelerate(ensemble, some_images(), "openvino", "fp32")
    assert not any(isinstance(member, FastMember) for member in ensemble.members.values())
    assert all(torch.equal(value, before[key]) for key, value in ensemble.state_dict().items())
    assert quick.weights == ensemble.weights
