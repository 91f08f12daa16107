"""½∫₀ᵀ m(t) |k(t)|² dt of an impulse response over a finite horizon, and its exact gradient, by
doubling in time.

With q(t) = e^{-At} u, the horizon is 2ⁿ panels of length T/2ⁿ, each exact by itself, and two spans
of length τ make one of 2τ:

    P ← P + E P Eᵀ              P(τ) = ∫₀^τ q qᵀ dt
    R ← R + τ P + E R Eᵀ        R(τ) = ∫₀^τ (τ - t) q qᵀ dt
    E ← E²                      E(τ) = e^{-Aτ}

so that ½ tr vᵀ P(T) v is the loss of weight m = 1, and ½ tr vᵀ R(T) v / T that of m = 1 - t/T. The
gradient is the adjoint of this recursion, written out: 8 matrix products per doubling for m = 1, 13
for m = 1 - t/T, and no time grid. Nothing needs the network to be stable. The value itself is
summed from squares of k(t), because vᵀ P v cancels where student and target nearly agree.

In discrete time a panel is one Euler step, and a horizon of any number of steps is reached by
doubling and appending single steps: E ← E M, P ← P + dt q qᵀ with q = E u, R ← R + dt P.

A state that starts with the covariance s sᵀ, not at rest, adds ½ |vᵀ E(T) s|² to the error at the
last time, or ½∫₀ᵀ |vᵀ E(t) s|² dt / T to the average.

Source: sections 1, 2 and 8 of docs/theory.md.
"""

from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from rnn_dynamics.loss.estimate import all_finite
from rnn_dynamics.loss.gramian.panels import Panel, euler_panel, gauss_panel, longest_panel
from rnn_dynamics.model import LinearRNN

MAX_DOUBLINGS = 20  # a horizon of more than 2²⁰ panels or steps counts as out of range
MIN_SAMPLES = 128  # samples of k(t) per pass: columns kept beside each other


class Span(NamedTuple):
    """A span of network time from 0: `E`, `P` and `R` (N, N), the last None for m = 1, and its
    `length` ().
    """

    E: jax.Array
    P: jax.Array
    R: Any
    length: jax.Array


class Cut(NamedTuple):
    """How a horizon is cut: the panel's `length`, the number of `panels` and of `doublings`, each
    ().
    """

    length: jax.Array
    panels: jax.Array
    doublings: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def finite_energy(
    rnn: LinearRNN, horizon: jax.Array, averaged: bool, time_step: Any = None, start: Any = None
) -> jax.Array:
    """½∫₀ᵀ m(t) |k(t)|² dt, (), as a sum of squares, with m = 1 - t/T if `averaged`, else 1.
    Infinite where it overflows, or where the horizon has more than 2²⁰ panels or steps.

    Args:
        rnn: the network, with u and v as matrices, (N, m) and (N, p).
        horizon: T, ().
        averaged: which weighting.
        time_step: of the Euler scheme, or None.
        start: s, (N, k), of the state's covariance s sᵀ at the start; None is at rest.
    """
    no = jnp.zeros((), bool)
    return finite_energy_and_gradient(rnn, horizon, averaged, time_step, no, start)[0]


def finite_energy_and_gradient(
    rnn: LinearRNN,
    horizon: jax.Array,
    averaged: bool,
    time_step: Any,
    finer: jax.Array,
    start: Any = None,
) -> tuple[jax.Array, LinearRNN]:
    """The same, (), and its gradient; `finer` halves the panels of continuous time."""
    last = None if start is None or (averaged and time_step is None) else start
    if averaged and last is not None:  # the average is over the ends of steps
        last = last * jnp.sqrt(jnp.asarray(time_step, rnn.dtype) / horizon)
    with jax.default_matmul_precision("highest"):
        own = _value_and_gradient(rnn, horizon, averaged, time_step, finer, last)
        if start is None or not averaged:
            return own
        begun = eqx.tree_at(lambda r: r.u, rnn, start / jnp.sqrt(horizon))
        value, others = _value_and_gradient(begun, horizon, False, time_step, finer, None)
        others = eqx.tree_at(lambda r: r.u, others, jnp.zeros_like(rnn.u))
        return own[0] + value, jax.tree.map(jnp.add, own[1], others)


def _forward(
    rnn: LinearRNN, horizon: jax.Array, averaged: bool, time_step: Any, start: Any = None
) -> Any:
    no = jnp.zeros((), bool)
    value, gradient = finite_energy_and_gradient(rnn, horizon, averaged, time_step, no, start)
    return value, (gradient, horizon, time_step, start)


def _backward(_: bool, kept: Any, cotangent: jax.Array) -> Any:
    gradient, *others = kept
    scaled = jax.tree.map(lambda g: cotangent * g, gradient)
    return (scaled, *(jax.tree.map(jnp.zeros_like, x) for x in others))


