"""When a network has learned enough: criteria that are looked at when a record is made, each
network for itself.
"""

import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import check_real, is_traced, require

PATIENCE = 3  # records


class StopReason(enum.IntEnum):
    """Why a network came to rest before the last record; where several criteria are met, the first
    of these.

    - `none`: it did not, or failed.
    - `loss`: its loss fell below a value.
    - `train_time`: its learning time was reached.
    - `plateau`: its loss did not fall any more.
    """

    none = 0
    loss = 1
    train_time = 2
    plateau = 3


class Stop(eqx.Module):
    """Criteria to stop at a record. The network rests from there on: later records are NaN, and the
    record is the last one.

    Attributes:
        loss: stop once the loss is below this value.
        train_time: stop once this learning time is reached, in the units of the trajectory's
            `train_time`.
        plateau: stop once the loss has failed to fall by this fraction of the lowest one so far, at
            `patience` records in a row.
        patience: by default 3 records.

    Raises:
        TypeError: if one is not a real number.
        ValueError: if one is not positive, `plateau` is not below 1 or `patience` is below 1.
    """

    loss: Any = None
    train_time: Any = None
    plateau: Any = None
    patience: Any = None

    def __init__(
        self,
        loss: ArrayLike | None = None,
        train_time: ArrayLike | None = None,
        plateau: ArrayLike | None = None,
        patience: ArrayLike | None = None,
    ) -> None:
        given = {"loss": loss, "train_time": train_time, "plateau": plateau, "patience": patience}
        value: Any
        for name, value in given.items():
            if value is not None:
                check_real(f"stop.{name}", value, positive=True)
        if plateau is not None and not is_traced(plateau):
            require(bool(np.asarray(plateau) < 1), "stop.plateau", "be below 1", plateau)
        if patience is not None and not is_traced(patience):
            require(bool(np.asarray(patience) >= 1), "stop.patience", "be at least 1", patience)
        self.loss, self.train_time, self.plateau, self.patience = given.values()


class Rest(eqx.Module):
    """Whether a network has come to rest, and what its criteria remember.

    Attributes:
        reason: a `StopReason`, () int32.
        records: records made until it came to rest, () int32.
        lowest: the loss that the next ones have to be below of by the plateau's fraction, ().
        waited: records since then, () int32.
    """

    reason: jax.Array
    records: jax.Array
    lowest: jax.Array
    waited: jax.Array

    @classmethod
    def start(cls, dtype: Any) -> "Rest":
        """Nothing recorded yet."""
        zero = jnp.zeros((), jnp.int32)
        return cls(zero, zero, jnp.asarray(jnp.inf, dtype), zero)

    @property
    def at_rest(self) -> jax.Array:
        """Whether the network has come to rest, () bool."""
        return self.reason != StopReason.none

    def look(self, stop: Stop, loss: jax.Array, train_time: jax.Array) -> "Rest":
        """After a record of a network that learns, with its loss and learning time, both ()."""
        reason = jnp.zeros((), jnp.int32)
        lowest, waited = self.lowest, self.waited
        if stop.plateau is not None:
            falls = loss <= (1 - jnp.asarray(stop.plateau, loss.dtype)) * lowest
            lowest = jnp.where(falls, loss, lowest)
            waited = jnp.where(falls, 0, waited + 1)
            patience = PATIENCE if stop.patience is None else stop.patience
            rests = waited.astype(loss.dtype) >= jnp.asarray(patience, loss.dtype)
            reason = jnp.where(rests, jnp.int32(StopReason.plateau), reason)
        if stop.train_time is not None:
            # a learning time that is reached but for rounding is reached
            late = train_time * (1 + 1e-6) >= jnp.asarray(stop.train_time, train_time.dtype)
            reason = jnp.where(late, jnp.int32(StopReason.train_time), reason)
        if stop.loss is not None:
            reason = jnp.where(
                loss < jnp.asarray(stop.loss, loss.dtype), jnp.int32(StopReason.loss), reason
            )
        return Rest(reason, self.records + 1, lowest, waited)
