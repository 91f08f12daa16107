"""Coloured input: white noise that a linear filter has passed, with its stationary covariance at
the start.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss.gramian.energy import gramians
from rnn_dynamics.loss.gramian.panels import euler_step
from rnn_dynamics.loss.simulated import is_simulated
from rnn_dynamics.loss.timing import check_stable
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import (
    is_traced,
    real_array,
    real_scalar,
    require,
    require_type,
    show,
)
from rnn_dynamics.model.linear_rnn import system_of


class ColouredNoise(eqx.Module):
    """The input x = v·z + d w of a filter z' = -z + W z + u w of white noise w.

    Attributes:
        rnn: the filter, of one channel or of as many outputs as the network has inputs.
        feedthrough: d, () or (p, m) of a filter of several channels.
    """

    rnn: LinearRNN
    feedthrough: jax.Array

    def for_inputs(self, num_inputs: int, dtype: Any) -> tuple[LinearRNN, jax.Array]:
        """The filter of k units with r inputs and `num_inputs` outputs, and d, (num_inputs, r); one
        of one channel colours every input, independently of the others.
        """
        rnn, d = self.rnn.astype(dtype), self.feedthrough.astype(dtype)
        p, m = rnn.num_outputs, rnn.num_inputs
        copies = jnp.eye(num_inputs if (p, m) == (1, 1) else 1, dtype=dtype)
        u, v = (jnp.kron(copies, x.reshape(rnn.num_units, -1)) for x in (rnn.u, rnn.v))
        d = jnp.kron(copies, d * jnp.eye(p, m, dtype=dtype) if d.ndim == 0 else d)
        return LinearRNN(jnp.kron(copies, rnn.W), u, v), d


def checked_input(noise: Any, time_step: Any) -> Any:
    """The input, None for white noise or coloured noise, whose filter must have a stationary state,
    also in steps of `time_step`; one that is being traced is passed over.

    Raises:
        TypeError: if it is something else.
        ValueError: if the filter is unstable.
    """
    if noise is not None:
        require_type("input", noise, ColouredNoise, "None or `rd.filtered_noise(...)`")
        if not (is_traced(noise.rnn.W) or is_traced(time_step)):
            check_stable("rnn", noise.rnn, time_step, "coloured input")
    return noise


def fit_channels(network: Any, target: Any, noise: Any) -> None:
    """Refuse networks, or an input, whose numbers of channels do not fit each other.

    Raises:
        TypeError: if one is no network.
        ValueError: if they do not fit.
    """
    (p, m), other = (shape_of(name, x) for name, x in (("network", network), ("target", target)))
    if (p, m) != other:
        raise ValueError(
            f"Argument `target` must have as many outputs and inputs as the network, {(p, m)}, "
            f"but has {other}."
        )
    if noise is not None:
        outputs, inputs = shape_of("input", noise.rnn)
        fits = outputs == m or outputs == inputs == 1
        require(fits, "input", f"have one channel or {m} outputs", f"of {outputs}")


def shape_of(name: str, network: Any) -> tuple[int, int]:
    """The shape (p, m) of a network's impulse response; its arrays are not touched.

    Raises:
        TypeError: if it is no network.
    """
    if is_simulated(network):
        return getattr(network, "num_outputs", 1), getattr(network, "num_inputs", 1)
    if isinstance(network, eqx.Module) and not isinstance(network, LinearRNN):
        rnn = eqx.filter_eval_shape(partial(system_of, name), network)
    else:
        rnn = system_of(name, network)
    return rnn.num_outputs, rnn.num_inputs


def filtered_noise(rnn: Any, feedthrough: ArrayLike = 0.0) -> ColouredNoise:
    """White noise that a linear network has filtered, as the `input` of a loss.

        x = v·z + d w,    z' = -z + W z + u w,    S_x(ω) = |v·(iω + 1 - W)⁻¹ u + d|²

    Args:
        rnn: the filter, a stable `LinearRNN` in network time. A filter of one channel colours every
            input of a network, independently; one of several has as many outputs as the network has
            inputs.
        feedthrough: d, (); of a filter with p outputs and m inputs also (p, m).

    Raises:
        ValueError: if the filter is unstable.

    Example:
        loss = rd.PopulationLoss(input=rd.filtered_noise(rd.damped_oscillator(0.3, 1.0)))

    Source: section 8.2 of docs/theory.md.
    """
    rnn = system_of("rnn", rnn)
    p, m = rnn.num_outputs, rnn.num_inputs
    if not isinstance(feedthrough, list | tuple) and np.ndim(feedthrough) == 0:
        d = real_scalar("feedthrough", feedthrough)
        square = p == m or is_traced(d) or float(d) == 0
        require(square, "feedthrough", f"have shape {(p, m)}", show(feedthrough))
    else:
        d = real_array("feedthrough", feedthrough, (p, m))
    return checked_input(ColouredNoise(rnn, d), None)


def ornstein_uhlenbeck(rate: ArrayLike) -> ColouredNoise:
    """Ornstein-Uhlenbeck noise of unit variance, as the `input` of a loss.

        x' = -κ x + √(2κ) w,    S_x(ω) = 2κ / (κ² + ω²)

    In Euler steps of dt its variance is 1 / (1 - κ dt/2).

    Args:
        rate: κ per leak time constant, positive.

    Raises:
        ValueError: if `rate` is not positive.

    Example:
        loss = rd.PopulationLoss(input=rd.ornstein_uhlenbeck(0.7))

    Source: section 8.2 of docs/theory.md.
    """
    rate = real_scalar("rate", rate, positive=True).reshape(1)
    return filtered_noise(LinearRNN((1 - rate)[:, None], jnp.sqrt(2 * rate), jnp.ones_like(rate)))


def in_series(noise: ColouredNoise, rnn: LinearRNN) -> LinearRNN:
    """The filter and the network that it drives, whose units come first, as one network."""
    first, d = noise.for_inputs(rnn.num_inputs, rnn.dtype)
    N, k = rnn.num_units, first.num_units
    u, v = (x.reshape(N, -1) for x in (rnn.u, rnn.v))
    with jax.default_matmul_precision("highest"):
        into, direct = u @ first.v.T, u @ d
    W = jnp.block([[rnn.W, into], [jnp.zeros((k, N), rnn.dtype), first.W]])
    v = jnp.concatenate([v, jnp.zeros((k, v.shape[1]), rnn.dtype)])
    return LinearRNN(W, jnp.concatenate([direct, first.u]), v)


def stationary_root(rnn: LinearRNN, time_step: Any) -> jax.Array:
    """S of the stationary covariance S Sᵀ of a network's state under white noise, (k, k)."""
    return square_root(gramians(jax.lax.stop_gradient(rnn), time_step).P)


