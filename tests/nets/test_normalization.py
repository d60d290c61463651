"""Normalization follows the weights: values of timm and torchvision, and the warning if they are unknown."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import SqueezeNet1_1_Weights, VGG16_Weights

import densemble as de
from densemble.errors import WeightsError
from densemble.nets import backbones
from densemble.nets.network_arguments import weights_name

LITE = "timm/tf_efficientnet_lite0"
V3 = "timm/mobilenetv3_small_050"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def of(model: de.DenseModel) -> tuple[tuple[float, ...], tuple[float, ...]]:
    assert torch.allclose(model.mean.flatten(), torch.tensor(model.spec.mean))
    return model.spec.mean, model.spec.std


@pytest.fixture(autouse=True)
def _no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def random_state(name: str, weights: Any) -> dict[str, torch.Tensor]:
        return dict(backbones.build_classifier(name).state_dict())

    monkeypatch.setattr(backbones, "_download", random_state)


def test_a_tag_of_timm() -> None:
    """The miil weights were trained on [0, 1], the default weights of this architecture with the ImageNet values."""
    name, tag = "timm/mobilenetv3_large_100", "miil_in21k_ft_in1k"
    for backbone, weights in ((name, tag), (f"{name}.{tag}", "DEFAULT"), (f"{name}.ra_in1k", tag)):
        assert backbones.normalization(backbone, 3, weights).mean == (0.0, 0.0, 0.0)
        assert backbones.normalization(backbone, 3, weights).std == (1.0, 1.0, 1.0)
    published = timm.get_pretrained_cfg("mobilenetv3_large_100.ra_in1k")
    assert backbones.normalization(name, 3, "ra_in1k").mean == published.mean == IMAGENET[0]
    model = de.DenseModel(V3, weights="lamb_in1k")
    assert of(model) == IMAGENET and not model.assumed


def test_weights_of_torchvision() -> None:
    """The VGG16 feature weights were ported from Caffe: their standard deviations are 1/255."""
    expected = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    result = backbones.normalization("vgg16", 3, weights_name(VGG16_Weights.IMAGENET1K_FEATURES))
    assert (result.mean, result.std) == (tuple(expected.mean), (1 / 255,) * 3)
    assert weights_name("VGG16_Weights.IMAGENET1K_V1") == "IMAGENET1K_V1"
    assert of(de.DenseModel("squeezenet1_1", weights=SqueezeNet1_1_Weights.IMAGENET1K_V1)) == IMAGENET


def test_a_module_that_timm_made() -> None:
    network = timm.create_model("mobilenetv3_small_050", features_only=True)
    network.pretrained_cfg = {**network.pretrained_cfg, "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert of(de.DenseModel(network)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    answer: Any = ({"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}, V3.removeprefix("timm/"), {})
    monkeypatch.setattr(timm.models, "load_model_config_from_hf", lambda name: answer)
    for backbone, weights in ((V3, "hf-hub:some/one"), ("hf-hub:some/one", None)):
        assert of(de.DenseModel(backbone, weights=weights)) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_a_bare_file_gets_a_notice(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(backbones.build_classifier(LITE).state_dict(), path)
    with pytest.warns(
        UserWarning, match=r"normalized with mean \(0.5, 0.5, 0.5\) and std .*, those of .*give mean and std"
    ):
        model = de.DenseModel(LITE, weights=path)
    assert of(model) == ((0.5,) * 3, (0.5,) * 3) and "normalized with" in model.assumed
    assert not de.DenseModel(LITE, weights=path, mean=(0.0,) * 3, std=(1.0,) * 3).assumed
    assert not de.DenseModel(LITE, weights=None).assumed


def test_an_unknown_tag_lists_the_known_tags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(WeightsError, match=r"no pretrained weights with the tag 'nonsense'; there are: .*lamb_in1k"):
        de.DenseModel(V3, weights="nonsense")
