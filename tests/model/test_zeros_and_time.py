"""Zeros, residues, simulation in time, and targets that are given by numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

import rnn_dynamics as rd

KEY = jax.random.key(3)


def pencil_zeros(rnn):
    """The finite generalised eigenvalues, by the QZ algorithm."""
    N, U, V = rnn.num_units, np.asarray(rnn.u), np.asarray(rnn.v)
    U, V = U.reshape(N, -1), V.reshape(N, -1)
    m = U.shape[1]
    A = np.asarray(rnn.W) - np.eye(N)
    M = np.block([[A, U], [V.T, np.zeros((m, m))]])
    found = scipy.linalg.eigvals(M, scipy.linalg.block_diag(np.eye(N), np.zeros((m, m))))
    return found[np.abs(found) < 1e4]


def distance(found, expected):
    """Largest distance between partners, finite ones alone."""
    found = np.asarray(found)[np.isfinite(found)]
    assert len(found) == len(expected)
    if not len(found):
        return 0.0
    partners = np.asarray(rd.match_eigenvalues(expected, found))
    return np.max(np.abs(found[partners] - expected))


@pytest.mark.parametrize("channels", [None, 2])
def test_zeros_are_those_of_the_pencil(channels):
    rnn = rd.random_rnn(KEY, 12, 0.8, num_inputs=channels, num_outputs=channels)
    # zeros of random networks have condition numbers of a few hundred
    assert distance(rnn.zeros(), pencil_zeros(rnn)) < 1e-11
    many = jax.vmap(lambda key: rd.random_rnn(key, 5, 0.5))(jax.random.split(KEY, 3))
    each = jax.vmap(rd.LinearRNN.zeros)(many)
    for index in range(3):
        one = jax.tree.map(lambda x, i=index: x[i], many)
        assert distance(each[index], pencil_zeros(one)) < 1e-12


def test_zeros_have_closed_forms():
    # cos(ωt + φ) e^{-γt} is cos φ (s + γ) - ω sin φ over the poles
    oscillator = rd.damped_oscillator(0.3, 1.7, 0.4)
    assert distance(oscillator.zeros(), [-0.3 + 1.7 * np.tan(0.4) + 0j]) < 1e-14
    assert distance(rd.leaky_integrator(0.2).zeros(), []) == 0
    # two decays a, b of equal weight: 2s + a + b
    assert distance(rd.parallel(*map(rd.leaky_integrator, (0.2, 0.6))).zeros(), [-0.4 + 0j]) < 1e-14


@pytest.mark.parametrize("delay", [1, 2, 3, 5])
def test_delays_have_fewer_zeros(delay):
    # s^5 k(s) of a response that begins at `delay` is a polynomial of degree 5 - delay
    values = np.r_[np.zeros(delay), [1.0, -0.5, 0.3, 0.2, 0.7][: 6 - delay]]
    found = rd.fir(values).zeros()
    assert found.shape == (5,)
    assert distance(1 + found, np.roots(values[delay:]) + 0j) < 1e-12


def test_a_silent_mode_has_a_zero_on_its_pole():
    W, u = np.diag([0.5, 0.2, -0.3]), np.ones(3)
    rnn = rd.LinearRNN(W, u, np.array([1.0, 0.0, 2.0]))
    assert np.min(np.abs(rnn.zeros() - (0.2 - 1))) < 1e-14
    order = np.argsort(rnn.eigenvalues())
    np.testing.assert_allclose(rnn.residues()[order], [2, 0, 1], atol=1e-14)


@pytest.mark.parametrize("channels", [(None, None), (2, None), (2, 3)])
def test_residues_make_the_response(channels):
    rnn = rd.random_rnn(KEY, 10, 0.7, 1.0, 1.0, None, *channels)
    times = np.array([0.0, 0.7, 3.0])
    decays = np.exp(-(1 - np.asarray(rnn.eigenvalues())) * times[:, None])
    made = np.tensordot(decays, np.asarray(rnn.residues()), axes=1)
    np.testing.assert_allclose(made, rnn.impulse_response(times), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("channels", [(None, None), (2, None), (None, 3), (2, 3)])
def test_simulation_is_a_convolution_in_steps(channels):
    rnn = rd.random_rnn(KEY, 6, 0.7, 1.0, 1.0, None, *channels)
    m, dt = channels[0] or 1, 0.1
    x = np.random.default_rng(0).normal(size=(4, 20, m))
    M = np.eye(6) - dt * (np.eye(6) - np.asarray(rnn.W))
    U, V = np.asarray(rnn.u).reshape(6, -1), np.asarray(rnn.v).reshape(6, -1)
    k = [V.T @ np.linalg.matrix_power(M, n) @ U for n in range(20)]
    y = [[dt * sum(k[n - j] @ one[j] for j in range(n + 1)) for n in range(20)] for one in x]
    expected = np.asarray(y) if channels[1] else np.asarray(y)[..., 0]
    x = x if channels[0] else x[..., 0]
    np.testing.assert_allclose(rnn.simulate(x, dt), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(rnn.simulate(x[2], dt), expected[2], rtol=1e-12, atol=1e-14)


def test_simulated_errors_are_those_of_the_sampled_loss():
    rnn, target = rd.random_rnn(KEY, 6, 0.7), rd.leaky_integrator(0.3)
    loss = rd.SampledLoss(4.0, 0.1, 16)
    noise = loss.noise(KEY)
    gap = rnn.simulate(noise, 0.1) - target.simulate(noise, 0.1)
    assert float(loss(rnn, target, KEY)) == pytest.approx(
        np.mean(np.asarray(gap) ** 2) / 2, rel=1e-12
    )


def test_a_shift_register_repeats_its_numbers():
    values = np.array([0.0, 2.0, -1.0])
    pulse = np.eye(1, 6)[0]
    np.testing.assert_array_equal(rd.fir(values).simulate(pulse, 1.0), [0, 2, -1, 0, 0, 0])
    many = np.random.default_rng(1).normal(size=(4, 3, 2))
    x = np.zeros((2, 6, 2))
    x[0, 0, 0] = x[1, 0, 1] = 1
    answers = rd.fir(many).simulate(x, 1.0)
    np.testing.assert_array_equal(answers[:, :4], many.transpose(2, 0, 1))
    np.testing.assert_array_equal(answers[:, 4:], 0)
    assert rd.fir([1, 0]).dtype == jnp.float64
    assert rd.fir(values.astype(np.float32)).dtype == jnp.float32


def test_amplitudes_multiply():
    t = np.array([0.0, 1.0, 4.0])
    np.testing.assert_allclose(
        rd.leaky_integrator(0.2, -3.0).impulse_response(t), -3 * np.exp(-0.2 * t), rtol=1e-13
    )
    np.testing.assert_allclose(
        rd.damped_oscillator(0.2, 1.5, 0.3, 2.0).impulse_response(t),
        2 * np.exp(-0.2 * t) * np.cos(1.5 * t + 0.3),
        rtol=1e-12,
    )


WIDE = rd.random_rnn(KEY, 4, 0.5, num_inputs=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (WIDE.zeros, r"`rnn` must have as many outputs as inputs, but is `u` of shape \(4, 2\)"),
        (lambda: WIDE.simulate(np.ones(3), 0.1), r"`x` must have shape \(..., T, 2\).*\(3,\)"),
        (lambda: WIDE.simulate(np.ones((5, 3)), 0.1), r"beside `u` of shape \(4, 2\).*\(5, 3\)"),
        (lambda: WIDE.simulate(np.ones((5, 2)), 0.0), "`time_step` must be positive"),
        (lambda: rd.fir([]), "`values` must have a step, but is of shape"),
        (lambda: rd.fir([[1.0]]), r"`values` must have shape \(T,\) or \(T, p, m\)"),
        (lambda: rd.fir([np.nan]), "`values` must be finite"),
        (lambda: rd.leaky_integrator(0.1, np.inf), "`amplitude` must be finite"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
