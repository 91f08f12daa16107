"""The initial value problems of `ode.py`: three theories' equations as `rnn_dynamics` integrates
them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import rnn_dynamics as rd
from rnn_dynamics.theory.pairs.pair import pair_velocity
from rnn_dynamics.theory.single_outlier import outlier_loss

FEW = 5  # members in SciPy's loop


class Problem(NamedTuple):
    """y' = field(t, y, args) at the times `ts`; `y0` and `args` have a leading axis of members if
    it is a batch.
    """

    field: Callable[..., jax.Array]
    y0: jax.Array
    args: Any
    ts: np.ndarray
    is_batch: bool


def outlier_velocity(_: Any, y: jax.Array, target: rd.LinearRNN) -> jax.Array:
    """(p, q, λ)' as in `theory.single_outlier`."""
    p, q, eigenvalue = y
    da, dc = jax.grad(outlier_loss, argnums=(0, 1))(p * q, 1 - eigenvalue, target)
    return jnp.stack([-q * da, -p * da, dc])


def oscillator_velocity(_: Any, y: jax.Array, target: rd.LinearRNN) -> jax.Array:
    """(p, q, r, a, b)' as in `theory.conjugate_pair`."""
    return pair_velocity(y, target, jnp.ones(2))


def make_problem(name: str, members: int) -> Problem:
    """One of the three."""
    ts = np.linspace(0.0, 20.0, 41)
    if name == "pair":
        target = rd.damped_oscillator(0.3, 1.0)
        y0 = jnp.asarray([0.0, 0.0, 0.0, 0.3, 0.1])
        return Problem(oscillator_velocity, y0, target, np.linspace(0.0, 80.0, 81), False)
    if name == "outlier":
        target = rd.leaky_integrator(0.2)
        return Problem(outlier_velocity, jnp.asarray([0.1, 0.1, 0.0]), target, ts, False)
    random = np.random.default_rng(0)
    decays = jnp.asarray(random.uniform(0.1, 0.5, members))
    gains = 10 ** random.uniform(-2.0, -0.5, (members, 2))
    targets = jax.vmap(rd.leaky_integrator)(decays)
    y0 = jnp.asarray(np.concatenate([gains, np.zeros((members, 1))], axis=1))
    return Problem(outlier_velocity, y0, targets, ts, True)


def first_members(problem: Problem, most: int) -> Problem:
    """A batch of the first members."""
    y0, args = jax.tree.map(lambda x: x[:most], (problem.y0, problem.args))
    return problem._replace(y0=y0, args=args)


def few_members(problem: Problem) -> list[tuple[np.ndarray, Any]]:
    """y0 and args of the first members, one by one."""
    if not problem.is_batch:
        return [(np.asarray(problem.y0), problem.args)]
    rows = range(min(FEW, len(problem.y0)))
    return [jax.tree.map(lambda x, i=i: x[i], (np.asarray(problem.y0), problem.args)) for i in rows]
