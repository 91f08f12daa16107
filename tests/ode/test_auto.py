"""The automatic method: when the exponential method takes over, what it costs, and isolation."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode import AUTO, RODAS5P, TSIT5, Status, solve
from rnn_dynamics.ode.erk import ExplicitMethod


def descent(t, y, rates):
    """Down a bowl that is bent: a stiff direction that turns with y, and rates in all others."""
    pull = rates[0] * (y[0] - 0.1 * jnp.sum(y[1:] ** 2))
    return jnp.concatenate((-pull[None], -rates[1:] * y[1:] + 0.2 * pull * y[1:]))


# The pair would take 1.8 million evaluations: 6 for each 3.3 / 1e5.
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_few_stiff_directions_cost_next_to_nothing(dtype):
    rates = np.array([1e5, 2e3, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05])
    rtol, ts = {"float64": 1e-6, "float32": 1e-4}[dtype], np.array([0.0, 1.0, 10.0])
    y0 = np.full(8, 0.3)
    exact = solve(descent, y0, ts, jnp.asarray(rates), method=RODAS5P)
    args = jnp.asarray(rates, dtype)
    got = solve(
        descent, y0.astype(dtype), ts.astype(dtype), args, method=AUTO, rtol=rtol, atol=1e-2 * rtol
    )
    assert int(got.status) == Status.ok
    assert got.ys.dtype == dtype
    np.testing.assert_allclose(got.ys, exact.ys, atol=10 * rtol)
    assert int(got.stats.num_evaluations) < 5_000


# A step is as long as the directions that are not followed allow: the seventh of ten has a rate of
# 30.
def test_more_directions_than_are_followed_limit_the_step():
    rates = jnp.asarray([1e4, 5e3, 2e3, 1e3, 300.0, 100.0, 30.0, 1.0, 0.5, 0.2])
    ts = [0.0, 2.0]
    got = solve(descent, jnp.full(10, 0.3), ts, rates, method=AUTO, rtol=1e-3, atol=1e-5)
    exact = solve(descent, jnp.full(10, 0.3), ts, rates, method=RODAS5P)
    assert int(got.status) == Status.ok
    np.testing.assert_allclose(got.ys[-1], exact.ys[-1], atol=1e-3)


# Twenty directions of a tenth of the fastest rate, which the exponential method does not follow.
def test_many_stiff_directions_are_left_to_the_pair():
    rates = jnp.concatenate((jnp.asarray([1e3]), jnp.full(20, 110.0), jnp.ones(1)))
    auto, pair = (
        solve(descent, jnp.full(22, 0.3), [0.0, 5.0], rates, method=method, rtol=1e-3, atol=1e-5)
        for method in (AUTO, TSIT5)
    )
    assert int(auto.status) == Status.ok
    assert int(auto.stats.num_evaluations) < 1.2 * int(pair.stats.num_evaluations)


# Stiff in two directions between which the Jacobian is not symmetric: not to be taken for a
# gradient flow.
def test_a_jacobian_that_is_not_symmetric_is_left_to_the_pair():
    matrix = jnp.asarray([[-1e3, 8e2, 0.0], [0.0, -2e2, 0.0], [0.0, 0.0, -1.0]])

    def follow(t, y, args):
        return matrix @ (y - jnp.cos(t)) - jnp.sin(t)

    auto, pair = (
        solve(follow, jnp.ones(3), [0.0, 3.0], method=method, rtol=1e-6, atol=1e-8)
        for method in (AUTO, TSIT5)
    )
    assert int(auto.status) == Status.ok
    np.testing.assert_allclose(auto.ys[-1], math.cos(3.0), atol=1e-5)
    assert int(auto.stats.num_evaluations) < 1.2 * int(pair.stats.num_evaluations)


def test_a_problem_that_stops_being_stiff_goes_back_to_the_pair():
    def f(t, y, args):
        rate = jnp.where(t < 1.0, 1e5, 1.0)
        return -rate * (y - jnp.cos(t)) - jnp.sin(t)

    ts = [0.0, 1.0, 20.0]
    got = solve(f, jnp.ones(3), ts, method=AUTO, rtol=1e-6, atol=1e-8)
    pair = solve(f, jnp.ones(3), [1.0, 20.0], method=TSIT5, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(got.ys[-1], math.cos(20.0), atol=1e-5)
    assert int(got.stats.num_evaluations) < 600 + 1.5 * int(pair.stats.num_evaluations)


# Members of a batch wait for each other: four passes of one at an attempt cost all of them four.
def test_an_attempt_makes_one_pass_and_only_some_of_them_decide():
    rates = jnp.asarray([1e4, 1e3, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05])
    t, y, h, no = jnp.zeros(()), jnp.full(8, 0.3), jnp.asarray(2.5e-4), jnp.asarray(False)

    def f(t, y):
        return descent(t, y, rates)

    state, counts, stiff = AUTO.init(f(t, y)), [], []
    for _ in range(12):
        context = AUTO.prepare(f, t, y, f(t, y), h, state, no)
        state = context.state
        counts.append(int(context.num_evaluations))
        stiff.append(bool(state.exponential))
    # one direction until the radius is known, all until they are, then the one that matters and the
    # next
    assert max(counts) == 6
    first = stiff.index(True)
    assert 2 <= counts[: first + 1].count(6) <= 4
    assert all(stiff[first:])
    assert counts[-1] == 2


def test_the_pair_keeps_what_is_not_stiff():
    ts = jnp.linspace(0.0, 20.0, 5)

    def predator_prey(t, y, args):
        return jnp.stack((y[0] * (1.1 - 0.4 * y[1]), y[1] * (-0.4 + 0.1 * y[0])))

    # with the step-size control that the pair has in AUTO
    names = [field.name for field in dataclasses.fields(ExplicitMethod)]
    parts = {name: getattr(AUTO.pair, name) for name in names}
    pair = type("Pair", (ExplicitMethod,), {"gains": AUTO.gains})(**parts)
    alone = solve(predator_prey, jnp.asarray([10.0, 5.0]), ts, method=pair)
    auto = solve(predator_prey, jnp.asarray([10.0, 5.0]), ts, method=AUTO)
    # the same steps, and the estimates of the spectral radius
    np.testing.assert_allclose(auto.ys, alone.ys, rtol=1e-13)
    assert int(auto.stats.num_steps) == int(alone.stats.num_steps)
    # at most 20 evaluations for each 20 attempts of six, where a rotation has no radius to find
    assert int(auto.stats.num_evaluations) < 1.2 * int(alone.stats.num_evaluations)


def test_every_evaluation_is_counted():
    calls = 0

    def count():
        nonlocal calls
        calls += 1

    def counted(t, y, args):
        jax.debug.callback(count)
        return descent(t, y, jnp.asarray([1e4, 1e3, 1.0, 0.5]))

    got = solve(counted, jnp.full(4, 0.3), [0.0, 0.3, 3.0], method=AUTO, rtol=1e-4, atol=1e-6)
    jax.effects_barrier()
    assert int(got.stats.num_evaluations) == calls


def test_a_radius_that_grows_is_noticed():
    # relaxation to cos t, at a rate that grows from 1 to 1e6 over the last half
    def f(t, y, args):
        rate = 10.0 ** (6.0 * jnp.clip(t - 1.0, 0.0, 1.0))
        return -rate * (y - jnp.cos(t)) - jnp.sin(t)

    got = solve(f, jnp.ones(3), [0.0, 1.0, 2.0], method=AUTO, rtol=1e-6, atol=1e-8)
    assert int(got.status) == Status.ok
    np.testing.assert_allclose(got.ys[:, 0], np.cos([0.0, 1.0, 2.0]), atol=1e-5)
    assert int(got.stats.num_evaluations) < 30_000  # of the pair, 6e5


# Members of the pair beside members of the exponential method: each has the bits that it has among
# others of its kind.
def test_a_member_does_not_depend_on_the_method_of_its_neighbours():
    rates = jnp.asarray([1e-2, 1.0, 3e5, 10.0, 1e3, 1e6])

    def f(t, y, rate):
        return jnp.stack((-rate * (y[0] - jnp.cos(t)), y[0] - y[1] ** 3))

    def run(rate):
        return solve(f, jnp.ones(2), [0.0, 1.0, 3.0], rate, method=AUTO, rtol=1e-5)

    program = jax.jit(jax.vmap(run))
    together = program(rates)
    assert np.all(np.asarray(together.status) == Status.ok)
    for member, neighbour in itertools.product((0, 2, 4), (1e-3, 1e6)):
        alone = program(jnp.full(6, neighbour).at[member].set(rates[member]))
        np.testing.assert_array_equal(alone.ys[member], together.ys[member])
        for count in ("num_steps", "num_rejected", "num_evaluations"):
            counts = getattr(alone.stats, count), getattr(together.stats, count)
            assert int(counts[0][member]) == int(counts[1][member])
