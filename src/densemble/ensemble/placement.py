"""Choose the device of an ensemble, and put the ensemble there."""

import copy
import logging

import torch

from densemble.ensemble.ensemble import Ensemble
from densemble.errors import ResourceError, UsageError

WEIGHTS_SHARE = 0.5
"""Largest share of the free memory of a GPU for the weights of an ensemble; the rest is for its feature maps."""

log = logging.getLogger(__name__)


def find_device(name: str) -> torch.device:
    """Return the device of a name: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` is the GPU if there is one.

    Raises:
        UsageError: no device has this name, or PyTorch cannot use it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(
            f"cannot compute on device '{name}': {str(error).splitlines()[0]}; use auto, cpu, cuda or cuda:NUMBER"
        ) from error
    return device


def on_device(ensemble: Ensemble, name: str) -> Ensemble:
    """Return the ensemble itself if it is on the device, else a copy on the device; log the name of a GPU.

    Raises:
        UsageError: see :func:`find_device`.
        ResourceError: the ensemble does not fit into the memory of the device.
    """
    device, present = find_device(name), next(ensemble.parameters()).device
    if device.type == present.type and device.index in (None, present.index):
        return ensemble
    return put_on(copy.deepcopy(ensemble), device)


def put_on(ensemble: Ensemble, device: torch.device) -> Ensemble:
    """Move an ensemble to a device; log the name of a GPU.

    Raises:
        ResourceError: the ensemble does not fit into the memory of the device.
    """
    try:
        ensemble = ensemble.to(device)
    except torch.OutOfMemoryError as error:
        raise ResourceError(
            f"the weights of the ensemble do not fit into the memory of {device}; use device cpu, or an ensemble of "
            "fewer members"
        ) from error
    if device.type == "cuda":
        log.info(f"computing on {torch.cuda.get_device_name(device)}")
    return ensemble


def fits(ensemble: Ensemble, device: torch.device) -> bool:
    """Whether a GPU has enough free memory for the weights of an ensemble; logs if it has not."""
    size, free = weight_bytes(ensemble), torch.cuda.mem_get_info(device)[0]
    if size <= WEIGHTS_SHARE * free:
        return True
    log.info(
        f"the weights ({size / 1e9:.2g} GB) are too large for the free memory of the GPU ({free / 1e9:.2g} GB): "
        "predictions copy each member there when it runs"
    )
    return False


def weight_bytes(ensemble: Ensemble) -> int:
    """Return the bytes of all weights; weights that members share count once."""
    return sum(tensor.nbytes for tensor in {id(tensor): tensor for tensor in ensemble.parameters()}.values())