finite_energy.defvjp(_forward, _backward)


def _cut(rnn: LinearRNN, horizon: jax.Array, time_step: Any, finer: jax.Array) -> Cut:
    if time_step is not None:
        dt = jnp.asarray(time_step, rnn.dtype)
        steps = jnp.clip(jnp.round(horizon / dt), 1, 2.0 ** (MAX_DOUBLINGS + 1)).astype(jnp.int32)
        return Cut(dt, steps, 31 - jax.lax.clz(steps))
    number = jnp.ceil(jnp.log2(horizon / longest_panel(rnn.W))) + finer.astype(rnn.dtype)
    doublings = jnp.clip(jnp.nan_to_num(number), 0, MAX_DOUBLINGS + 1).astype(jnp.int32)
    length = horizon * jnp.exp2(-doublings.astype(rnn.dtype))
    return Cut(length, jnp.left_shift(jnp.int32(1), doublings), doublings)


def _panel(rnn: LinearRNN, parts: Cut, time_step: Any) -> Panel:
    make = gauss_panel if time_step is None else euler_panel
    return make(rnn.W, rnn.u, parts.length)


def _value_and_gradient(
    rnn: LinearRNN,
    horizon: jax.Array,
    averaged: bool,
    time_step: Any,
    finer: jax.Array,
    start: Any,
) -> tuple[jax.Array, LinearRNN]:
    """½∫₀ᵀ m(t) |k(t)|² dt + ½ |vᵀ E(T) s|² and its gradient, where s is `start`, or 0."""
    parts = _cut(rnn, horizon, time_step, finer)
    panel, pull = jax.vjp(lambda rnn: _panel(rnn, parts, time_step), rnn)
    rest = (panel.length - panel.times)[None, :]
    first = Span(
        panel.E,
        panel.X @ panel.X.T,
        (panel.X * rest) @ panel.X.T if averaged else None,
        panel.length,
    )
    step = None if time_step is None else (panel.E, rnn.u)
    last, starts = _ascend(first, step, parts)

    value = _value(rnn, panel, parts, horizon, averaged)
    outer, zero = rnn.v @ rnn.v.T / 2, jnp.zeros_like(panel.E)
    P_bar, R_bar = (zero, outer / horizon) if averaged else (outer, None)
    E_bar, v_bar = zero, (last.R / horizon if averaged else last.P) @ rnn.v
    if start is not None:
        ends = last.E @ start
        more = jnp.sum((rnn.v.T @ ends) ** 2) / 2
        value = value + jnp.where(jnp.isnan(more), jnp.inf, more)  # of what overflows
        E_bar, v_bar = 2 * (outer @ ends) @ start.T, v_bar + ends @ (ends.T @ rnn.v)
    top = Span(E_bar, P_bar, R_bar, jnp.zeros_like(panel.length))
    bottom, M_bar, u_bar = _descend(top, starts, step, parts)
    X_bar = 2 * (bottom.P @ panel.X)
    if averaged:
        X_bar = X_bar + 2 * (bottom.R @ panel.X) * rest
    (gradient,) = pull(
        Panel(bottom.E + M_bar, X_bar, jnp.zeros_like(panel.times), jnp.zeros_like(panel.length))
    )
    gradient = eqx.tree_at(lambda g: (g.u, g.v), gradient, (gradient.u + u_bar, v_bar))
    in_range = parts.doublings <= MAX_DOUBLINGS
    gradient = jax.tree.map(lambda x: jnp.where(in_range, x, jnp.nan), gradient)
    return value, gradient


def _value(
    rnn: LinearRNN, panel: Panel, parts: Cut, horizon: jax.Array, averaged: bool
) -> jax.Array:
    X, E, times, number = panel.X, panel.E, panel.times, np.zeros(panel.X.shape[1], np.int32)
    panels = 1
    while X.shape[1] < MIN_SAMPLES:
        X = jnp.concatenate([X, E @ X], axis=1)
        times = jnp.concatenate([times, times + panels * panel.length])
        number, E, panels = np.concatenate([number, number + panels]), E @ E, 2 * panels

    def add(carry: Any) -> Any:
        done, row, total = carry
        t = times + done.astype(times.dtype) * panel.length
        m = 1 - t / horizon if averaged else jnp.ones_like(t)
        inside = jnp.asarray(number) + done < parts.panels
        squares = jnp.where(inside, m * jnp.sum((row @ X) ** 2, axis=0), jnp.zeros_like(t))
        return done + panels, row @ E, total + jnp.sum(squares) / 2

    start = (jnp.zeros((), jnp.int32), rnn.v.T, jnp.zeros((), rnn.dtype))
    total = jax.lax.while_loop(lambda carry: carry[0] < parts.panels, add, start)[2]
    known = jnp.isfinite(total) & (parts.doublings <= MAX_DOUBLINGS)
    overflow = jnp.asarray(jnp.inf, rnn.dtype)
    return jnp.where(known, total, jnp.where(all_finite(rnn), overflow, jnp.nan))


