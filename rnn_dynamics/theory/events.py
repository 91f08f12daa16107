"""The events on the way to an oscillator: plateau, collision, arrival (section 3.2 of the theory note)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.loss.energy import energy
from rnn_dynamics.model import LinearRNN, match_eigenvalues, track_eigenvalues
from rnn_dynamics.model.arguments import require
from rnn_dynamics.theory.best_one_mode import best_one_mode

EVENTS = ("plateau_start", "plateau_end", "collision", "arrival")
PLATEAU_MARGIN = 0.05  # the plateau is where the loss is within 5 % of that of the best single mode
ARRIVAL = 1e-4  # loss relative to ½∫k*² at which k is within 1 % of k*


def event_times(target: LinearRNN, curve: Any) -> dict[str, jax.Array]:
    """Learning times at which a learning curve of any network passes the events of a conjugate pair.

    `plateau_start` and `plateau_end`: the loss falls to 1.05 and 0.95 of that of `best_one_mode`. `collision`: the two eigenvalues that
    end nearest to the target's pair turn from real to complex. `arrival`: ∫(k - k*)² falls to (1 %)² of ∫k*². Where an event is
    passed several times, the last one counts.

    Located between records by interpolation, of the logarithm of the loss and of the square of half the distance of the two
    eigenvalues, which passes linearly through 0. (`conjugate_pair` locates its own events more exactly.)

    Args:
        target: the target, of two modes.
        curve: a `Trajectory` or `TheoryCurve` of R records with N ≥ 2 eigenvalues.

    Returns:
        The times by name, each (); NaN if an event is not passed.

    Raises:
        ValueError: if the target is unstable, has fewer than two units, or the curve has fewer than two eigenvalues.
    """
    PopulationLoss().check(target)
    require(target.num_units >= 2, "target", "have two modes", "of one unit")
    count = curve.eigenvalues.shape[-1]
    require(count >= 2, "curve", "have at least 2 eigenvalues", f"of {count}")
    wanted = np.linalg.eigvals(np.asarray(target.W))
    wanted = wanted[np.argsort(-abs(wanted.imag))[:2]]
    return _event_times(
        target, jnp.asarray(wanted), curve.train_time, curve.loss, curve.eigenvalues
    )


def loss_levels(target: LinearRNN) -> jax.Array:
    """Loss at which the plateau starts and ends, and at arrival, (3,)."""
    plateau, whole = best_one_mode(target).loss, energy(target)
    shares = (1 + PLATEAU_MARGIN) * plateau, (1 - PLATEAU_MARGIN) * plateau, ARRIVAL * whole
    return jnp.stack(shares)


def last_turn(margins: jax.Array) -> jax.Array:
    """Index of the record before margins, (R,), last turn from positive to negative, (); -1 if they never do."""
    turns = (margins[:-1] > 0) & (margins[1:] <= 0)
    return jnp.max(jnp.where(turns, jnp.arange(len(margins) - 1), -1))


@jax.jit
def _event_times(
    target: LinearRNN,
    wanted: jax.Array,
    times: jax.Array,
    loss: jax.Array,
    eigenvalues: jax.Array,
) -> dict[str, jax.Array]:
    start, end, arrival = jnp.log(loss[:, None] / loss_levels(target)[None, :]).T
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
