"""Callbacks of the user for the training of every member."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from lightning.pytorch.callbacks import Callback

from densemble.errors import UsageError

LightningCallback = Callback


@dataclass(frozen=True)
class UserCallbacks:
    """Lightning callbacks, used for one member after the other, and the state in which each member starts.

    Attributes:
        callbacks: the callbacks of the user, not copies.
        states: state of each callback before the first member.
    """

    callbacks: tuple[Callback, ...] = ()
    states: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, callbacks: Sequence[Callback]) -> Self:
        """Take the callbacks in their current state.

        Raises:
            UsageError: one of them is no Lightning callback.
        """
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise UsageError(
                    f"callbacks: {callback!r} is no lightning.pytorch.callbacks.Callback; give instances of its "
                    "subclasses"
                )
        return cls(tuple(callbacks), tuple(copy.deepcopy(callback.state_dict()) for callback in callbacks))

    def for_member(self) -> tuple[Callback, ...]:
        """Return the callbacks in their state before the first member, so that members do not influence each other."""
        for callback, state in zip(self.callbacks, self.states, strict=True):
            if state:
                callback.load_state_dict(copy.deepcopy(state))
        return self.callbacks


NO_CALLBACKS = UserCallbacks()
