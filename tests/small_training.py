"""Train one small network directly, without a run folder and without scores at image size."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from small_networks import small_dense
from torch import Tensor

from densemble.nets.dense import DenseModel
from densemble.storage.runs import MemberFolder
from densemble.training.fit import seed_everything
from densemble.training.settings import FitSettings

SETTINGS = FitSettings(epochs=2, backbone_share=1.0, precision="fp32", freeze_statistics=False)

Fit = Callable[..., dict[str, Any]]
"""``fit(RUN, settings, task=..., watch=(...))``: see the fixture ``fit``."""


def replace(settings: FitSettings, **changes: Any) -> FitSettings:
    return settings.model_copy(update=changes)


def small_model() -> DenseModel:
    seed_everything(0)
    return small_dense()


def member_folder(run: Path) -> MemberFolder:
    return MemberFolder(run / "members" / "01-small")


def last_weights(run: Path) -> dict[str, Tensor]:
    """Weights after the last epoch, by parameter name."""
    state = torch.load(member_folder(run).last, weights_only=True)["state_dict"]
    return {key.removeprefix("model."): value for key, value in state.items()}
