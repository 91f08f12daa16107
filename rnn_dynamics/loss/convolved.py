"""Squared errors of linear networks on sampled noise, of all trials by one impulse response, which
the noise is convolved with.
"""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.gramian.panels import euler_step
from rnn_dynamics.model import LinearRNN

UNROLL = 4  # time steps per turn of the loops


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def mean_square(both: LinearRNN, dt: jax.Array, noise: jax.Array, averaged: bool) -> jax.Array:
    """The loss, (), of a network that is student and target with opposite read-outs, of matrices u
    and v, on noise (batch, m, K).
    """
    with jax.default_matmul_precision("highest"):
        responses, _ = _impulse(both, dt, noise.shape[2])
        return _loss_and_lags(responses, dt, noise, averaged)[0]


def _forward(both: LinearRNN, dt: jax.Array, noise: jax.Array, averaged: bool) -> Any:
    with jax.default_matmul_precision("highest"):
        value, gradient = with_gradient(both, dt, noise, averaged)
    return value, (gradient, dt, noise)


def _backward(_: bool, kept: Any, cotangent: jax.Array) -> Any:
    gradient, *others = kept
    return (jax.tree.map(lambda g: cotangent * g, gradient), *map(jnp.zeros_like, others))


mean_square.defvjp(_forward, _backward)


def with_gradient(
    both: LinearRNN, dt: jax.Array, noise: jax.Array, averaged: bool
) -> tuple[jax.Array, LinearRNN]:
    """The same and its gradient."""
    responses, states = _impulse(both, dt, noise.shape[2])
    value, lags = _loss_and_lags(responses, dt, noise, averaged)
    M = euler_step(both.W, dt)

    def back(later: jax.Array, lag: jax.Array) -> tuple[jax.Array, jax.Array]:
        return both.v @ lag + M.T @ later, later

    first, later = jax.lax.scan(
        back, jnp.zeros_like(both.u), lags, reverse=True, unroll=min(UNROLL, len(lags))
    )
    W_bar = dt * jnp.einsum("nim,njm->ij", later, states)
    gradient = (W_bar, first, jnp.einsum("njm,npm->jp", states, lags))
    return value, eqx.tree_at(lambda r: (r.W, r.u, r.v), both, gradient)


def _impulse(both: LinearRNN, dt: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """k_n = vᵀ Mⁿ u and the states Mⁿ u for n < num: (K, p, m) and (K, N, m)."""
    M = euler_step(both.W, dt)
    _, states = jax.lax.scan(
        lambda q, _: (M @ q, q), both.u, None, length=num, unroll=min(UNROLL, num)
    )
    return jnp.einsum("jp,njm->npm", both.v, states), states


def _loss_and_lags(
    k: jax.Array, dt: jax.Array, noise: jax.Array, averaged: bool
) -> tuple[jax.Array, jax.Array]:
    """The loss, (), and its derivative in every k_n, (K, p, m), on noise (batch, m, K)."""
    batch, _, num = noise.shape
    if not averaged:
        turned = noise[:, :, ::-1]
        errors = dt * jnp.einsum("bmn,npm->bp", turned, k)
        return jnp.sum(errors**2) / (2 * batch), dt / batch * jnp.einsum(
            "bp,bmn->npm", errors, turned
        )
    length = 1 << (2 * num - 1).bit_length()  # room for both ends: nothing wraps around
    spectrum = jnp.fft.rfft(noise, length)[:, None]
    response = jnp.fft.rfft(jnp.transpose(k, (1, 2, 0)), length)[None]
    errors = dt * jnp.fft.irfft(jnp.sum(spectrum * response, axis=2), length)[:, :, :num]
    turned = jnp.sum(jnp.conj(spectrum) * jnp.fft.rfft(errors, length)[:, :, None], axis=0)
    lags = dt / (batch * num) * jnp.fft.irfft(turned, length)[:, :, :num]
    return jnp.sum(errors**2) / (2 * batch * num), jnp.transpose(lags, (2, 0, 1))
