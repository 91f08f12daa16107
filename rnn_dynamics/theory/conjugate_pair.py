"""A conjugate pair: learning an oscillator in five numbers (section 3.2 of the theory note)."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, record_times, require
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.arguments import check_rates, initial_numbers, solver_numbers
from rnn_dynamics.theory.curve import TheoryCurve
from rnn_dynamics.theory.events import EVENTS, loss_levels, record_and_locate
from rnn_dynamics.theory.pair import (
    discriminant,
    pair_eigenvalues,
    pair_loss,
    pair_network,
    pair_velocity,
)


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
    """Gradient flow of a network that is its own transpose up to a sign: five numbers, for any
    target.

        W = [[p, q], [-q, r]],    u = (a, b),    v = (a, -b)

    As k(t) does not change when W is transposed and u and v are exchanged, this form is kept if η_u
    = η_v, and a b / η_u - q (p - r) / η_W is conserved. An oscillator is learned from small weights
    in four acts: one real outlier, the best single mode (the plateau); a second real one; their
    collision; a conjugate pair that settles at the target's. Stiff, so integrated by an L-stable
    method, in (p, q, r, a, b), which are regular at the collision.

    Args:
        target: any stable `LinearRNN`.
        initial: (p, q, r, a, b) at τ = 0, a stable network.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        rates: `Rates` with equal rates of u and v, by default all 1.
        rtol: relative tolerance, by default 1e-8 in float64, 1e-5 in float32.
        atol: absolute tolerance, by default 1e-10 in float64, 1e-7 in float32.
        max_steps: most attempted steps.

    Returns:
        The curve, with two eigenvalues, the coordinates `p`, `q`, `r`, `a`, `b`, and the learning
        times of the events it passes: `plateau_start` and `plateau_end`, where the loss falls to
        1.05 and 0.95 of that of `best_one_mode`; `collision`, where the eigenvalues last turn from
        real to a pair; `arrival`, where ∫(k - k*)² falls to (1 %)² of ∫k*². They are located
        between the records to the tolerance of the integration; NaN if not passed.

    Raises:
        ValueError: if the target or the start is unstable, rates of u and v differ, or `train_time`
            does not increase.
    """
    require_rnns(target=target)
    check_rates(rates)
    tolerances, limit = solver_numbers(rtol, atol, max_steps)
    dtype = target.dtype
    start = initial_numbers(initial, 5, "five", dtype)
    times = record_times(train_time, dtype)
    PopulationLoss().check(target)
    if not is_traced(start):
        top = float(jnp.max(pair_eigenvalues(start).real))
        require(top < 1, "initial", "be stable, with eigenvalues below 1", f"one with {top:g}")
    weights = [1.0, 1.0] if rates is None else [rates.W, rates.u]
    if rates is not None and not (is_traced(rates.u) or is_traced(rates.v)):
        same = bool(rates.u == rates.v)
        require(same, "rates", "be equal for u and v", f"{float(rates.u)} and {float(rates.v)}")
    eta = jnp.stack([jnp.asarray(rate, dtype) for rate in weights])
    return _solve(target, start, times, eta, tolerances, limit)


@jax.jit(static_argnums=(4, 5))
def _solve(
    target: LinearRNN,
    start: jax.Array,
    times: jax.Array,
    eta: jax.Array,
    tolerances: tuple[float | None, float | None],
    max_steps: int,
) -> TheoryCurve:
    def velocity(_: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        return pair_velocity(y, *args)

    args = target, eta
    options: Any = {"method": ode.RODAS5P, "rtol": tolerances[0], "atol": tolerances[1]}
    whole, levels = loss_levels(target)

    def advance(state: ode.State, time: jax.Array) -> ode.State:
        return ode.advance(velocity, state, time, args, max_steps=max_steps, **options)

    def margins(state: ode.State) -> jax.Array:
        value = pair_loss(state.y, target) + whole
        start_level, end_level, arrival = levels
        gap = discriminant(state.y)
        return jnp.stack([value - start_level, value - end_level, gap, value - arrival])

    state = ode.start(velocity, jnp.zeros((), times.dtype), start, args, **options)
    states, found = record_and_locate(advance, margins, state, times)
    good = states.status == ode.Status.ok
    ys = jnp.where(good[:, None], states.y, jnp.nan)
    # the energy of the difference, as the parts of `pair_loss` cancel at the solution
    losses = jax.vmap(lambda y: PopulationLoss()(pair_network(y), target))(ys)
    change = (ys - start[None, :])[:, :3] ** 2 @ jnp.asarray([1.0, 2.0, 1.0], times.dtype)
    norm = jnp.hypot(ys[:, 3], ys[:, 4])
    return TheoryCurve(
        train_time=times,
        loss=jnp.where(good, losses, jnp.nan),
        eigenvalues=jax.vmap(pair_eigenvalues)(ys),
        coordinates=dict(zip("pqrab", ys.T, strict=True))
        | {
            "input_norm": norm,
            "output_norm": norm,
            "overlap": ys[:, 3] ** 2 - ys[:, 4] ** 2,
            "weight_change": jnp.sqrt(change),
        },
        status=states.status[-1],
        events=dict(zip(EVENTS, found, strict=True)),
    )
