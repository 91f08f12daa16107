"""Networks of nonlinear units through time, all trials at once, and back.

A network is anything with W (N, N), u (N, m), v (N, p) and elementwise `rates`.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp


@jax.jit
def outputs(rnn: Any, x: jax.Array, dt: jax.Array) -> jax.Array:
    """v^T φ(h) after every Euler step from rest, (T, B, p), of inputs (T, B, m).

    Its gradient in the network and the inputs, not in the time step, keeps one state in √T.
    """
    return _simulate(rnn, x, dt)


@jax.jit
def mean_slopes(rnn: Any, x: jax.Array, dt: jax.Array) -> jax.Array:
    """⟨φ'(h)⟩ of every unit, (N,), over trials and times."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h, _ = _advance(rnn, dt, h, x)
        return h, jnp.mean(_with_slopes(rnn, h)[1], axis=0)

    with jax.default_matmul_precision("highest"):
        return jnp.mean(jax.lax.scan(step, _at_rest(rnn, x), x)[1], axis=0)


def _at_rest(rnn: Any, x: jax.Array) -> jax.Array:
    return jnp.zeros((x.shape[1], rnn.num_units), x.dtype)


def _advance(rnn: Any, dt: jax.Array, h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The states (B, N) after one Euler step, and the rates before it."""
    f = rnn.rates(h)
    return (1 - dt) * h + dt * (f @ rnn.W.T + x @ rnn.u.T), f


def _with_slopes(rnn: Any, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rates and their derivatives."""
    return jax.jvp(rnn.rates, (h,), (jnp.ones_like(h),))


def _segments(x: jax.Array, num: int) -> jax.Array:
    """A sequence (T, ...) as (K, S, ...) with zeros after it, at least `num` of all together: K
    checkpoints and three arrays of S states are least memory at S = √(T/3).
    """
    size = max(1, round(math.sqrt(num / 3)))
    count = -(-num // size)
    more = jnp.zeros((count * size - len(x), *x.shape[1:]), x.dtype)
    return jnp.concatenate([x, more]).reshape(count, size, *x.shape[1:])


@jax.custom_vjp
def _simulate(rnn: Any, x: jax.Array, dt: jax.Array) -> jax.Array:
    return _forward(rnn, x, dt)[0]


def _forward(rnn: Any, x: jax.Array, dt: jax.Array) -> Any:
    """The outputs (T, B, p), and what the gradient needs: states of one step in √T."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h, f = _advance(rnn, dt, h, x)
        return h, f @ rnn.v

    def segment(h: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        after, y = jax.lax.scan(step, h, x)
        return after, (h, y)

    with jax.default_matmul_precision("highest"):
        _, (starts, y) = jax.lax.scan(segment, _at_rest(rnn, x), _segments(x, len(x) + 1))
    y = y.reshape(-1, *y.shape[2:])[1 : len(x) + 1]  # the first is at rest
    return y, (rnn, x, dt, starts)


def _backward(kept: Any, cotangent: jax.Array) -> Any:
    """Segments from last to first, each computed once more; products of a whole segment at once."""
    rnn, x, dt, starts = kept

    def once_more(h: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        return _advance(rnn, dt, h, x)[0], _with_slopes(rnn, h)

    def back(later: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        slope, by_output = at
        now = (1 - dt) * later + slope * (dt * (later @ rnn.W) + by_output @ rnn.v.T)
        return now, later

    def segment(carry: Any, at: Any) -> tuple[Any, jax.Array]:
        later, gradient = carry
        start, x, by_output = at
        _, (f, slopes) = jax.lax.scan(once_more, start, x)
        later, all_later = jax.lax.scan(back, later, (slopes, by_output), reverse=True)
        pairs = (all_later, f), (all_later, x), (f, by_output)
        parts = (jnp.einsum("tbi,tbj->ij", *pair) for pair in pairs)
        gradient = tuple(g + part for g, part in zip(gradient, parts, strict=True))
        return (later, gradient), dt * (all_later @ rnn.u)

    start = _at_rest(rnn, x), jax.tree.map(jnp.zeros_like, (rnn.W, rnn.u, rnn.v))
    by_output = jnp.concatenate([jnp.zeros_like(cotangent[:1]), cotangent])
    parts = (_segments(each, len(x) + 1) for each in (x, by_output))
    with jax.default_matmul_precision("highest"):
        (_, (W, u, v)), by_input = jax.lax.scan(segment, start, (starts, *parts), reverse=True)
    zeros = jax.tree.map(jnp.zeros_like, rnn)
    gradient = eqx.tree_at(lambda r: (r.W, r.u, r.v), zeros, (dt * W, dt * u, v))
    by_input = by_input.reshape(-1, *by_input.shape[2:])[: len(x)]
    return gradient, by_input, jnp.zeros_like(dt)


_simulate.defvjp(_forward, _backward)
