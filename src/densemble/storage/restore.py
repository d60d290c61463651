"""Build a member from its specification and its tensors."""

from torch import Tensor

from densemble.errors import ArtifactError, DensembleError
from densemble.nets.dense import DenseModel, DenseSpec
from densemble.nets.node_channels import wrong_channels
from densemble.untrusted import excerpt

BUILD_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError)
"""Errors that libraries raise for a network that cannot be built as it is described."""


def restore(spec: DenseSpec, state: dict[str, Tensor], source: str) -> DenseModel:
    """Build a member from its specification and its tensors, without initializing weights first.

    Raises:
        ArtifactError: the tensors do not fit the specification.
    """
    try:
        model = DenseModel.from_spec(spec, "meta")
        for name, tensor in model.state_dict().items():
            if name in state and state[name].is_floating_point() != tensor.is_floating_point():
                raise RuntimeError(f"{name} is {state[name].dtype} instead of {tensor.dtype}")
        if reason := wrong_channels(model.backbone, (spec.channels, *spec.skip_channels)):
            raise RuntimeError(reason)
        model.load_state_dict(state, assign=True)
        if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
            # Some networks compute constants in their constructor and do not save them, so meta tensors remain.
            model = DenseModel.from_spec(spec)
            model.load_state_dict(state)
    except DensembleError:
        raise
    except BUILD_ERRORS as error:
        detail = excerpt(" ".join(str(error).split()), 300)
        raise ArtifactError(
            f"{source}: the tensors do not fit the network ({detail}); was it made by another version?"
        ) from error
    return model.requires_grad_(True).eval()
