"""Structures, dtypes, what is traced, and the messages of wrong arguments."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ode_methods import METHODS

from rnn_dynamics.ode import Status, advance, solve, start


def decay(t, y, rate):
    return jax.tree.map(lambda leaf: -rate * leaf, y)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_any_pytree(method):
    class Pair(eqx.Module):
        matrix: jax.Array
        rest: tuple

    y0 = Pair(jnp.ones((2, 3)), (jnp.asarray(2.0), {"empty": jnp.zeros((0,))}))
    solution = solve(decay, y0, [0.0, 1.0, 2.0], 0.5, method=method)
    assert jax.tree.structure(solution.ys) == jax.tree.structure(y0)
    assert solution.ys.matrix.shape == (3, 2, 3)
    assert solution.ys.rest[1]["empty"].shape == (3, 0)
    # Ten times rtol.
    expected = 2.0 * np.exp([0.0, -0.5, -1.0])
    np.testing.assert_allclose(solution.ys.rest[0], expected, rtol=1e-7)


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_float32_stays_float32(method):
    y0 = {"a": jnp.ones(3, jnp.float32)}
    # NumPy's float64 times, tolerances and Python floats must not promote the state.
    ts = np.linspace(0.0, 1.0, 4)
    rtol = np.float64(1e-5)
    solution = solve(decay, y0, ts, 0.5, method=method, rtol=rtol)
    assert solution.ys["a"].dtype == jnp.float32
    # Ten times rtol.
    expected = np.exp(-0.5 * ts)[:, None] * np.ones(3)
    np.testing.assert_allclose(solution.ys["a"], expected, rtol=1e-4)
    state = advance(decay, start(decay, 0.0, y0, 0.5, method=method), 1.0, 0.5, method=method)
    floating = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {leaf.dtype.name for leaf in floating} == {"float32"}
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))


def test_the_first_record_is_the_initial_value():
    y0 = jnp.asarray([0.1, 0.2])
    np.testing.assert_array_equal(solve(decay, y0, [3.0], 1.0).ys, y0[None])
    np.testing.assert_array_equal(solve(decay, y0, [3.0, 4.0], 1.0).ys[0], y0)


def test_numbers_are_traced():
    traces = 0

    def field(t, y, rate):
        nonlocal traces
        traces += 1
        return -rate * y

    solve(field, 1.0, [0.0, 1.0], 0.5, rtol=1e-6)
    after_first = traces
    for rate in (0.7, 1.9):
        solve(field, 2.0 * rate, [0.0, rate], rate, rtol=rate * 1e-6, max_steps=500)
    assert traces == after_first


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_forward_mode_suffices(method):
    # A loop of unknown length has no reverse mode; sqrt(y) by Newton's iteration.
    def root(t, y, args):
        def better(x):
            return 0.5 * (x + y / x)

        return -jax.lax.while_loop(lambda x: jnp.max(jnp.abs(x * x - y)) > 1e-14, better, y)

    solution = solve(root, jnp.ones(2), [0.0, 1.0], method=method)
    # y = (1 - t/2)^2; ten times rtol.
    np.testing.assert_allclose(solution.ys[1], 0.25, rtol=1e-7)


def test_constant_field_and_equilibrium():
    for y0 in (0.0, 1.0):
        solution = solve(lambda t, y, a: jnp.zeros_like(y), y0, [0.0, 1e6])
        assert int(solution.status) == Status.ok
        assert float(solution.ys[1]) == y0
        assert int(solution.stats.num_steps) == 1


def test_print():
    solution = solve(decay, 1.0, [0.0, 1.0], 0.5)
    assert str(solution).startswith("Solution: ok, 2 records\n  steps        ")
    rates = jnp.asarray([0.5, jnp.nan])
    batch = jax.vmap(lambda rate: solve(decay, 1.0, [0.0, 1.0], rate))(rates)
    assert str(batch).startswith("Solution of 2 problems: 1 ok, 1 diverged, 2 records\n")
    assert " in all" in str(batch)


def good(**changes):
    arguments = {"vector_field": decay, "y0": 1.0, "ts": [0.0, 1.0], "args": 0.5} | changes
    return solve(**arguments)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rtol": -0.1}, ValueError, "Argument `rtol` must be positive, but is -0.1."),
        ({"atol": 0.0}, ValueError, "Argument `atol` must be positive, but is 0.0."),
        ({"rtol": [1e-3]}, TypeError, "Argument `rtol` must be a real number, but is"),
        ({"max_steps": 0}, ValueError, "Argument `max_steps` must be at least 1, but is 0."),
        ({"max_steps": 1.5}, TypeError, "Argument `max_steps` must be an integer, but is 1.5."),
        ({"ts": [0.0, 1.0, 1.0]}, ValueError, "Argument `ts` must increase, but is"),
        ({"ts": [0.0, np.inf]}, ValueError, "Argument `ts` must be finite"),
        ({"ts": 1.0}, ValueError, r"Argument `ts` must have shape \(R,\), but is \(\)."),
        ({"ts": []}, ValueError, r"Argument `ts` must have shape \(R,\), but is \(0,\)."),
        ({"y0": 1}, TypeError, "`y0` must hold float32 or float64 numbers, but holds int"),
        ({"y0": 1j}, TypeError, "`y0` must hold float32 or float64 numbers, but holds complex"),
        ({"y0": np.nan}, ValueError, "Argument `y0` must be finite"),
        ({"y0": ()}, ValueError, "Argument `y0` must hold at least one number"),
        ({"y0": (np.float32(1), 1.0)}, TypeError, "`y0` must hold numbers of one dtype"),
        (
            {"method": "TSIT5"},
            TypeError,
            "`method` must be AUTO, TSIT5, RODAS5P or another AbstractSolver, but is 'TSIT5'.",
        ),
        (
            {"vector_field": lambda t, y, a: (y,)},
            TypeError,
            "Argument `vector_field` must return the structure of `y0`",
        ),
        (
            {"vector_field": lambda t, y, a: jnp.ones(2)},
            TypeError,
            r"must return arrays like those of `y0`, float64\[\], but returns float64\[2\]",
        ),
        (
            {"vector_field": lambda t, y, a: jax.lax.complex(y, y)},
            TypeError,
            "but returns complex128",
        ),
    ],
)
def test_wrong_arguments_are_named(changes, error, message):
    with pytest.raises(error, match=message):
        good(**changes)


def test_times_that_float32_cannot_tell_apart_are_refused():
    with pytest.raises(ValueError, match="`ts` must increase"):
        good(y0=np.float32(1.0), ts=[1.0, 1.0 + 1e-9])


def test_wrong_arguments_of_the_lower_level():
    with pytest.raises(ValueError, match=r"Argument `t0` must be finite, but is nan\."):
        start(decay, np.nan, 1.0, 0.5)
    state = start(decay, 0.0, 1.0, 0.5)
    with pytest.raises(TypeError, match="Argument `t1` must be a real number"):
        advance(decay, state, [1.0, 2.0], 0.5)
    with pytest.raises(TypeError, match="Argument `state` must be a state of `start`"):
        advance(decay, 1.0, 1.0, 0.5)
