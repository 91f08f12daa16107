"""One problem never changes another's bits, and a run cut into segments is the same run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ode_methods import METHODS

from rnn_dynamics.ode import AUTO, TSIT5, Status, advance, solve, start

TS = np.linspace(0.0, 3.0, 7)


def field(t, y, rate):
    """Relaxation of y[0] to cos t at `rate`, with a nonlinear follower."""
    return jnp.stack((-rate * (y[0] - jnp.cos(t)), y[0] - y[1] ** 3, jnp.sin(y[0] * y[1])))


def initial(num):
    return jnp.asarray(np.random.default_rng(0).normal(size=(num, 3)))


@functools.cache
def batched(method):
    """The one compiled program of these tests, eight members wide."""
    return jax.jit(jax.vmap(lambda y0, rate: solve(field, y0, TS, rate, method=method)))


RATES = jnp.asarray([1e-2, 1.0, 3e3, 10.0, 0.3, 1e2, 0.0, 1e3])


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_member_does_not_depend_on_its_neighbours(method):
    program, y0 = batched(method), initial(8)
    together = program(y0, RATES)
    assert np.all(np.asarray(together.status) == Status.ok)
    steps = np.asarray(together.stats.num_steps)
    assert steps.max() > 2 * steps.min()

    order = np.array([3, 7, 0, 5, 1, 6, 2, 4])
    permuted = program(y0[order], RATES[order])
    np.testing.assert_array_equal(permuted.ys, together.ys[order])
    np.testing.assert_array_equal(permuted.stats.num_steps, steps[order])

    for member in range(8):
        lonely = np.full((8, 3), np.nan)
        lonely[member] = y0[member]
        alone = program(jnp.asarray(lonely), RATES)
        np.testing.assert_array_equal(alone.ys[member], together.ys[member])
        assert int(alone.stats.num_evaluations[member]) == together.stats.num_evaluations[member]
        others = np.delete(np.asarray(alone.status), member)
        assert np.all(others == Status.diverged)


# Different programs may round differently; members agree to what rounding does to steps.
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_batch_agrees_with_single_solves(method):
    y0 = initial(8)
    together = batched(method)(y0, RATES)
    for member in (0, 2, 5):
        alone = solve(field, y0[member], TS, RATES[member], method=method)
        np.testing.assert_allclose(alone.ys, together.ys[member], rtol=1e-7, atol=1e-9)


def test_vmap_over_times():
    ends = jnp.asarray([1.0, 2.0, 4.0])
    ts = jnp.stack((jnp.zeros(3), ends), axis=1)
    ys = jax.vmap(lambda ts: solve(lambda t, y, a: -y, 1.0, ts).ys)(ts)
    # One decade above rtol.
    np.testing.assert_allclose(ys[:, 1], np.exp(-ends), rtol=1e-7)


# Segments end at records, where `solve` interpolates a step of these.
INTERPOLATED = (TSIT5, AUTO)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_segments_are_the_same_run_as_solve(method):
    y0, rate = initial(1)[0], RATES[1]
    whole = solve(field, y0, TS, rate, method=method)
    state = start(field, TS[0], y0, rate, method=method)
    for t, expected in zip(TS[1:], whole.ys[1:], strict=True):
        state = advance(field, state, t, rate, method=method)
        assert float(state.t) == t
        # Other programs round step sizes differently.
        tolerance = 1e-7 if method in INTERPOLATED else 1e-12
        np.testing.assert_allclose(state.y, expected, rtol=tolerance, atol=tolerance / 100)
    segments, at_once = (int(stats.num_evaluations) for stats in (state.stats, whole.stats))
    assert segments > at_once if method in INTERPOLATED else segments == at_once
    assert int(state.status) == int(whole.status) == Status.ok


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_compiled_segments_resume_bit_for_bit(method):
    @jax.jit
    def begin(y0, rates):
        return jax.vmap(lambda y, r: start(field, 0.0, y, r, method=method))(y0, rates)

    @jax.jit
    def segment(states, ts, rates):
        def record(states, t):
            def one(state, rate):
                return advance(field, state, t, rate, method=method)

            states = jax.vmap(one)(states, rates)
            return states, states.y

        return jax.lax.scan(record, states, ts)

    y0 = initial(8)
    ys, states = [], begin(y0, RATES)
    for ts in TS[1:].reshape(3, 2):
        # Through the host, as a checkpoint would.
        states = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), states)
        states, more = segment(states, jnp.asarray(ts), RATES)
        ys.append(more)
    _, whole = segment(begin(y0, RATES), jnp.asarray(TS[1:]), RATES)
    np.testing.assert_array_equal(np.concatenate(ys), whole)
    # another program, which may round differently
    at_once = np.swapaxes(batched(method)(y0, RATES).ys, 0, 1)[1:]
    np.testing.assert_allclose(whole, at_once, rtol=1e-7, atol=1e-9)


def test_advance_leaves_what_is_past_or_failed_untouched():
    state = start(field, 0.0, jnp.ones(3), 1.0)
    state = advance(field, state, 1.0, 1.0)
    for t1 in (0.5, 1.0):
        again = advance(field, state, t1, 1.0)
        for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
            np.testing.assert_array_equal(before, after)
    spent = advance(field, state, 50.0, 1.0, max_steps=int(state.stats.num_steps) + 3)
    assert int(spent.status) == Status.max_steps
    again = advance(field, spent, 100.0, 1.0)
    for before, after in zip(jax.tree.leaves(spent), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(before, after)
