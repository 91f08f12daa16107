"""The linear recurrent network, student and target alike."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model.arguments import float_dtype, numbers, real_array, show
from rnn_dynamics.model.balancing import balancing_units, in_units
from rnn_dynamics.model.propagator import propagator


class LinearRNN(eqx.Module):
    """A linear recurrent network with leak 1, driven by one input and read out by one output.

        h'(t) = -h + W h + u x(t),    y = v . h,    impulse response k(t) = v^T exp(-(I - W) t) u

    Time is measured in leak time constants. A target is a (small) `LinearRNN` too, and so is a
    gradient: its fields then hold ∂L/∂W, ∂L/∂u and ∂L/∂v. Batches are made by `jax.vmap`, never by
    leading axes here.

    Attributes:
        W: recurrent weights, (N, N).
        u: input weights, (N,).
        v: read-out weights, (N,).

    Raises:
        TypeError: if an array is complex or integer, or if the three differ in dtype.
        ValueError: if `W` is not square, `u` or `v` has the wrong length, or a number is not
            finite.

    Source: section 1 of the theory note; arXiv:2503.18754, eq. 1.
    """

    W: jax.Array
    u: jax.Array
    v: jax.Array

    def __init__(self, W: Any, u: Any, v: Any) -> None:
        W = real_array("W", W, ("N", "N"))
        if W.shape[0] != W.shape[1] or W.shape[0] == 0:
            raise ValueError(f"Argument `W` must be square, but has shape {W.shape}.")
        self.W = W
        self.u = real_array("u", u, (W.shape[0],))
        self.v = real_array("v", v, (W.shape[0],))
        if not self.W.dtype == self.u.dtype == self.v.dtype:
            raise TypeError(
                "Arguments `W`, `u` and `v` must have one dtype, but have "
                f"{self.W.dtype}, {self.u.dtype} and {self.v.dtype}."
            )

    @property
    def num_units(self) -> int:
        """The number of units N."""
        return int(self.u.shape[-1])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of all parameters."""
        return self.W.dtype

    def astype(self, dtype: Any) -> "LinearRNN":
        """The same network with its parameters in another floating-point dtype."""
        dtype = float_dtype("dtype", dtype)
        return jax.tree.map(lambda x: x.astype(dtype), self)

    def impulse_response(self, t: jax.Array) -> jax.Array:
        """k(t) = v^T exp(-(I - W) t) u, at any times of either sign.

        Args:
            t: times in leak time constants, (T,).

        Returns:
            The response, (T,).
        """
        t = jnp.asarray(numbers("t", t), dtype=self.dtype)
        if t.ndim != 1:
            raise ValueError(f"Argument `t` must have shape (T,), but has shape {t.shape}.")
        return _impulse_response(self, t)

    def eigenvalues(self) -> jax.Array:
        """The eigenvalues of `W`, (N,) complex, in no particular order.

        Uses LAPACK: take spectra outside of a learning program.
        """
        return jnp.linalg.eigvals(self.W)


def require_rnns(**rnns: Any) -> None:
    """Refuse, by its name, an argument that is not one network.

    Raises:
        TypeError: if it is no `LinearRNN`.
        ValueError: if it is a batch of them.
    """
    for name, rnn in rnns.items():
        if not isinstance(rnn, LinearRNN):
            raise TypeError(f"Argument `{name}` must be a LinearRNN, but is {show(rnn)}.")
        if np.ndim(rnn.W) != 2:
            raise ValueError(
                f"Argument `{name}` must be one network, but is a batch with `W` of shape "
                f"{np.shape(rnn.W)}."
            )


@jax.jit
def _impulse_response(rnn: LinearRNN, t: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        d = balancing_units(rnn.W)
        W, u, v = in_units(rnn.W, d), d * rnn.u, rnn.v / d
        return jax.lax.map(lambda time: v @ (propagator(W, time) @ u), t)
