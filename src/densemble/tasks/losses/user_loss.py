"""Losses of the user, named ``package.module:NAME``."""

from collections.abc import Callable

from torch import Tensor

from densemble.errors import UsageError
from densemble.user_code import user_object

UserLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits or values ``(B, K, h, w)``, float32; batch of targets) -> scalar."""


def require_user_loss(name: str) -> UserLoss:
    """Import a loss of the user: a function, or an object that can be called, such as a module.

    Raises:
        UsageError: it cannot be imported, or is a class or no function.
    """
    loss = user_object(name, "loss")
    if not callable(loss) or isinstance(loss, type):
        kind = "class" if isinstance(loss, type) else type(loss).__name__
        raise UsageError(
            f"loss '{name}' is a {kind}; name a function of (logits, target), or an object that is called with them"
        )
    called: UserLoss = loss
    return called


def user_loss(name: str, maps: Tensor, target: Tensor) -> Tensor:
    """Compute a loss of the user, scalar; see :data:`UserLoss`.

    Raises:
        UsageError: it cannot be imported, or does not return one number.
    """
    loss = require_user_loss(name)(maps, target)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        returned = f"a tensor {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise UsageError(f"loss '{name}' must return a scalar tensor, got {returned}; return the mean of its values")
    return loss.reshape(())
