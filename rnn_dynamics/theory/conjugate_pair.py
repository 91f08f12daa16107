"""A conjugate pair: a sign-symmetric network of two units (section 3.2 of the theory note)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, record_times, require
from rnn_dynamics.theory.curve import TheoryCurve
from rnn_dynamics.theory.events import EVENTS, last_turn, loss_levels

BISECTIONS = 44


def conjugate_pair(
    target: LinearRNN,
    initial: tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    train_time: ArrayLike,
    rates: Any = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
) -> TheoryCurve:
    """Gradient flow of a network that is its own transpose up to a sign: five numbers, for any target.

        W = [[p, q], [-q, r]],    u = (a, b),    v = (a, -b)

    As k(t) does not change when W is transposed and u and v are exchanged, this form is kept if η_u = η_v, and a b / η_u -
    q (p - r) / η_W is conserved. An oscillator is learned from small weights in four acts: one real outlier, the best single mode
    (the plateau); a second real one; their collision; a conjugate pair that settles at the target's. Stiff, so integrated by an
    L-stable method, in (p, q, r, a, b), which are regular at the collision.

    Args:
        target: any stable `LinearRNN`.
        initial: (p, q, r, a, b) at τ = 0, a stable network.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        rates: `Rates` with equal rates of u and v, by default all 1.
        rtol: relative tolerance, by default 1e-8 in float64, 1e-5 in float32.
        atol: absolute tolerance, by default 1e-10 in float64, 1e-7 in float32.
        max_steps: most attempted steps.

    Returns:
        The curve, with two eigenvalues, the coordinates `p`, `q`, `r`, `a`, `b`, and the learning times of the events it passes:
        `plateau_start` and `plateau_end`, where the loss falls to 1.05 and 0.95 of that of `best_one_mode`; `collision`, where the
        eigenvalues last turn from real to a pair; `arrival`, where ∫(k - k*)² falls to (1 %)² of ∫k*². They are located
        between the records to the tolerance of the integration; NaN if not passed.

    Raises:
        ValueError: if the target or the start is unstable, rates of u and v differ, or `train_time` does not increase.
    """
    dtype = target.dtype
    start = jnp.stack([jnp.asarray(x, dtype) for x in initial])
    require(start.shape == (5,), "initial", "hold five numbers", start.shape)
    times = record_times(train_time, dtype)
    PopulationLoss().check(target)
    if not is_traced(start):
        require(bool(jnp.all(jnp.isfinite(start))), "initial", "be finite", start)
        top = float(jnp.max(_eigenvalues(start).real))
        require(top < 1, "initial", "be stable, with eigenvalues below 1", f"one with {top:g}")
    weights = [1.0, 1.0] if rates is None else [rates.W, rates.u]
    if rates is not None and not (is_traced(rates.u) or is_traced(rates.v)):
        same = bool(rates.u == rates.v)
        require(same, "rates", "be equal for u and v", f"{float(rates.u)} and {float(rates.v)}")
    eta = jnp.stack([jnp.asarray(rate, dtype) for rate in weights])
    return _solve(target, start, times, eta, (rtol, atol), max_steps)


def pair_network(y: jax.Array) -> LinearRNN:
    """The network of two units with coordinates (p, q, r, a, b), (5,)."""
    p, q, r, a, b = y
    return LinearRNN(
        jnp.stack([jnp.stack([p, q]), jnp.stack([-q, r])]), jnp.stack([a, b]), jnp.stack([a, -b])
    )


def pair_velocity(y: jax.Array, target: LinearRNN, eta: jax.Array) -> jax.Array:
    """(p, q, r, a, b)' of the flow with rates (η_W, η_u = η_v), (5,) → (5,)."""
    _, G = PopulationLoss().value_and_grad(pair_network(y), target)
    slopes = jnp.stack([G.W[0, 0], G.W[0, 1], G.W[1, 1], G.u[0], G.u[1]])
    return -slopes * eta[np.array([0, 0, 0, 1, 1])]


