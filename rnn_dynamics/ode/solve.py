"""Adaptive integration of one initial value problem, from record to record."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from rnn_dynamics.ode import arguments, explicit, rosenbrock
from rnn_dynamics.ode.control import adapt, error_norm, euler_step, initial_control
from rnn_dynamics.ode.methods import TSIT5
from rnn_dynamics.ode.solution import Solution, State, Stats
from rnn_dynamics.ode.status import Status
from rnn_dynamics.ode.tableau import ExplicitMethod, Method

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
    - `method`: `TSIT5`, or `RODAS5P` for stiff problems (it factorises the Jacobian).
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
    def record(state: State, t1: Array) -> tuple[State, Any]:
        state = _advance(vector_field, args, state, t1, method, tolerances, limit)
        reached = state.status == _OK
        return state, jax.tree.map(lambda y: jnp.where(reached, y, jnp.nan), state.y)

    state = _start(vector_field, args, ts[0], y0, method, tolerances)
    state, later = jax.lax.scan(record, state, ts[1:])
    ys = jax.tree.map(lambda y, rest: jnp.concatenate((y[None], rest)), y0, later)
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
        status=jnp.where(finite, _OK, _DIVERGED).astype(jnp.int32),
        stats=Stats(num_steps=zero, num_rejected=zero, num_evaluations=zero + 2),
    )


@eqx.filter_jit
def _advance(vector_field, args, state, t1, method, tolerances, limit) -> State:
    rtol, atol = tolerances
    order = method.embedded_order + 1
    f = _flat_field(vector_field, args, state.y)
    take_step = explicit.step if isinstance(method, ExplicitMethod) else rosenbrock.step

    def unfinished(state: State) -> Array:
        return (state.status == _OK) & (state.t < t1)

    def within_budget(state: State) -> Array:
        return state.stats.num_steps + state.stats.num_rejected < limit

    def attempt(state: State) -> State:
        t, y, dy, h = state.t, state.y, state.derivative, state.control.step_size
        last = t + _STRETCH * h >= t1
        t_new = jnp.where(last, t1, t + h)
        # Time rounds; this is the step it really takes.
        step = t_new - t
        y_new, dy_new, error = take_step(f, method, t, y, dy, step)
        finite = jnp.all(jnp.isfinite(y_new) & jnp.isfinite(dy_new))
        scaled = error_norm(error, y, y_new, rtol, atol)
        decision, control = adapt(
            state.control,
            t_new,
            step,
            scaled,
            finite=finite,
            truncated=last & (step < h),
            spans=t == t0,
            order=order,
            gains=method.gains,
        )
        accepted = decision.accepted
        return State(
            t=jnp.where(accepted, t_new, t),
            y=jnp.where(accepted, y_new, y),
            derivative=jnp.where(accepted, dy_new, dy),
            control=control,
            status=jnp.where(decision.hopeless, _DIVERGED, state.status),
            stats=Stats(
                num_steps=state.stats.num_steps + accepted.astype(jnp.int32),
                num_rejected=state.stats.num_rejected + (~accepted).astype(jnp.int32),
                num_evaluations=state.stats.num_evaluations + method.num_evaluations,
            ),
        )

    t0 = state.t
    y, unravel = ravel_pytree(state.y)
    derivative, _ = ravel_pytree(state.derivative)
    # A traced t1 that is NaN would otherwise pass for a record already reached.
    status = jnp.where((state.status == _OK) & jnp.isnan(t1), _DIVERGED, state.status)
    state = dataclasses.replace(state, y=y, derivative=derivative, status=status)
    state = jax.lax.while_loop(lambda s: unfinished(s) & within_budget(s), attempt, state)
    return dataclasses.replace(
        state,
        y=unravel(state.y),
        derivative=unravel(state.derivative),
        status=jnp.where(unfinished(state), _MAX_STEPS, state.status),
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
