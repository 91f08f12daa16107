"""The events on the way to an oscillator: plateau, collision, arrival (section 3.2 of
docs/theory.md).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.loss.gramian.doubling import energy
from rnn_dynamics.model import LinearRNN, match_eigenvalues, track_eigenvalues
from rnn_dynamics.model.arguments import require, show
from rnn_dynamics.ode import State
from rnn_dynamics.theory.pairs.best_one_mode import best_mode

EVENTS = ("plateau_start", "plateau_end", "collision", "arrival")
PLATEAU_MARGIN = 0.05  # the plateau is where the loss is within 5 % of that of the best single mode
ARRIVAL = 1e-4  # loss relative to ½∫k*² at which k is within 1 % of k*
BISECTIONS = 44


def event_times(target: LinearRNN, curve: Any) -> dict[str, jax.Array]:
    """Learning times at which a learning curve of any network passes the events of a conjugate
    pair.

    `plateau_start` and `plateau_end`: the loss falls to 1.05 and 0.95 of that of `best_one_mode`.
    `collision`: the two eigenvalues that end nearest to the target's pair turn from real to
    complex. `arrival`: ∫(k - k*)² falls to (1 %)² of ∫k*². Where an event is passed several times,
    the last one counts.

    Located between records by interpolation, of the logarithm of the loss and of the square of half
    the distance of the two eigenvalues, which passes linearly through 0. (`conjugate_pair` locates
    its own events more exactly.)

    Args:
        target: the target, of two modes.
        curve: a `Trajectory` or `TheoryCurve` of R records with N ≥ 2 eigenvalues.

    Returns:
        The times by name, each (); NaN if an event is not passed.

    Raises:
        ValueError: if the target is unstable, has fewer than two units, or the curve has fewer than
            two eigenvalues.
    """
    PopulationLoss().check(target)
    require(target.num_units >= 2, "target", "have two modes", "of one unit")
    for name in ("train_time", "loss", "eigenvalues"):
        if not hasattr(curve, name):
            raise TypeError(
                f"Argument `curve` must be a Trajectory or a TheoryCurve, but is {show(curve)}."
            )
    count = curve.eigenvalues.shape[-1]
    require(count >= 2, "curve", "have at least 2 eigenvalues", f"of {count}")
    wanted = np.linalg.eigvals(np.asarray(target.W))
    wanted = wanted[np.argsort(-abs(wanted.imag))[:2]]
    return _event_times(
        target, jnp.asarray(wanted), curve.train_time, curve.loss, curve.eigenvalues
    )


def loss_levels(target: LinearRNN) -> tuple[jax.Array, jax.Array]:
    """The target's own energy ½∫k*², (), and the loss at which the plateau starts and ends, and at
    arrival, (3,).
    """
    whole, plateau = energy(target), best_mode(target).loss
    levels = (1 + PLATEAU_MARGIN) * plateau, (1 - PLATEAU_MARGIN) * plateau, ARRIVAL * whole
    return whole, jnp.stack(levels)


def record_and_locate(
    advance: Callable[[State, jax.Array], State],
    margins: Callable[[State], jax.Array],
    state: State,
    times: jax.Array,
) -> tuple[State, jax.Array]:
    """States at the records, and when margins turn negative between them.

    Args:
        advance: brings a state to a time.
        margins: of a state, (E,), positive before events and negative after them.
        state: before the first record.
        times: of the records, (R,).

    Returns:
        The states, with a leading axis R, and for each event the time of its margin's last turn,
        (E,), by bisection of the flow itself; NaN if it has none.
    """
    records, events = len(times), len(EVENTS)

    # First the records, then halvings of each event's bracket: one loop, so that the flow is
    # compiled once.
    def visit(i: jax.Array, carry: Any) -> Any:
        states, seen, low, high = carry
        recording, event = i < records, (i - records) % events
        turn = last_turn(seen[:records, event])
        before = jnp.maximum(turn, 0)
        starting = i < records + events
        left = jnp.where(starting, times[before], low[event])
        right = jnp.where(starting, times[jnp.minimum(before + 1, records - 1)], high[event])
        middle = (left + right) / 2
        origin = jnp.where(recording, jnp.maximum(i - 1, 0), before)
        goal = jnp.where(turn >= 0, middle, times[0])  # nowhere without a bracket
        time = jnp.where(recording, times[jnp.minimum(i, records - 1)], goal)
        state = advance(jax.tree.map(lambda x: x[origin], states), time)
        now = margins(state)
        still = now[event] > 0
        low = jnp.where(recording, low, low.at[event].set(jnp.where(still, middle, left)))
        high = jnp.where(recording, high, high.at[event].set(jnp.where(still, right, middle)))
        slot = jnp.minimum(i, records)  # the last one is scratch
        states = jax.tree.map(lambda x, new: x.at[slot].set(new), states, state)
        return states, seen.at[slot].set(now), low, high

    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (records + 1, *x.shape)), state)
    nothing = jnp.zeros(events, times.dtype)
    seen = jnp.zeros((records + 1, events), times.dtype)
    rounds = records + events * BISECTIONS
    states, seen, low, high = jax.lax.fori_loop(0, rounds, visit, (states, seen, nothing, nothing))
    turned = jax.vmap(last_turn, in_axes=1)(seen[:records]) >= 0
    times_found = jnp.where(turned, (low + high) / 2, jnp.nan)
    return jax.tree.map(lambda x: x[:records], states), times_found


def last_turn(margins: jax.Array) -> jax.Array:
    """Index of the record before margins, (R,), last turn from positive to negative, (); -1 if they
    never do.
    """
    turns = (margins[:-1] > 0) & (margins[1:] <= 0)
    return jnp.max(jnp.where(turns, jnp.arange(len(margins) - 1), -1), initial=-1)


@jax.jit
def _event_times(
    target: LinearRNN,
    wanted: jax.Array,
    times: jax.Array,
    loss: jax.Array,
    eigenvalues: jax.Array,
) -> dict[str, jax.Array]:
    start, end, arrival = jnp.log(loss[:, None] / loss_levels(target)[1][None, :]).T
    known = jnp.where(jnp.isnan(eigenvalues), 0, eigenvalues)
    backwards = track_eigenvalues(known[::-1])
    pair = backwards[::-1][:, match_eigenvalues(wanted.astype(known.dtype), backwards[0])]
    gap = (((pair[:, 0] - pair[:, 1]) / 2) ** 2).real

    def crossing(margins: jax.Array) -> jax.Array:
        index = last_turn(margins)
        at = jnp.maximum(index, 0)
        share = margins[at] / (margins[at] - margins[at + 1])
        time = times[at] + share * (times[at + 1] - times[at])
        return jnp.where(index >= 0, time, jnp.nan)

    found = (crossing(margins) for margins in (start, end, gap, arrival))
    return dict(zip(EVENTS, found, strict=True))
