"""An attempted step of an adaptive integration, of whatever method, and the records within it."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from rnn_dynamics.ode.control import adapt, error_norm
from rnn_dynamics.ode.explicit import Ends, interpolate
from rnn_dynamics.ode.solution import State, Stats
from rnn_dynamics.ode.solver import AbstractSolver
from rnn_dynamics.ode.status import Status

# A step that would leave less than this share of itself to a record is stretched to reach it.
_STRETCH = 1.01


class Goal(NamedTuple):
    """Times of the record before, of the next one and of the last one: steps that can be
    interpolated end at the last only.
    """

    before: Array
    following: Array
    last: Array


class Within(NamedTuple):
    """An attempted step, from which records are read: the times of its start and its end, scalars,
    and what the method left of it.
    """

    t: Array
    t1: Array
    ends: Ends
    middle: Array | None

    def at(self, t: Array) -> Array:
        """y at the time t of a record, (N,)."""
        if self.middle is None:  # the step ended there
            return self.ends.y1
        h = self.t1 - self.t
        inside = interpolate((t - self.t) / h, h, self.ends, self.middle)
        return jnp.where(t < self.t1, inside, self.ends.y1)


def attempt(
    f: Callable[[Array, Array], Array],
    method: AbstractSolver,
    tolerances: tuple[Array, Array],
    goal: Goal,
    state: State,
) -> tuple[State, Within]:
    """Attempt a step from a state with flat y, (N,), and accept or reject it."""
    rtol, atol = tolerances
    t, y, dy, h = state.t, state.y, state.derivative, state.control.step_size
    h = jnp.where(jnp.isinf(h), goal.last - t, h)
    context = method.prepare(f, t, y, dy, h, state.memory, state.control.rejected)
    h = jnp.minimum(h, context.largest)
    t1 = jnp.where(context.dense, goal.last, goal.following)
    last = t + _STRETCH * h >= t1
    t_new = jnp.where(last, t1, t + h)
    # Time rounds; this is the step it really takes.
    step = t_new - t
    made = method.step(f, t, y, dy, step, context.state)
    decision, control = adapt(
        dataclasses.replace(state.control, step_size=h),
        t_new,
        step,
        error_norm(made.error, y, made.y, rtol, atol),
        finite=jnp.all(jnp.isfinite(made.y) & jnp.isfinite(made.dy)),
        truncated=last & (step < h),
        spans=t == goal.before,
        order=context.order,
        gains=context.gains,
    )
    accepted = decision.accepted
    after = State(
        t=jnp.where(accepted, t_new, t),
        y=jnp.where(accepted, made.y, y),
        derivative=jnp.where(accepted, made.dy, dy),
        control=control,
        memory=context.state,
        status=jnp.where(decision.hopeless, int(Status.diverged), state.status),
        stats=Stats(
            num_steps=state.stats.num_steps + accepted.astype(jnp.int32),
            num_rejected=state.stats.num_rejected + (~accepted).astype(jnp.int32),
            num_evaluations=state.stats.num_evaluations + context.spent + made.count,
        ),
    )
    return after, Within(t, t_new, Ends(y, dy, made.y, made.dy), made.middle)


def nothing_within(method: AbstractSolver, state: State) -> Within:
    """Of a state with flat y from which no step has been taken: a step of size 0."""
    y, dy = state.y, state.derivative
    middle = jnp.zeros_like(y) if method.interpolates else None
    return Within(state.t, state.t, Ends(y, dy, y, dy), middle)
