"""A theory's learning curve."""

from typing import Any

import equinox as eqx
import jax
import numpy as np

from rnn_dynamics.model.arguments import is_traced
from rnn_dynamics.ode import Status


class TheoryCurve(eqx.Module):
    """What a theory predicts at R records; drawn and compared like a `Trajectory`.

    Attributes:
        train_time: learning time τ of each record, (R,).
        loss: the loss, (R,).
        eigenvalues: the theory's eigenvalues of W, (R, K) complex.
        coordinates: the theory's own coordinates by name, each (R,).
        status: a `Status`, () int32; records after a failure are NaN.
    """

    train_time: jax.Array
    loss: jax.Array
    eigenvalues: jax.Array
    coordinates: dict[str, jax.Array]
    status: jax.Array

    def __getattr__(self, name: str) -> Any:
        coordinates = object.__getattribute__(self, "__dict__").get("coordinates", {})
        if name in coordinates:
            return coordinates[name]
        raise AttributeError(f"TheoryCurve has no attribute {name!r}.")

    def __str__(self) -> str:
        if is_traced(self.train_time) or self.train_time.ndim != 1:
            return f"TheoryCurve of shape {self.train_time.shape}"
        first, last = np.asarray(self.eigenvalues)[[0, -1]]
        return (
            f"TheoryCurve, {len(self.train_time)} records to learning time "
            f"{float(self.train_time[-1]):g}: {Status(int(self.status)).name}\n"
            f"  loss         {float(self.loss[0]):.6g} -> {float(self.loss[-1]):.6g}\n"
            f"  eigenvalues  {np.array2string(first, precision=4)} -> "
            f"{np.array2string(last, precision=4)}"
        )
