"""A conjugate pair: learning an oscillator with two units (section 3.2 of docs/theory.md)."""

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
from rnn_dynamics.theory.pairs.events import EVENTS, loss_levels, record_and_locate
from rnn_dynamics.theory.pairs.pair import (
    SYMMETRIC,
    discriminant,
    pair_eigenvalues,
    pair_loss,
    pair_network,
    pair_velocity,
)
from rnn_dynamics.theory.pairs.pair_start import flow_rates, two_units


def conjugate_pair(
    target: LinearRNN,
    initial: LinearRNN | tuple[ArrayLike, ArrayLike, ArrayLike, ArrayLike, ArrayLike],
    train_time: ArrayLike,
    rates: Any = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
) -> TheoryCurve:
    """Gradient flow of two units: eight numbers for any initial network, any rates and any target,
    or five if they are their own transpose up to a sign.

        W' = -η_W ∂L/∂W,    u' = -η_u ∂L/∂u,    v' = -η_v ∂L/∂v,    W (2, 2), u (2,), v (2,)
        W = [[p, q], [-q, r]],    u = (a, b),    v = (a, -b)             as five numbers

    From a network of more units the two are taken that grow: the outlier's direction, and the
    combination of the others that the outlier makes grow most. That is exact for W(0) = 0, of any
    norms of u and v, and to first order in a small W(0). As k(t) does not change when W is
    transposed and u and v are exchanged, the form of five numbers is kept if η_u = η_v, and a b /
    η_u - q (p - r) / η_W is conserved. An oscillator is learned from small weights
    in four acts: one real outlier, the best single mode (the plateau); a second real one; their
    collision; a conjugate pair that settles at the target's. Stiff, so integrated by an L-stable
    method, in weights, which are regular at the collision.

    Args:
        target: any stable `LinearRNN`.
        initial: the network at τ = 0, of two units or more; or (p, q, r, a, b). Stable.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        rates: `Rates`, by default all 1; with equal rates of u and v for five numbers.
        rtol: relative tolerance, by default 1e-8 in float64, 1e-5 in float32.
        atol: absolute tolerance, by default 1e-10 in float64, 1e-7 in float32.
        max_steps: most attempted steps.

    Returns:
        The curve, with two eigenvalues, for five numbers the coordinates `p`, `q`, `r`, `a`, `b`,
        and the learning times of the events it passes: `plateau_start` and `plateau_end`, where the
        loss falls to 1.05 and 0.95 of that of `best_one_mode`; `collision`, where the eigenvalues
        last turn from real to a pair; `arrival`, where ∫(k - k*)² falls to (1 %)² of ∫k*². They are
        located between the records to the tolerance of the integration; NaN if not passed.

    Raises:
        ValueError: if the target or the start is unstable, a network has one unit, rates of u and
            v differ for five numbers, or `train_time` does not increase.
    """
    require_rnns(target=target)
    check_rates(rates)
    tolerances, limit = solver_numbers(rtol, atol, max_steps)
    dtype = target.dtype
    times = record_times(train_time, dtype)
    eta = flow_rates(rates, dtype)
    PopulationLoss().check(target)
    if isinstance(initial, LinearRNN):
        require_rnns(initial=initial)
        require(initial.num_units >= 2, "initial", "have two units or more", "a network of one")
        start = _start(initial.astype(dtype), target, eta, times[-1])
    else:
        start = initial_numbers(initial, 5, "five", dtype)
        if rates is not None and not (is_traced(rates.u) or is_traced(rates.v)):
            same = bool(rates.u == rates.v)
            require(same, "rates", "be equal for u and v", f"{float(rates.u)} and {float(rates.v)}")
    if not is_traced(start):
        top = float(jnp.max(pair_eigenvalues(start).real))
        require(top < 1, "initial", "be stable, with eigenvalues below 1", f"one with {top:g}")
    return _solve(target, start, times, eta, tolerances, limit)


@jax.jit
def _start(rnn: LinearRNN, target: LinearRNN, eta: jax.Array, end: jax.Array) -> jax.Array:
    """The eight numbers of a network of two units, or of the two that grow."""
    two = rnn if rnn.num_units == 2 else two_units(rnn, target, eta, end)
    return jnp.concatenate([two.W.ravel(), two.u, two.v])


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
    rnns, first = jax.vmap(pair_network)(ys), pair_network(start)
    symmetric = dict(zip("pqrab", ys.T, strict=True)) if len(start) == SYMMETRIC else {}
    return TheoryCurve(
        train_time=times,
        loss=jnp.where(good, losses, jnp.nan),
        eigenvalues=jax.vmap(pair_eigenvalues)(ys),
        coordinates=symmetric
        | {
            "input_norm": jnp.linalg.norm(rnns.u, axis=1),
            "output_norm": jnp.linalg.norm(rnns.v, axis=1),
            "overlap": jnp.sum(rnns.u * rnns.v, axis=1),
            "weight_change": jnp.linalg.norm(rnns.W - first.W[None], axis=(1, 2)),
        },
        status=states.status[-1],
        events=dict(zip(EVENTS, found, strict=True)),
    )
