"""Batches of networks, each with a learner of its own: what a sweep does with a chunk, without the
sweep.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rnn_dynamics as rd
from rnn_dynamics.learning import State, look


def stack(members: list[Any]) -> Any:
    """Members as a batch, of NumPy arrays: JAX would compile every slice of it."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *members)


def unchecked(W: Any, u: Any, v: Any) -> rd.LinearRNN:
    """A network, or a batch of them, with any numbers in it: `LinearRNN` refuses NaN and
    batches.
    """
    structure = jax.tree.structure(rd.leaky_integrator(0.5))
    return jax.tree.unflatten(structure, [W, u, v])


def train(
    make_learner: Callable[[Any], Any],
    numbers: Any,
    rnns: rd.LinearRNN,
    targets: rd.LinearRNN,
    ticks: np.ndarray,
) -> tuple[State, dict[str, np.ndarray], np.ndarray]:
    """Train member i with `make_learner(numbers[i])`: the last states, observables (B, R) and
    statuses (B, R).
    """
    state = _start(make_learner, numbers, rnns, targets)
    seen, statuses = [], []
    for before, tick in zip([ticks[0], *ticks], ticks, strict=False):
        at = (jnp.asarray(before), jnp.asarray(tick))
        state, column = _advance(make_learner, numbers, state, targets, *at)
        seen.append({name: np.asarray(value) for name, value in vars(column).items()})
        statuses.append(np.asarray(state.status))
    records = {name: np.stack([column[name] for column in seen], axis=1) for name in seen[0]}
    return state, records, np.stack(statuses, axis=1)


@partial(jax.jit, static_argnums=0)
def _start(make_learner: Any, numbers: Any, rnns: Any, targets: Any) -> State:
    def one(number: Any, rnn: Any, target: Any) -> State:
        return make_learner(number).start(rnn, target)

    return jax.vmap(one)(numbers, rnns, targets)


@partial(jax.jit, static_argnums=0)
def _advance(
    make_learner: Any, numbers: Any, state: State, targets: Any, tick: Any, next_tick: Any
) -> Any:
    def one(number: Any, state: State, target: Any) -> Any:
        learner = make_learner(number)
        after = learner.advance(state, target, tick, next_tick)
        return look(learner, after, state.rnn, target, next_tick, jnp.zeros((), after.rnn.dtype))

    return jax.vmap(one)(numbers, state, targets)