def square_root(P: jax.Array) -> jax.Array:
    """S of S Sᵀ = P, (k, k), of a positive semidefinite matrix; without LAPACK (Cholesky)."""

    def column(i: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rest, S = carry
        pivot = rest[i, i]
        scale = jnp.where(pivot > 0, jnp.sqrt(jnp.where(pivot > 0, pivot, 1)), jnp.inf)
        new = rest[:, i] / scale
        return rest - jnp.outer(new, new), S.at[:, i].set(new)

    return jax.lax.fori_loop(0, len(P), column, (P, jnp.zeros_like(P)))[1]


def coloured(noise: ColouredNoise, key: jax.Array, shape: tuple[int, ...], dt: jax.Array) -> Any:
    """The filter's output in Euler steps of dt from a stationary state, (batch, K, m)."""
    (batch, num, m), dtype = shape, dt.dtype
    rnn, d = noise.for_inputs(m, dtype)
    first, second = jax.random.split(key)
    white = jax.random.normal(first, (num, batch, d.shape[1]), dtype) / jnp.sqrt(dt)
    begun = jax.random.normal(second, (batch, rnn.num_units), dtype) @ stationary_root(rnn, dt).T
    M = euler_step(rnn.W, dt)

    def step(z: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        return z @ M.T + dt * (w @ rnn.u.T), z @ rnn.v + w @ d.T

    return jnp.swapaxes(jax.lax.scan(step, begun, white)[1], 0, 1)
