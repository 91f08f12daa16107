"""Failure is a value: a status, and NaN after the last good record."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ode_methods import METHODS

from rnn_dynamics.ode import Status, advance, solve, start


# y = 1/(1 - t): up to t = 0.9 the condition of the problem amplifies 1e-8 by 1/(1 - t) = 10.
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_finite_time_blow_up_is_diverged(method):
    solution = solve(lambda t, y, a: y**2, 1.0, [0.0, 0.5, 0.9, 2.0, 3.0], method=method)
    assert int(solution.status) == Status.diverged
    np.testing.assert_allclose(solution.ys[:3], [1.0, 2.0, 10.0], rtol=1e-6)
    assert np.all(np.isnan(solution.ys[3:]))
    assert int(solution.stats.num_steps) < 2000


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_overflow_is_diverged(method):
    # exp(800 t) leaves float64 before t = 1.
    solution = solve(lambda t, y, a: 800.0 * y, 1.0, [0.0, 0.1, 1.0], method=method)
    assert int(solution.status) == Status.diverged
    # 1e-8 per step over some hundred steps.
    np.testing.assert_allclose(solution.ys[1], np.exp(80.0), rtol=1e-4)
    assert np.isnan(solution.ys[2])


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_running_out_of_steps(method):
    ts = [0.0, 0.5, 100.0, 200.0]
    solution = solve(lambda t, y, a: jnp.cos(t) * y, 1.0, ts, method=method, max_steps=60)
    assert int(solution.status) == Status.max_steps
    assert int(solution.stats.num_steps + solution.stats.num_rejected) == 60
    np.testing.assert_allclose(solution.ys[1], np.exp(np.sin(0.5)), rtol=1e-7)
    assert np.all(np.isnan(solution.ys[2:]))


def test_the_budget_spans_the_life_of_a_state():
    def f(t, y, args):
        return jnp.cos(t) * y

    state = start(f, 0.0, 1.0)
    state = advance(f, state, 1.0)
    spent = int(state.stats.num_steps + state.stats.num_rejected)
    # A budget spent exactly at a record is enough for that record, and for none after it.
    exact = advance(f, start(f, 0.0, 1.0), 1.0, max_steps=spent)
    assert int(exact.status) == Status.ok
    beyond = advance(f, exact, 1.5, max_steps=spent)
    assert int(beyond.status) == Status.max_steps
    assert float(beyond.t) == 1.0


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_non_finite_at_the_start(method):
    solution = solve(lambda t, y, a: y / t, 1.0, [0.0, 1.0], method=method)
    assert int(solution.status) == Status.diverged
    np.testing.assert_array_equal(solution.ys, [1.0, np.nan])
    assert int(solution.stats.num_steps) == 0


# The field is NaN beyond its edge, which trial steps overrun but the solution never reaches.
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_non_finite_stage_is_only_a_rejection(method):
    def f(t, y, args):
        return jnp.where(y < 1.0, 1e3 * (1.0 - y), jnp.nan)

    solution = solve(f, 0.0, [0.0, 0.002, 0.03], method=method, atol=1e-6, rtol=1e-6)
    assert int(solution.status) == Status.ok
    assert int(solution.stats.num_rejected) > 0
    # Ten times the tolerance.
    np.testing.assert_allclose(solution.ys, 1.0 - np.exp([0.0, -2.0, -30.0]), atol=1e-5)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_field_that_ends_in_nan_is_diverged(method):
    def f(t, y, args):
        return jnp.where(t < 1.0, y, jnp.nan)

    solution = solve(f, 1.0, [0.0, 0.5, 1.5], method=method)
    assert int(solution.status) == Status.diverged
    np.testing.assert_allclose(solution.ys[1], np.exp(0.5), rtol=1e-7)
    assert np.isnan(solution.ys[2])


def test_the_last_good_state_is_kept():
    def f(t, y, args):
        return {"y": y["y"] ** 2}

    state = advance(f, start(f, 0.0, {"y": jnp.ones(2)}), 2.0)
    assert int(state.status) == Status.diverged
    # The singularity itself is displaced by the tolerance, 1e-8.
    assert 0.99 < float(state.t) < 1.0 + 1e-6
    assert np.all(np.isfinite(state.y["y"]))
    assert np.all(np.asarray(state.y["y"]) > 1e6)


def test_a_traced_record_time_that_is_nan_is_no_success():
    status = jax.jit(lambda t1: solve(lambda t, y, a: -y, 1.0, jnp.stack((0.0 * t1, t1))).status)
    assert int(status(jnp.asarray(1.0))) == Status.ok
    assert int(status(jnp.asarray(jnp.nan))) == Status.diverged


def test_float32_blow_up_is_diverged():
    solution = solve(lambda t, y, a: y**2, jnp.ones((), jnp.float32), [0.0, 0.5, 2.0])
    assert int(solution.status) == Status.diverged
    # Ten times rtol.
    np.testing.assert_allclose(solution.ys[1], 2.0, rtol=1e-4)
