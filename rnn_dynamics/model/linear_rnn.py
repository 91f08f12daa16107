"""The linear recurrent network, student and target alike."""

from typing import Any, Self

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import (
    float_dtype,
    numbers,
    real_array,
    real_scalar,
    require,
    show,
)
from rnn_dynamics.model.balancing import balancing_units, in_units, scaled
from rnn_dynamics.model.propagator import propagator


class Weights(eqx.Module):
    """The weights of a recurrent network of N units, and what they alone say of it.

    Attributes:
        W: recurrent weights, (N, N).
        u: input weights, (N,) or (N, m).
        v: read-out weights, (N,) or (N, p).
    """

    W: jax.Array
    u: jax.Array
    v: jax.Array

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

    def astype(self, dtype: Any) -> Self:
        """The same network with its parameters in another floating-point dtype."""
        dtype = float_dtype("dtype", dtype)
        return jax.tree.map(lambda x: x.astype(dtype), self)

    def eigenvalues(self) -> jax.Array:
        """The eigenvalues of `W`, (N,) complex, in no particular order.

        Uses LAPACK: take spectra outside of a learning program.
        """
        return jnp.linalg.eigvals(self.W)


class LinearRNN(Weights):
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

    Source: sections 1 and 8.1 of docs/theory.md; arXiv:2503.18754, eq. 1.
    """

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

    def residues(self) -> jax.Array:
        """ρ_i of each of the `eigenvalues()`, in their order: k(t) = Σ_i ρ_i e^{-(1 - λ_i) t}.

        Returns:
            (N,) complex; (N, p, m) unless both `u` and `v` are vectors. See `rd.modes`.
        """
        # networks come before their spectra
        from rnn_dynamics.model.spectrum import match_eigenvalues, modes

        found = modes(self)
        return found.residues[match_eigenvalues(self.eigenvalues(), found.eigenvalues)]

    def zeros(self) -> jax.Array:
        """The finite transmission zeros z: where det ∫ k(t) e^{-zt} dt, continued, is 0.

        They are the finite generalised eigenvalues of ([[W - I, u], [vᵀ, 0]], diag(I, 0)). A mode
        is silent where a zero sits on its pole, z = λ - 1. In steps of 1, zeros of Σ_n k_n s^{-n}
        are at s = 1 + z.

        Returns:
            (N - m,) complex, in no particular order; infinite ones stand for those that there are
            not, as k(0) = vᵀ u is 0 or singular.

        Raises:
            ValueError: if there are not as many outputs as inputs.

        Source: section 12 of docs/theory.md.
        """
        from rnn_dynamics.model.spectrum import zeros

        return zeros(self)

    def simulate(self, x: Any, time_step: ArrayLike) -> jax.Array:
        """The output to an input, from rest, by the Euler scheme of `SampledLoss`.

            h ← h + time_step (W h - h + u x_n),    y_n = vᵀ h

        White noise of unit power is `normal(key, shape) / sqrt(time_step)`.

        Args:
            x: input at each time step, (..., T), or (..., T, m) if `u` is a matrix.
            time_step: in leak time constants, positive; 1 is h ← W h + u x.

        Returns:
            The output after each step, (..., T), or (..., T, p) if `v` is a matrix.

        Raises:
            ValueError: if `x` has another shape or `time_step` is not positive.
        """
        x = jnp.asarray(numbers("x", x), self.dtype)
        dt = real_scalar("time_step", time_step, positive=True).astype(self.dtype)
        want = "(..., T)" if self.u.ndim == 1 else f"(..., T, {self.num_inputs})"
        fits = x.ndim >= self.u.ndim and (self.u.ndim == 1 or x.shape[-1] == self.num_inputs)
        require(fits, "x", f"have shape {want} beside `u` of shape {self.u.shape}", x.shape)
        return _simulate(self, x, dt)


def system_of(name: str, network: Any) -> LinearRNN:
    """The `LinearRNN` that a network stands for, of whatever has `.system()`.

    Raises:
        TypeError: if there is no `.system()`, or it returns something else.
        ValueError: if that is a batch.
    """
    if not callable(getattr(network, "system", None)):
        raise TypeError(
            f"Argument `{name}` must be a LinearRNN, or have a method `.system()` that returns "
            f"one, but is {show(network)}."
        )
    system = network.system()
    if not isinstance(system, LinearRNN):
        raise TypeError(
            f"Argument `{name}` must have a method `.system()` that returns a LinearRNN, but it "
            f"returns {show(system)}."
        )
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
def _simulate(rnn: LinearRNN, x: jax.Array, dt: jax.Array) -> jax.Array:
    U = rnn.u.reshape(rnn.num_units, -1)
    x = jnp.moveaxis(x[..., None] if rnn.u.ndim == 1 else x, -2, 0)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = (1 - dt) * h + dt * (h @ rnn.W.T + x @ U.T)
        return h, h @ rnn.v

    with jax.default_matmul_precision("highest"):
        _, y = jax.lax.scan(step, jnp.zeros((*x.shape[1:-1], rnn.num_units), rnn.dtype), x)
    return jnp.moveaxis(y, 0, y.ndim - rnn.v.ndim)


@jax.jit
def _impulse_response(rnn: LinearRNN, t: jax.Array) -> jax.Array:
    with jax.default_matmul_precision("highest"):
        d = balancing_units(rnn.W)
        W, u, v = in_units(rnn.W, d), scaled(d, rnn.u), scaled(1 / d, rnn.v)
        k = jax.lax.map(lambda time: v.T @ (propagator(W, time) @ u), t)
    channels = () if rnn.u.ndim == rnn.v.ndim == 1 else (rnn.num_outputs, rnn.num_inputs)
    return k.reshape(len(t), *channels)