def _eigenvalues(y: jax.Array) -> jax.Array:
    """Both eigenvalues, (5,) → (2,) complex, without cancellation near the collision."""
    mean, square = (y[0] + y[2]) / 2, _discriminant(y)
    zero = jnp.zeros_like(square)
    real, imaginary = jnp.sqrt(jnp.maximum(square, zero)), jnp.sqrt(jnp.maximum(-square, zero))
    half = jax.lax.complex(real, imaginary)
    return jax.lax.complex(mean, zero) + jnp.stack([half, -half])


def _discriminant(y: jax.Array) -> jax.Array:
    half = (y[0] - y[2]) / 2
    return (half - y[1]) * (half + y[1])


@jax.jit(static_argnums=(4, 5))
def _solve(
    target: LinearRNN,
    start: jax.Array,
    times: jax.Array,
    eta: jax.Array,
    tolerances: tuple[float | None, float | None],
    max_steps: int,
) -> TheoryCurve:
    loss = PopulationLoss()

    def velocity(_: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        return pair_velocity(y, *args)

    args = (target, eta)
    options: Any = {"method": ode.RODAS5P, "rtol": tolerances[0], "atol": tolerances[1]}

    def to_record(state: ode.State, time: jax.Array) -> tuple[ode.State, ode.State]:
        state = ode.advance(velocity, state, time, args, max_steps=max_steps, **options)
        return state, state

    state = ode.start(velocity, jnp.zeros((), times.dtype), start, args, **options)
    state, states = jax.lax.scan(to_record, state, times)
    good = states.status == ode.Status.ok
    ys = jnp.where(good[:, None], states.y, jnp.nan)
    losses = jax.vmap(lambda y: loss(pair_network(y), target))(ys)
    losses = jnp.where(good, losses, jnp.nan)

    start_level, end_level, arrival_level = loss_levels(target)

    def margins(y: jax.Array, value: jax.Array) -> jax.Array:
        """What is positive before and negative after each of the events, (4,)."""
        gap = _discriminant(y)
        return jnp.stack([value - start_level, value - end_level, gap, value - arrival_level])

    def after(index: jax.Array, time: jax.Array) -> jax.Array:
        state = jax.tree.map(lambda x: x[index], states)
        state = ode.advance(velocity, state, time, args, max_steps=max_steps, **options)
        return margins(state.y, loss(pair_network(state.y), target))

    found = _locate(after, jax.vmap(margins)(ys, losses), times)
    change = (ys - start[None, :])[:, :3] ** 2 @ jnp.asarray([1.0, 2.0, 1.0], times.dtype)
    norm = jnp.hypot(ys[:, 3], ys[:, 4])
    return TheoryCurve(
        train_time=times,
        loss=losses,
        eigenvalues=jax.vmap(_eigenvalues)(ys),
        coordinates=dict(zip("pqrab", ys.T, strict=True))
        | {
            "input_norm": norm,
            "output_norm": norm,
            "overlap": ys[:, 3] ** 2 - ys[:, 4] ** 2,
            "weight_change": jnp.sqrt(change),
        },
        status=state.status,
        events=dict(zip(EVENTS, found, strict=True)),
    )


def _locate(
    after: Callable[[jax.Array, jax.Array], jax.Array], seen: jax.Array, times: jax.Array
) -> jax.Array:
    """Times at which margins, (R, E) at the records, last turn negative, (E,), by bisection of the flow itself."""

    def one(event: jax.Array, margins: jax.Array) -> jax.Array:
        index = last_turn(margins)
        record = jnp.maximum(index, 0)

        def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            low, high = bracket
            middle = (low + high) / 2
            before = after(record, middle)[event] > 0
            return jnp.where(before, middle, low), jnp.where(before, high, middle)

        low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (times[record], times[record + 1]))
        return jnp.where(index >= 0, (low + high) / 2, jnp.nan)

    if len(times) < 2:
        return jnp.full(seen.shape[1], jnp.nan, times.dtype)
    return jax.vmap(one)(jnp.arange(seen.shape[1]), seen.T)
