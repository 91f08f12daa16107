"""A change of the unit of time changes nothing but times: not a step, and not a digit beyond
rounding.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from ode_methods import METHODS

from rnn_dynamics.ode import AUTO, TSIT5, Status, advance, solve, start

UNITS = (1e-30, 1e-12, 1e-4, 1e5, 1e30)
# One step is accurate to rtol, and there are up to some hundred steps.
ACCURACY = {"float64": 1e-6, "float32": 1e-3}


def decay(t, y, unit):
    return -y / unit


def forced(t, y, unit):
    return (jnp.cos(t / unit) - y) / unit


def stiff(t, y, unit):
    return -jnp.asarray([1.0, 30.0, 1000.0], y.dtype) * y / unit


PROBLEMS = {
    "decay": (decay, [1.0], lambda t: np.exp(-t)),
    "forced": (forced, [0.0], lambda t: (np.cos(t) + np.sin(t) - np.exp(-t)) / 2),
    "stiff": (stiff, [1.0, 1.0, 1.0], lambda t: np.exp(-np.array([1.0, 30.0, 1000.0]) * t)),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_any_unit_of_time(method, problem, dtype):
    field, y0, exact = PROBLEMS[problem]
    times, y0 = np.array([0.0, 0.5, 1.0, 3.0]), np.array(y0, dtype)
    expected = np.stack([np.broadcast_to(exact(t), y0.shape) for t in times])
    counts = []
    for unit in UNITS:
        got = solve(field, y0, (unit * times).astype(dtype), np.array(unit, dtype), method=method)
        assert int(got.status) == Status.ok
        np.testing.assert_allclose(got.ys, expected, rtol=0, atol=ACCURACY[dtype])
        counts.append(int(got.stats.num_steps + got.stats.num_rejected))
    # Units that are no powers of two round, which may move decisions of the step control;
    # errors of float32 fields of 1e-30 underflow.
    assert dtype == "float32" or max(counts) <= 2 * min(counts)


@pytest.mark.parametrize("method", [TSIT5, AUTO], ids=repr)
@pytest.mark.parametrize("unit", [2.0**-100, 2.0**100])
def test_powers_of_two_change_no_bit(method, unit):
    times = jnp.asarray([0.0, 0.5, 1.0, 3.0])
    one, other = (
        solve(stiff, jnp.ones(3), u * times, jnp.asarray(u), method=method) for u in (1.0, unit)
    )
    np.testing.assert_array_equal(one.ys, other.ys)
    assert int(one.stats.num_evaluations) == int(other.stats.num_evaluations)


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e30])
def test_a_start_at_rest_knows_no_unit(unit):
    """y = t⁶ has no slope, and no curvature, to take a first step from."""
    times = unit * jnp.asarray([0.0, 0.3, 1.0])

    def f(t, y, args):
        return 6.0 * (t / unit) ** 5 / unit + 0.0 * y

    got = solve(f, jnp.zeros(1), times)
    np.testing.assert_allclose(got.ys[:, 0], [0.0, 0.3**6, 1.0], rtol=1e-7, atol=1e-9)
    state = start(f, 0.0, jnp.zeros(1))
    for time, y in zip(times[1:], (0.3**6, 1.0), strict=True):
        state = advance(f, state, time)
        assert float(state.y[0]) == pytest.approx(y, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_failures_in_any_unit(method, unit):
    times = unit * np.array([0.0, 0.5, 2.0])
    solution = solve(lambda t, y, a: y**2 / a, 1.0, times, unit, method=method)
    assert int(solution.status) == Status.diverged
    assert float(solution.ys[1]) == pytest.approx(2.0, rel=1e-5)