def _ascend(span: Span, step: Any, parts: Cut) -> tuple[Span, Span]:
    """From one panel to the horizon: the last span, and the spans at the start of every doubling,
    (MAX_DOUBLINGS, …).
    """
    starts = jax.tree.map(lambda x: jnp.zeros((MAX_DOUBLINGS, *x.shape), x.dtype), span)

    def level(k: jax.Array, carry: tuple[Span, Span]) -> tuple[Span, Span]:
        span, starts = carry
        starts = jax.tree.map(lambda kept, x: kept.at[k].set(x), starts, span)
        E, P, R, tau = span
        if R is not None:
            R = R + tau * P + E @ R @ E.T
        longer = Span(E @ E, P + E @ P @ E.T, R, 2 * tau)
        if step is not None:
            longer = _where(_odd(k, parts), _append(longer, step, parts.length), longer)
        return _where(k < parts.doublings, longer, span), starts

    return jax.lax.fori_loop(0, _levels(parts), level, (span, starts))


def _append(span: Span, step: Any, dt: jax.Array) -> Span:
    """A span and one Euler step more."""
    M, u = step
    q = span.E @ u
    P = span.P + dt * (q @ q.T)
    return Span(span.E @ M, P, None if span.R is None else span.R + dt * P, span.length + dt)


def _descend(bar: Span, starts: Span, step: Any, parts: Cut) -> tuple[Span, jax.Array, jax.Array]:
    """The adjoint of `_ascend`: cotangents of the first span, of M and of u."""
    levels = _levels(parts)

    def level(i: jax.Array, carry: Any) -> Any:
        k = levels - 1 - i
        bar, M_bar, u_bar = carry
        span = jax.tree.map(lambda kept: kept[k], starts)
        active = k < parts.doublings
        inner = bar
        if step is not None:
            odd = _odd(k, parts)
            before, to_M, to_u = _append_adjoint(bar, span.E @ span.E, step, parts.length)
            inner = _where(odd, before, bar)
            M_bar = jnp.where(active & odd, M_bar + to_M, M_bar)
            u_bar = jnp.where(active & odd, u_bar + to_u, u_bar)
        E, S = span.E, inner.P
        SE = S @ E
        E_bar = inner.E @ E.T + E.T @ inner.E + 2 * (SE @ span.P)
        P_bar, R_bar = S + E.T @ SE, inner.R
        if R_bar is not None:
            RE = R_bar @ E
            E_bar = E_bar + 2 * (RE @ span.R)
            P_bar = P_bar + span.length * R_bar
            R_bar = R_bar + E.T @ RE
        return _where(active, Span(E_bar, P_bar, R_bar, bar.length), bar), M_bar, u_bar

    zero = jnp.zeros_like(bar.E)
    u_zero = zero[:, :1] if step is None else jnp.zeros_like(step[1])
    return jax.lax.fori_loop(0, levels, level, (bar, zero, u_zero))


def _append_adjoint(bar: Span, E: jax.Array, step: Any, dt: jax.Array) -> Any:
    """Cotangents of the span before a step, of M and of u."""
    M, u = step
    P_bar = bar.P if bar.R is None else bar.P + dt * bar.R
    q_bar = 2 * dt * (P_bar @ (E @ u))
    E_bar = bar.E @ M.T + q_bar @ u.T
    return Span(E_bar, P_bar, bar.R, bar.length), E.T @ bar.E, E.T @ q_bar


def _odd(k: jax.Array, parts: Cut) -> jax.Array:
    """Whether a step is appended after doubling k: a binary digit of the number of steps."""
    shift = jnp.maximum(parts.doublings - 1 - k, 0)
    return jnp.right_shift(parts.panels, shift) % 2 == 1


def _where(condition: jax.Array, yes: Span, no: Span) -> Span:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _levels(parts: Cut) -> jax.Array:
    return _largest(jnp.minimum(parts.doublings, MAX_DOUBLINGS))


@custom_vmap
def _largest(number: jax.Array) -> jax.Array:
    """A bound of a loop that stays one number in a batch: the largest of the members'.

    A loop whose bound differs between members would copy all that is kept at every turn.
    """
    return number


@_largest.def_vmap
def _(_: int, batched: list[bool], numbers: jax.Array) -> tuple[jax.Array, bool]:
    return (jnp.max(numbers) if batched[0] else numbers), False
