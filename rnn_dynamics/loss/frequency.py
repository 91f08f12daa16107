"""The loss on a finite list of tones."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss.base import AbstractLoss
from rnn_dynamics.loss.estimate import Evaluation
from rnn_dynamics.loss.gramian.doubling import as_matrices, difference
from rnn_dynamics.loss.gramian.energy import rescaled
from rnn_dynamics.loss.input import fit_channels
from rnn_dynamics.loss.system import compared, other_units
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, numbers, require
from rnn_dynamics.model.linear_rnn import system_of


class FrequencyLoss(AbstractLoss):
    """Squared error of the response to tones.

        L = ½ Σ_j w_j |K(iω_j) - K*(iω_j)|²,    K(s) = vᵀ (s + 1 - W)⁻¹ u

    At ω = 0 it is the error of the answer to a constant input. Nothing needs the networks to be
    stable, but only the responses of stable ones are what a simulation shows.

    Attributes:
        frequencies: angular frequencies ω_j, radians per leak time constant, (F,).
        weights: w_j, (F,), positive or zero; by default 1.

    Raises:
        TypeError: if they are no real numbers.
        ValueError: if a shape is wrong, a number not finite, or a weight negative.

    Example:
        loss = rd.FrequencyLoss([0.0, 0.5, 1.0])

    Source: section 8.5 of docs/theory.md.
    """

    frequencies: jax.Array
    weights: jax.Array

    def __init__(self, frequencies: ArrayLike, weights: ArrayLike | None = None) -> None:
        self.frequencies = _list("frequencies", frequencies)
        if weights is None:
            weights = jnp.ones_like(self.frequencies)
        self.weights = _list("weights", weights)
        shapes = self.weights.shape, self.frequencies.shape
        require(shapes[0] == shapes[1], "weights", f"have shape {shapes[1]}", f"of {shapes[0]}")
        if not is_traced(self.weights):
            least = float(np.min(self.weights))
            require(least >= 0, "weights", "be positive or zero", least)

    def __call__(self, network: Any, target: Any, key: jax.Array | None = None) -> jax.Array:
        """The loss, (). It can be differentiated by `jax.grad` (reverse mode) in both networks.

        Args:
            network: the student, a `LinearRNN` or a module with `.system()`.
            target: the target, likewise.
            key: not used.

        Raises:
            ValueError: if the two have different channels.
        """
        fit_channels(network, target, None)
        return _value(self, network, target)

    def evaluate(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The loss, its exact gradient in the student, and estimates of the errors of both: four
        times the distance from those in other units of the state, which round differently.

        Raises:
            ValueError: if the two have different channels.
        """
        fit_channels(network, target, None)
        return _evaluated(self, network, target)


def _list(name: str, value: Any) -> jax.Array:
    array = numbers(name, value)
    require(array.ndim == 1 and array.size > 0, name, "have shape (F,)", f"of {array.shape}")
    if not is_traced(array):
        require(bool(np.all(np.isfinite(array))), name, "be finite", array)
    return jnp.asarray(array, None if jnp.issubdtype(array.dtype, jnp.floating) else float)


@jax.jit
def _value(loss: FrequencyLoss, network: Any, target: Any) -> jax.Array:
    return _energy(_difference(network, target), loss)


@jax.jit
def _evaluated(loss: FrequencyLoss, network: Any, target: Any) -> Evaluation:
    system, pull = eqx.filter_vjp(partial(_difference, target=target), network)

    def once(other: jax.Array) -> tuple[jax.Array, Any]:
        d = jnp.where(other, other_units(system), 1)
        value, found = jax.value_and_grad(_energy)(rescaled(system, d), loss)
        return value, pull(rescaled(found, d))[0]

    return compared(once, network)


def _difference(network: Any, target: Any) -> LinearRNN:
    return as_matrices(difference(system_of("network", network), system_of("target", target)))


def _energy(system: LinearRNN, loss: FrequencyLoss) -> jax.Array:
    """½ Σ w |vᵀ q|² with q = (s + A)⁻¹ u; backwards one more solution, p = (s + A)⁻ᵀ v."""
    dtype = np.result_type(system.dtype, np.complex64)
    one = jnp.eye(system.num_units, dtype=dtype)
    W, u, v = (x.astype(dtype) for x in (system.W, system.u, system.v))

    def tone(given: tuple[jax.Array, jax.Array]) -> jax.Array:
        M = (1 + 1j * given[0].astype(dtype)) * one - W
        X = _inverse(jax.lax.stop_gradient(M))

        def solve(product: Any, b: jax.Array, X: jax.Array = X) -> jax.Array:
            x = X @ b
            return x + X @ (b - product(x))  # refined

        q = jax.lax.custom_linear_solve(lambda x: M @ x, u, solve, partial(solve, X=X.T))
        K = v.T @ q
        return given[1] * jnp.sum(jnp.real(K) ** 2 + jnp.imag(K) ** 2) / 2

    tones = tuple(x.astype(system.dtype) for x in (loss.frequencies, loss.weights))
    with jax.default_matmul_precision("highest"):
        return jnp.sum(jax.lax.map(tone, tones))


def _inverse(M: jax.Array) -> jax.Array:
    """M⁻¹, (N, N) complex, by Gauss-Jordan elimination with partial pivoting; without LAPACK."""
    N = len(M)
    index = jnp.arange(N)

    def eliminate(k: jax.Array, A: jax.Array) -> jax.Array:
        size = jnp.abs(A[:, k])
        chosen = jnp.argmax(jnp.where(index >= k, size, -jnp.ones_like(size)))
        row = A[chosen] / A[chosen, k]
        A = A.at[chosen].set(A[k])
        return (A - A[:, k, None] * row[None, :]).at[k].set(row)

    both = jnp.concatenate([M, jnp.eye(N, dtype=M.dtype)], axis=1)
    return jax.lax.fori_loop(0, N, eliminate, both)[:, N:]
