"""Adaptive integration of one initial value problem, from record to record."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from rnn_dynamics.ode import arguments, stepping
from rnn_dynamics.ode.batch import any_member
from rnn_dynamics.ode.control import adapt, error_norm, euler_step, initial_control
from rnn_dynamics.ode.methods import TSIT5, Method
from rnn_dynamics.ode.solution import Solution, State, Stats
from rnn_dynamics.ode.status import Status

# A step that would leave less than this share of itself to the record is stretched to reach it.
_STRETCH = 1.01

_OK, _DIVERGED, _MAX_STEPS = int(Status.ok), int(Status.diverged), int(Status.max_steps)


def solve(
    vector_field: Callable[[Array, Any, Any], Any],
    y0: Any,
    ts: ArrayLike,
    args: Any = None,
    *,
    method: Method = TSIT5,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    max_steps: int = 100_000,
) -> Solution:
    """Solve dy/dt = f(t, y, args), y(ts[0]) = y0, at the times `ts`.

    Steps end at every record, so no record is interpolated; the natural step size survives the
    truncation. Local errors are held at RMS(error / (atol + rtol |y|)) <= 1 per step.

    **Arguments:**

    - `vector_field`: f(t, y, args), returns the structure, shapes and dtype of `y0`.
    - `y0`: pytree of float32 or float64 arrays, all of one dtype. Time has the same dtype.
    - `ts`: (R,), increasing.
    - `args`: passed to the vector field; arrays and floats in it are traced.
    - `method`: `TSIT5`; for stiff problems `RODAS5P`, which factorises the Jacobian, or, where the
      spectrum of the Jacobian is near the negative real axis, `RKG3`, which does not, or `AUTO`,
      which is `TSIT5` for as long as that is not limited by its stability, and then `RKG3`.
    - `rtol`, `atol`: default to 1e-8 and 1e-10 in float64, 1e-5 and 1e-7 in float32.
    - `max_steps`: attempted steps over all records.

    **Returns:** a `Solution`; its `ys` have a leading axis R, with ys[0] = y0, and NaN from the
    first record that was not reached. Its status is `ok`, `max_steps` or `diverged`.

    **Raises:** `ValueError` where `ts` is not 1-D, finite and increasing, a tolerance is not
    positive, `max_steps` is below 1, or `y0` is empty or not finite; `TypeError` where `y0` or
    the result of `vector_field` is not of one real dtype and structure, or `method` is none.
    Values are checked only where they are not traced.

    **Source:** Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I and II.
    """
    arguments.checked_field(vector_field)
    method = arguments.checked_method(method)
    y0 = arguments.checked_y0(y0)
    dtype = jax.tree.leaves(y0)[0].dtype
    ts = arguments.checked_times(ts, dtype)
    tolerances = arguments.checked_tolerances(rtol, atol, dtype)
    limit = arguments.checked_max_steps(max_steps)
    vector_field, args = arguments.traced_numbers((vector_field, args))
    return _solve(vector_field, args, y0, ts, method, tolerances, limit)


def start(
    vector_field: Callable[[Array, Any, Any], Any],
    t0: ArrayLike,
    y0: Any,
    args: Any = None,
    *,
    method: Method = TSIT5,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
) -> State:
    """State at t0, with a first step size; to be carried on by `advance`.

    The status is `diverged` where y0 or f(t0, y0) is not finite.

    **Arguments, raises:** as in `solve`; `t0` is a scalar.
    """
    arguments.checked_field(vector_field)
    method = arguments.checked_method(method)
    y0 = arguments.checked_y0(y0)
    dtype = jax.tree.leaves(y0)[0].dtype
    t0 = arguments.checked_time("t0", t0, dtype)
    tolerances = arguments.checked_tolerances(rtol, atol, dtype)
    vector_field, args = arguments.traced_numbers((vector_field, args))
    return _start(vector_field, args, t0, y0, method, tolerances)


def advance(
    vector_field: Callable[[Array, Any, Any], Any],
    state: State,
    t1: ArrayLike,
    args: Any = None,
    *,
    method: Method = TSIT5,
    rtol: ArrayLike | None = None,
    atol: ArrayLike | None = None,
    max_steps: int = 100_000,
) -> State:
    """Integrate a state to exactly `t1`, to be called with the arguments it was started with.

    A state that is not `ok`, or is at or beyond `t1`, is returned as it is. `max_steps` bounds the
    attempted steps over the whole life of the state. Where the integration fails, `y` is the last
    good state and `t` its time.

    Under `jax.vmap` each member has steps, errors and an end of its own.

    **Arguments, raises:** as in `solve`; `t1` is a scalar.
    """
    arguments.checked_field(vector_field)
    method = arguments.checked_method(method)
    if not isinstance(state, State):
        raise TypeError(f"Argument `state` must come from `start`, but is {arguments.show(state)}.")
    t1 = arguments.checked_time("t1", t1, state.t.dtype)
    tolerances = arguments.checked_tolerances(rtol, atol, state.t.dtype)
    limit = arguments.checked_max_steps(max_steps)
    vector_field, args = arguments.traced_numbers((vector_field, args))
    return _advance(vector_field, args, state, t1, method, tolerances, limit)


@eqx.filter_jit
def _solve(vector_field, args, y0, ts, method, tolerances, limit) -> Solution:
    num = len(ts)

    def unfinished(carry: tuple[State, Array, Any]) -> Array:
        return (carry[0].status == _OK) & (carry[1] < num)

    # Each member of a batch has a next record of its own. In a scan over records, all would wait
    # at every record for the one with most steps: four times as long for a batch at rtol 1e-10.
    def to_record(carry: tuple[State, Array, Any]) -> tuple[State, Array, Any]:
        state, index, ys = carry
        here = jnp.minimum(index, num - 1)
        since, t1 = ts[here - 1], ts[here]
        state = _advance(vector_field, args, state, t1, method, tolerances, limit, since)
        reached = (state.status == _OK) & (state.t >= t1)
        ys = jax.tree.map(lambda records, y: records.at[here].set(y), ys, state.y)
        return state, jnp.where(reached, here + 1, index), ys

    state = _start(vector_field, args, ts[0], y0, method, tolerances)
    ys = jax.tree.map(lambda y: jnp.zeros((num, *y.shape), y.dtype).at[0].set(y), y0)
    state, index, ys = jax.lax.while_loop(
        lambda carry: any_member(unfinished(carry)), to_record, (state, jnp.int32(1), ys)
    )
    # What was written last is no record where it was not reached.
    missing = jnp.arange(num, dtype=jnp.int32) >= index
    ys = jax.tree.map(
        lambda y: jnp.where(missing.reshape(num, *[1] * (y.ndim - 1)), jnp.nan, y), ys
    )
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
        memory=stepping.start(method, dy),
        status=jnp.where(finite, _OK, _DIVERGED).astype(jnp.int32),
        stats=Stats(num_steps=zero, num_rejected=zero, num_evaluations=zero + 2),
    )


@eqx.filter_jit
def _advance(vector_field, args, state, t1, method, tolerances, limit, since=None) -> State:
    """Integrate to `t1`. Where `since` is given, the time of the record before, the members of a
    batch stop together, as soon as one of them has come to its `t1` or has failed.
    """
    rtol, atol = tolerances
    f = _flat_field(vector_field, args, state.y)

    def unfinished(state: State) -> Array:
        return (state.status == _OK) & (state.t < t1)

    def going(state: State) -> Array:
        spent = state.stats.num_steps + state.stats.num_rejected >= limit
        return unfinished(state) & ~spent

    def attempt(state: State) -> State:
        t, y, dy, h = state.t, state.y, state.derivative, state.control.step_size
        outlook = stepping.look(f, method, t, y, dy, h, state.memory, state.control.rejected)
        h = outlook.natural
        last = t + _STRETCH * h >= t1
        t_new = jnp.where(last, t1, t + h)
        # Time rounds; this is the step it really takes.
        step = t_new - t
        y_new, dy_new, error, count = stepping.step(f, method, t, y, dy, step, outlook.memory)
        finite = jnp.all(jnp.isfinite(y_new) & jnp.isfinite(dy_new))
        scaled = error_norm(error, y, y_new, rtol, atol)
        decision, control = adapt(
            dataclasses.replace(state.control, step_size=h),
            t_new,
            step,
            scaled,
            finite=finite,
            truncated=last & (step < h),
            spans=t == t0,
            order=outlook.order,
            gains=outlook.gains,
        )
        accepted = decision.accepted
        return State(
            t=jnp.where(accepted, t_new, t),
            y=jnp.where(accepted, y_new, y),
            derivative=jnp.where(accepted, dy_new, dy),
            control=control,
            memory=outlook.memory,
            status=jnp.where(decision.hopeless, _DIVERGED, state.status),
            stats=Stats(
                num_steps=state.stats.num_steps + accepted.astype(jnp.int32),
                num_rejected=state.stats.num_rejected + (~accepted).astype(jnp.int32),
                num_evaluations=state.stats.num_evaluations + outlook.spent + count,
            ),
        )

    t0 = state.t if since is None else since
    y, unravel = ravel_pytree(state.y)
    derivative, _ = ravel_pytree(state.derivative)
    # A traced t1 that is NaN would otherwise pass for a record already reached.
    status = jnp.where((state.status == _OK) & jnp.isnan(t1), _DIVERGED, state.status)
    state = dataclasses.replace(state, y=y, derivative=derivative, status=status)
    if since is None:
        state = jax.lax.while_loop(going, attempt, state)
    else:
        live = going(state)
        state = jax.lax.while_loop(
            lambda s: any_member(live) & ~any_member(live & ~going(s)),
            lambda s: jax.tree.map(partial(jnp.where, going(s)), attempt(s), s),
            state,
        )
    return dataclasses.replace(
        state,
        y=unravel(state.y),
        derivative=unravel(state.derivative),
        status=jnp.where(unfinished(state) & ~going(state), _MAX_STEPS, state.status),
    )


def _flat_field(vector_field, args, like) -> Callable[[Array, Array], Array]:
    """The vector field on flat vectors, its result checked against the structure of y0."""
    flat, unravel = ravel_pytree(like)

    # Compiled as one function so that the stages of a step trace it once.
    @jax.jit
    def f(t: Array, y: Array) -> Array:
        dy = vector_field(t, unravel(y), args)
        return arguments.checked_derivative(dy, like, flat.dtype)

    return f
