import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import rnn_dynamics as rd

TIMES = np.array([0.0, 0.3, 1.0, 7.0, 40.0])


@pytest.mark.core
def test_impulse_response_is_the_matrix_exponential_of_scipy():
    rnn = rd.random_rnn(jax.random.key(1), 12, 0.8)
    A = np.eye(12) - np.asarray(rnn.W)
    expected = [np.asarray(rnn.v) @ scipy.linalg.expm(-A * t) @ np.asarray(rnn.u) for t in TIMES]
    # two Padé evaluations of a matrix of norm 40: a few hundred roundings
    np.testing.assert_allclose(rnn.impulse_response(TIMES), expected, rtol=1e-11, atol=1e-15)


def test_targets_have_their_closed_forms():
    np.testing.assert_allclose(
        rd.leaky_integrator(0.2).impulse_response(TIMES), np.exp(-0.2 * TIMES), rtol=1e-13
    )
    oscillator = rd.damped_oscillator(0.3, 1.7, 0.6)
    expected = np.exp(-0.3 * TIMES) * np.cos(1.7 * TIMES + 0.6)
    np.testing.assert_allclose(oscillator.impulse_response(TIMES), expected, atol=1e-13)
    np.testing.assert_allclose(
        np.sort_complex(oscillator.eigenvalues()), [0.7 - 1.7j, 0.7 + 1.7j], rtol=1e-14
    )


def test_parallel_adds_impulse_responses():
    parts = (rd.leaky_integrator(0.2), rd.damped_oscillator(0.4, 1.0), rd.leaky_integrator(1.5))
    expected = sum(part.impulse_response(TIMES) for part in parts)
    both = rd.parallel(*parts)
    assert both.num_units == 4
    np.testing.assert_allclose(both.impulse_response(TIMES), expected, rtol=1e-12)


@pytest.mark.parametrize("channels", [(2, None), (None, 3), (2, 3)])
def test_every_output_answers_every_input(channels):
    rnn = rd.random_rnn(jax.random.key(2), 9, 0.7, 0.5, 2.0, None, *channels)
    assert rnn.u.shape == (9, 2)[: 2 if channels[0] else 1]
    assert rnn.v.shape == (9, 3)[: 2 if channels[1] else 1]
    U, V = np.asarray(rnn.u).reshape(9, -1), np.asarray(rnn.v).reshape(9, -1)
    expected = [[rd.LinearRNN(rnn.W, b, c).impulse_response(TIMES) for b in U.T] for c in V.T]
    expected = np.moveaxis(np.asarray(expected), -1, 0)
    assert (rnn.num_outputs, rnn.num_inputs) == expected.shape[1:]
    np.testing.assert_allclose(rnn.impulse_response(TIMES), expected, rtol=1e-12, atol=1e-15)
    both = rd.parallel(rnn, rnn)
    np.testing.assert_allclose(both.impulse_response(TIMES), 2 * expected, rtol=1e-11, atol=1e-14)
    many = jax.vmap(lambda key: rd.random_rnn(key, 9, 0.7, num_inputs=2))(
        jax.random.split(jax.random.key(1), 4)
    )
    assert (many.num_units, many.num_inputs, many.num_outputs) == (9, 2, 1)


def test_a_perfect_integrator_never_forgets():
    np.testing.assert_allclose(rd.leaky_integrator(0).impulse_response(TIMES), 1.0, rtol=1e-13)


def test_everything_works_under_jit_and_vmap_and_keeps_float32():
    decays = jnp.asarray([0.1, 0.5], jnp.float32)

    @jax.jit
    @jax.vmap
    def respond(decay):
        return rd.parallel(
            rd.leaky_integrator(decay), rd.damped_oscillator(decay, 1.0)
        ).impulse_response(jnp.asarray(TIMES))

    result = respond(decays)
    assert result.dtype == jnp.float32
    d = np.asarray(decays, float)[:, None]
    expected = np.exp(-d * TIMES) * (1 + np.cos(TIMES))
    np.testing.assert_allclose(result, expected, atol=3e-6)  # float32, growth of rounding to t = 40


W, u = np.zeros((3, 3)), np.zeros(3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((3, 2)), u, u), ValueError, "Argument `W` must be square, but has shape"),
        ((np.zeros(3), u, u), ValueError, r"Argument `W` must have shape \(N, N\), but has shape"),
        ((np.zeros((0, 0)), u[:0], u[:0]), ValueError, "Argument `W` must be square"),
        (
            (W, np.zeros(2), u),
            ValueError,
            r"`u` must have shape \(3,\) or \(3, m\) beside `W` of shape \(3, 3\), .* \(2,\)",
        ),
        ((W, u, np.zeros((2, 3))), ValueError, r"`v` .*\(3, p\).*, but has shape \(2, 3\)"),
        ((W, u, np.zeros((3, 0))), ValueError, r"`v` must have a column, but is of shape \(3, 0\)"),
        ((W * np.nan, u, u), ValueError, "Argument `W` must be finite"),
        ((W, u + np.inf, u), ValueError, "Argument `u` must be finite"),
        ((W + 0j, u, u), TypeError, "Argument `W` must be a real floating-point array.*complex"),
        ((W, u.astype(int), u), TypeError, "Argument `u` must be a real floating.*dtype int"),
        ((W, u, u.astype(np.float32)), TypeError, "must have one dtype, but have float64"),
    ],
)
def test_bad_arrays_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        rd.LinearRNN(*arguments)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rd.leaky_integrator(-0.1), ValueError, "`decay` must be positive.*but is -0.1"),
        (lambda: rd.leaky_integrator(1j), TypeError, "`decay` must be a real number"),
        (lambda: rd.leaky_integrator("x"), TypeError, "`decay` must be a real number, but is 'x'"),
        (lambda: rd.leaky_integrator([1.0]), TypeError, "`decay` must be a real number"),
        (lambda: rd.leaky_integrator(np.ones(2)), ValueError, "`decay` must be a scalar"),
        (lambda: rd.damped_oscillator(0.1, np.nan), ValueError, "`frequency` must be finite"),
        (lambda: rd.parallel(), ValueError, "`rnns` must hold at least one network"),
        (
            lambda: rd.parallel(rd.leaky_integrator(0.1), rd.LinearRNN(W, np.zeros((3, 2)), u)),
            ValueError,
            r"`rnns` must have equal inputs.*`u` of shapes \(1,\) and \(3, 2\)",
        ),
        (
            lambda: rd.random_rnn(jax.random.key(0), 4, 0.5, overlap=0.1, num_inputs=2),
            ValueError,
            "`overlap` must be None with `num_inputs` or `num_outputs`, but is 0.1",
        ),
        (lambda: rd.parallel(3), TypeError, "`rnns` must hold LinearRNNs, but has a int"),
        (
            lambda: rd.leaky_integrator(0.1).impulse_response(1.0),
            ValueError,
            r"`t` must have shape \(T,\)",
        ),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
