"""An ensemble larger than the memory of the GPU: weights stay on the host, and members run one after the other."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from densemble.ensemble.ensemble import Ensemble
from densemble.ensemble.ensemble_arguments import Member
from densemble.ensemble.member_views import ViewedMember
from densemble.ensemble.placement import find_device, fits, on_device
from densemble.inference.runtime.fast_ensemble import network_of
from densemble.nets.dense import DenseModel
from densemble.nets.heads.layers import resize

Weights = dict[str, Tensor]


class WeightStream:
    """Copies the weights of networks to a device, one network ahead of the one that runs.

    At most two networks are on the device: the one that runs and the next one.

    Args:
        networks: on the CPU, in the order in which they run, again and again.
        device: device to copy to.
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        self.device, self._is_cuda = device, device.type == "cuda"
        self._host = [self._pinned(network) for network in networks]
        self._ahead: dict[int, Weights] = {}
        self._copies = torch.cuda.Stream(device) if self._is_cuda else None  # type: ignore[no-untyped-call]

    def weights(self, index: int) -> Weights:
        """Return the weights of a network on the device, and start to copy those of the next one."""
        weights = self._ahead.pop(index, None)
        self._ahead.clear()
        if weights is None:
            weights = self._copy(index)
        if self._copies is not None:
            present = torch.cuda.current_stream(self.device)
            present.wait_stream(self._copies)
            for tensor in weights.values():
                tensor.record_stream(present)  # the memory is not used again before the network has run
        following = (index + 1) % len(self._host)
        if following != index:
            self._ahead[following] = self._copy(following)
        return weights

    def _copy(self, index: int) -> Weights:
        host = self._host[index]
        if self._copies is None:
            return {name: tensor.to(self.device, copy=True) for name, tensor in host.items()}
        with torch.cuda.stream(self._copies):
            return {name: tensor.to(self.device, non_blocking=True) for name, tensor in host.items()}

    def _pinned(self, network: nn.Module) -> Weights:
        tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        detached = {name: tensor.detach() for name, tensor in tensors.items()}
        return {name: tensor.pin_memory() for name, tensor in detached.items()} if self._is_cuda else detached


class StreamedMember(DenseModel):
    """A member whose weights are on the device only while it runs.

    Args:
        model: on the CPU; not changed.
        stream: has the weights of the model at ``index``.
        index: index of the model in the stream.
    """

    def __init__(self, model: DenseModel, stream: WeightStream, index: int) -> None:
        nn.Module.__init__(self)
        self.spec, self.loaded = model.spec, model.loaded
        self.register_buffer("mean", model.mean.to(stream.device))
        self.register_buffer("std", model.std.to(stream.device))
        self.place = nn.Parameter(torch.empty(0, device=stream.device), requires_grad=False)  # shows the device
        self.stream, self.index = stream, index
        self._model = [model]  # in a list: its weights are no weights of this module

    def coarse(self, images: Tensor) -> Tensor:
        """See :meth:`DenseModel.coarse`."""
        model = copy.copy(self._model[0])
        model.spec = self.spec  # a view changes the sizes
        weights = {f"model.{name}": tensor for name, tensor in self.stream.weights(self.index).items()}
        logits: Tensor = functional_call(_Coarse(model), weights, (images,))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] -> logits ``(B, K, h, w)``."""
        return resize(self.coarse(images), self.map_size(images))


class _Coarse(nn.Module):
    """``coarse`` of a model as a forward pass."""

    def __init__(self, model: DenseModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.coarse(images)


def streamed(ensemble: Ensemble, device: torch.device) -> Ensemble:
    """Return the ensemble with members that are streamed through a device, in eval mode; not for training."""
    plain = {id(network): network for _, member in ensemble.named_members() for network in [network_of(member)]}
    indices = {key: index for index, key in enumerate(plain)}
    stream = WeightStream(list(plain.values()), device)

    def replaced(member: Member) -> Member:
        network = network_of(member)
        made = StreamedMember(network, stream, indices[id(network)]).eval()
        return ViewedMember(made, member.view.name).eval() if isinstance(member, ViewedMember) else made

    result = ensemble.with_members({name: replaced(member) for name, member in ensemble.named_members()})
    return result.eval()


def is_streamed(ensemble: Ensemble) -> bool:
    """Whether the members of an ensemble are streamed."""
    return any(isinstance(network_of(member), StreamedMember) for _, member in ensemble.named_members())


def placed(ensemble: Ensemble, name: str) -> Ensemble:
    """Return the ensemble on a device, streamed if its weights are too large for the memory of a GPU.

    Raises:
        UsageError: see :func:`densemble.ensemble.placement.find_device`.
    """
    device, present = find_device(name), next(ensemble.parameters()).device
    if device.type == "cuda" and present.type == "cpu" and not is_streamed(ensemble) and not fits(ensemble, device):
        return streamed(ensemble, device)
    return on_device(ensemble, name)
