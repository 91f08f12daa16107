"""Adaptive integration of one initial value problem, from record to record."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import check_real, positive_int, record_times, require_type
from rnn_dynamics.ode.arguments import (
    checked_derivative,
    checked_problem,
    checked_tolerances,
    checked_y0,
)
from rnn_dynamics.ode.batching import any_member
from rnn_dynamics.ode.controller import euler_step, initial_control
from rnn_dynamics.ode.erk import TSIT5
from rnn_dynamics.ode.solution import Solution, State, Stats, Status
from rnn_dynamics.ode.solver import (
    AbstractSolver,
    RecordInterval,
    StepInterpolant,
    attempt_step,
)

_OK, _DIVERGED, _MAX_STEPS = int(Status.ok), int(Status.diverged), int(Status.max_steps)


def solve(
    vector_field: Callable[[Array, Any, Any], Any],
    y0: Any,
    ts: ArrayLike,
    args: Any = None,
    *,
    method: AbstractSolver = TSIT5,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    max_steps: int = 100_000,
) -> Solution:
    """Solve dy/dt = f(t, y, args), y(ts[0]) = y0, at the times `ts`.

    Steps of `TSIT5`, and of `AUTO` where it is that, are as long as they may be, and records within
    them are read from an interpolant of order 4; those of other methods end at every record, and
    the natural step size survives the truncation. Local errors are held at
    RMS(error / (atol + rtol |y|)) <= 1 per step.

    Args:
        vector_field: f(t, y, args), returns the structure, shapes and dtype of `y0`.
        y0: pytree of float32 or float64 arrays, all of one dtype. Time has the same dtype.
        ts: (R,), increasing.
        args: passed to the vector field; arrays and floats in it are traced.
        method: `TSIT5`, of order 5; for stiff problems `RODAS5P`, which factorises the Jacobian, or
            `AUTO`, which is `TSIT5` for as long as that is not limited by its stability, and then,
            where up to five directions are stiff and the Jacobian is symmetric in them, an
            exponential method; or any other `AbstractSolver`.
        rtol, atol: by default 1e-8 and 1e-10 in float64, 1e-5 and 1e-7 in float32.
        max_steps: attempted steps over all records.

    Returns:
        A `Solution`; its `ys` have a leading axis R, with ys[0] = y0, and NaN from the first record
        that was not reached. Its status is `ok`, `max_steps` or `diverged`.

    Raises:
        ValueError: if `ts` is not 1-D, finite and increasing, a tolerance is not positive,
            `max_steps` is below 1, or `y0` is empty or not finite. Values are checked only where
            they are not traced.
        TypeError: if `y0` or the result of `vector_field` is not of one real dtype and structure,
            or `method` is no `AbstractSolver`.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I and II.
    """
    vector_field, args = checked_problem(vector_field, args, method)
    y0, dtype = checked_y0(y0)
    ts = record_times(ts, dtype, name="ts", minimum=-math.inf)
    tolerances, limit = checked_tolerances(rtol, atol, dtype), positive_int("max_steps", max_steps)
    return _solve(vector_field, args, y0, ts, method, tolerances, jnp.int32(limit))


def start(
    vector_field: Callable[[Array, Any, Any], Any],
    t0: ArrayLike,
    y0: Any,
    args: Any = None,
    *,
    method: AbstractSolver = TSIT5,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
) -> State:
    """State at t0, with a first step size; to be carried on by `advance`.

    The status is `diverged` where y0 or f(t0, y0) is not finite.

    Arguments and errors are those of `solve`; `t0` is ().
    """
    vector_field, args = checked_problem(vector_field, args, method)
    y0, dtype = checked_y0(y0)
    check_real("t0", t0)
    tolerances = checked_tolerances(rtol, atol, dtype)
    return _start(vector_field, args, jnp.asarray(t0, dtype), y0, method, tolerances)


def advance(
    vector_field: Callable[[Array, Any, Any], Any],
    state: State,
    t1: ArrayLike,
    args: Any = None,
    *,
    method: AbstractSolver = TSIT5,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    max_steps: int = 100_000,
) -> State:
    """Integrate a state to exactly `t1`, to be called with the arguments it was started with.

    A state that is not `ok`, or is at or beyond `t1`, is returned as it is. `max_steps` bounds the
    attempted steps over the whole life of the state. Where the integration fails, `y` is the last
    good state and `t` its time.

    Under `jax.vmap` each member has steps, errors and an end of its own.

    Arguments and errors are those of `solve`; `t1` is ().
    """
    vector_field, args = checked_problem(vector_field, args, method)
    require_type("state", state, State, "a state of `start`")
    check_real("t1", t1)
    dtype = state.t.dtype
    tolerances, limit = checked_tolerances(rtol, atol, dtype), positive_int("max_steps", max_steps)
    t1, limit = jnp.asarray(t1, dtype), jnp.int32(limit)
    return _advance(vector_field, args, state, t1, method, tolerances, limit)


@eqx.filter_jit
def _solve(vector_field, args, y0, ts, method, tolerances, limit) -> Solution:
    num, f = len(ts), _flat_field(vector_field, args, y0)

    def unfinished(carry: tuple[State, StepInterpolant, Array, Array]) -> Array:
        return (carry[0].status == _OK) & (carry[2] < num)

    # Each member of a batch has a next record of its own, and all stop as soon as one of them has
    # come to its record or has failed. In a scan over records, all would wait at every record for
    # the one with most steps: four times as long for a batch at rtol 1e-10.
    def to_record(carry: tuple[State, StepInterpolant, Array, Array]) -> Any:
        state, interpolant, index, ys = carry
        here = jnp.minimum(index, num - 1)
        interval = RecordInterval(ts[here - 1], ts[here], ts[-1])
        state = _limited(state, interval.next, limit)
        live = _going(state, interval.next)

        def attempt(at: tuple[State, StepInterpolant]) -> tuple[State, StepInterpolant]:
            after, step = attempt_step(f, method, tolerances, interval, at[0])
            chosen = partial(jnp.where, _going(at[0], interval.next))
            return jax.tree.map(chosen, (_limited(after, interval.next, limit), step), at)

        state, interpolant = jax.lax.while_loop(
            lambda at: any_member(live) & ~any_member(live & ~_going(at[0], interval.next)),
            attempt,
            (state, interpolant),
        )
        reached = (state.status == _OK) & (state.t >= interval.next)
        ys = ys.at[here].set(interpolant.evaluate(interval.next))
        return state, interpolant, jnp.where(reached, here + 1, index), ys

    state, y, unravel = _flat(_start(vector_field, args, ts[0], y0, method, tolerances))
    ys = jnp.zeros((num, y.size), y.dtype).at[0].set(y)
    state, _, index, ys = jax.lax.while_loop(
        lambda carry: any_member(unfinished(carry)),
        to_record,
        (state, StepInterpolant.empty(method, state), jnp.int32(1), ys),
    )
    # What was written last is no record where it was not reached.
    missing = jnp.arange(num, dtype=jnp.int32) >= index
    ys = jax.vmap(unravel)(jnp.where(missing[:, None], jnp.nan, ys))
    return Solution(ys=ys, status=state.status, stats=state.stats)


@eqx.filter_jit
def _start(vector_field, args, t0, y0, method, tolerances) -> State:
    rtol, atol = tolerances
    y, unravel = ravel_pytree(y0)
    f = _flat_field(vector_field, args, y0)

    # A loop, so that the field is compiled once for both of its evaluations.
    def evaluate(at: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        slope = f(*at)
        h0 = euler_step(y, slope, rtol=rtol, atol=atol)
        return (t0 + h0, y + h0 * slope), slope

    _, (dy, ahead) = jax.lax.scan(evaluate, (t0, y), None, length=2)
    control = initial_control(
        t0, y, dy, ahead, order=method.embedded_order + 1, rtol=rtol, atol=atol
    )
    finite = jnp.all(jnp.isfinite(y) & jnp.isfinite(dy))
    zero = jnp.zeros((), dtype=jnp.int32)
    return State(
        t=t0,
        y=y0,
        derivative=unravel(dy),
        control=control,
        solver_state=method.init(dy),
        status=jnp.where(finite, _OK, _DIVERGED).astype(jnp.int32),
        stats=Stats(num_steps=zero, num_rejected=zero, num_evaluations=zero + 2),
    )


@eqx.filter_jit
def _advance(vector_field, args, state, t1, method, tolerances, limit) -> State:
    f, interval = _flat_field(vector_field, args, state.y), RecordInterval(state.t, t1, t1)
    state, _, unravel = _flat(state)

    def attempt(state: State) -> State:
        return _limited(attempt_step(f, method, tolerances, interval, state)[0], t1, limit)

    start = _limited(state, t1, limit)
    state = jax.lax.while_loop(lambda state: _going(state, t1), attempt, start)
    y, derivative = unravel(state.y), unravel(state.derivative)
    return dataclasses.replace(state, y=y, derivative=derivative)


def _flat(state: State) -> tuple[State, Array, Callable[[Array], Any]]:
    """A state with flat y, that y, and what makes it a tree again."""
    y, unravel = ravel_pytree(state.y)
    derivative, _ = ravel_pytree(state.derivative)
    return dataclasses.replace(state, y=y, derivative=derivative), y, unravel


def _going(state: State, t1: Array) -> Array:
    return (state.status == _OK) & (state.t < t1)


def _limited(state: State, t1: Array, limit: Array) -> State:
    """The state with the status `max_steps` where the budget is spent before t1, and `diverged`
    where a traced t1 is NaN, which would otherwise pass for one already reached.
    """
    attempts = state.stats.num_steps + state.stats.num_rejected
    status = jnp.where(jnp.isnan(t1), _DIVERGED, state.status)
    status = jnp.where((state.t < t1) & (attempts >= limit), _MAX_STEPS, status)
    return dataclasses.replace(state, status=jnp.where(state.status == _OK, status, state.status))


def _flat_field(vector_field, args, like) -> Callable[[Array, Array], Array]:
    """The vector field on flat vectors, its result checked against the structure of y0."""
    flat, unravel = ravel_pytree(like)

    # Compiled as one function so that the stages of a step trace it once.
    @jax.jit
    def f(t: Array, y: Array) -> Array:
        dy = vector_field(t, unravel(y), args)
        return checked_derivative(dy, like, flat.dtype)

    return f
