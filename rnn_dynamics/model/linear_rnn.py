"""The linear recurrent network, student and target alike."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model.arguments import float_dtype, numbers, real_array, require, show
from rnn_dynamics.model.balancing import balancing_units, in_units, scaled
from rnn_dynamics.model.propagator import propagator


class LinearRNN(eqx.Module):
    """A linear recurrent network with leak 1.

        h'(t) = -h + W h + u x(t),    y = v^T h,    impulse response k(t) = v^T exp(-(I - W) t) u

    One input is a vector u, m inputs are the columns of a matrix u; outputs likewise.

    Time is measured in leak time constants. A target is a (small) `LinearRNN` too, and so is a
    gradient: its fields then hold ∂L/∂W, ∂L/∂u and ∂L/∂v. Batches are made by `jax.vmap`, never by
    leading axes here.

    Attributes:
        W: recurrent weights, (N, N).
        u: input weights, (N,) or (N, m).
        v: read-out weights, (N,) or (N, p).

    Raises:
        TypeError: if an array is complex or integer, or if the three differ in dtype.
        ValueError: if `W` is not square, `u` or `v` has another number of rows or no column, or a
            number is not finite.

    Example:
        >>> rd.LinearRNN([[0.5, 0.1], [0.0, 0.3]], [1.0, 0.0], [0.0, 1.0])

    Source: sections 1 and 8.1 of the theory note; arXiv:2503.18754, eq. 1.
    """

    W: jax.Array
    u: jax.Array
    v: jax.Array

    def __init__(self, W: Any, u: Any, v: Any) -> None:
        W = real_array("W", W, ("N", "N"))
        if W.shape[0] != W.shape[1] or W.shape[0] == 0:
            raise ValueError(f"Argument `W` must be square, but has shape {W.shape}.")
        self.W = W
        N, beside = W.shape[0], f" beside `W` of shape {W.shape}"
        self.u = real_array("u", u, (N,), (N, "m"), beside=beside)
        self.v = real_array("v", v, (N,), (N, "p"), beside=beside)
        for name, x in (("u", self.u), ("v", self.v)):
            require(0 not in x.shape, name, "have a column", f"of shape {x.shape}")
        if not self.W.dtype == self.u.dtype == self.v.dtype:
            raise TypeError(
                "Arguments `W`, `u` and `v` must have one dtype, but have "
                f"{self.W.dtype}, {self.u.dtype} and {self.v.dtype}."
            )

    @property
    def num_units(self) -> int:
        """The number of units N."""
        return int(self.W.shape[-1])

    @property
    def num_inputs(self) -> int:
        """The number of inputs m, 1 where `u` is a vector."""
        return int(self.u.shape[-1]) if self.u.ndim == self.W.ndim else 1

    @property
    def num_outputs(self) -> int:
        """The number of outputs p, 1 where `v` is a vector."""
        return int(self.v.shape[-1]) if self.v.ndim == self.W.ndim else 1

    @property
    def dtype(self) -> np.dtype:
        """The dtype of all parameters."""
        return self.W.dtype

    def astype(self, dtype: Any) -> "LinearRNN":
        """The same network with its parameters in another floating-point dtype."""
        dtype = float_dtype("dtype", dtype)
        return jax.tree.map(lambda x: x.astype(dtype), self)

    def system(self) -> "LinearRNN":
        """The network itself. Whatever has `.system()` is a network, see `LowRankRNN`."""
        return self

    def impulse_response(self, t: jax.Array) -> jax.Array:
        """k(t) = v^T exp(-(I - W) t) u, at any times of either sign.

        Args:
            t: times in leak time constants, (T,).

        Returns:
            The response of each output to each input, (T, p, m); (T,) if both `u` and `v` are
            vectors.
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


def system_of(name: str, network: Any) -> LinearRNN:
    """The `LinearRNN` that a network stands for, of whatever has `.system()`.

    Raises:
        TypeError: if there is no `.system()`, or it returns something else.
        ValueError: if that is a batch.
    """
    if not callable(getattr(network, "system", None)):
        raise TypeError(
            f"Argument `{name}` must be a LinearRNN or have `.system()`, but is {show(network)}."
        )
    system = network.system()
    if not isinstance(system, LinearRNN):
        raise TypeError(f"Argument `{name}.system()` must be a LinearRNN, but is {show(system)}.")
    require_rnns(**{name: system})
    return system


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
        W, u, v = in_units(rnn.W, d), scaled(d, rnn.u), scaled(1 / d, rnn.v)
        k = jax.lax.map(lambda time: v.T @ (propagator(W, time) @ u), t)
    channels = () if rnn.u.ndim == rnn.v.ndim == 1 else (rnn.num_outputs, rnn.num_inputs)
    return k.reshape(len(t), *channels)
