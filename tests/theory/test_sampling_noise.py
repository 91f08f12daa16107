"""Gradients on sampled noise: their covariance against independent values, quadratic forms and
samples, and the mean loss that follows from it.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.linalg import toeplitz
from support import parameters, relative

import rnn_dynamics as rd

WEIGHTINGS = ("uniform", "time_averaged")


@pytest.fixture
def case(structured):
    entry = structured["noise"][0]
    rnn = rd.LinearRNN(*(np.asarray(entry[name], float) for name in "Wuv"))
    return entry, rnn, rd.leaky_integrator(entry["decay"])


@functools.cache
def response(rnn_of, num, dt):
    pulse = jnp.zeros(num).at[0].set(1 / dt)
    return jax.jit(lambda x: rnn_of(x).simulate(pulse, dt))


@pytest.mark.core
def test_the_reference_covariance(case):
    entry, rnn, target = case
    loss = rd.SampledLoss(entry["horizon"], entry["time_step"], 1, entry["weighting"])
    found = rd.theory.gradient_covariance(rnn, target, loss)
    assert relative(found, entry["covariance_one_sequence"]) < 1e-8
    # 2 L F + g gᵀ, where F is the Gauss-Newton matrix
    value, gradient = loss.expected.value_and_grad(rnn, target)
    g, (_, unravel) = parameters(gradient), ravel_pytree(rnn)
    flat = jnp.asarray(parameters(rnn))
    k = response(unravel, loss.num_steps, entry["time_step"])
    J = np.sqrt(entry["time_step"]) * np.asarray(jax.jacfwd(k)(flat))
    assert relative(found, 2 * float(value) * J.T @ J + np.outer(g, g)) < 1e-11


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_covariances_of_quadratic_forms(case, weighting):
    """A sampled gradient is ξᵀ M_a ξ, with covariance 2 tr M_a M_b."""
    _, rnn, target = case
    num, dt = 40, 0.2
    loss = rd.SampledLoss(num * dt, dt, 16, weighting)
    _, unravel = ravel_pytree(rnn)
    k = response(unravel, num, dt)
    J = np.asarray(jax.jacfwd(k)(jnp.asarray(parameters(rnn))))
    error = np.asarray(rnn.simulate(np.eye(1, num)[0] / dt, dt))
    error = error - np.asarray(target.simulate(np.eye(1, num)[0] / dt, dt))
    rows = slice(num - 1, num) if weighting == "uniform" else slice(num)
    convolve = [np.sqrt(dt) * toeplitz(x, np.zeros(num))[rows] for x in (error, *J.T)]
    E = convolve[0]
    M = np.array([(E.T @ D + D.T @ E) / (2 * len(E)) for D in convolve[1:]])
    expected = 2 * np.einsum("aij,bij->ab", M, M)
    found = np.asarray(rd.theory.gradient_covariance(rnn, target, loss))
    assert relative(found, expected) < 1e-12
    vector = unravel(jnp.cos(jnp.arange(len(M), dtype=float)))
    product = rd.theory.gradient_covariance_product(rnn, target, loss, vector)
    assert relative(parameters(product), expected @ parameters(vector)) < 1e-12


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_covariances_of_samples(case, weighting):
    """20,000 sampled gradients, within 3 standard errors in all but the few entries of chance."""
    _, rnn, target = case
    loss = rd.SampledLoss(6.0, 0.3, 1, weighting)
    gradient = jax.jit(
        jax.vmap(lambda key: ravel_pytree(loss.value_and_grad(rnn, target, key)[1])[0])
    )
    samples = np.concatenate(
        [np.asarray(gradient(jax.random.split(jax.random.key(i), 4000))) for i in range(5)]
    )
    centred = samples - samples.mean(axis=0)
    count, found = len(samples), centred.T @ centred / len(samples)
    squares = (centred**2).T @ centred**2 / count
    errors = np.sqrt((squares - found**2) / count)
    expected = np.asarray(rd.theory.gradient_covariance(rnn, target, loss))
    away = np.abs(found - expected) / errors
    assert np.mean(away > 3) < 0.02
    assert away.max() < 5
    assert relative(found, expected) < 0.07


@pytest.mark.core
def test_the_reference_rates_for_batch_sizes(structured):
    entry = structured["noise"][0]["one_outlier"]
    target = rd.leaky_integrator(entry["decay"])
    for size, expected in entry["largest_rate"].items():
        found = rd.theory.largest_learning_rate(target, target, int(size))
        assert float(found) == pytest.approx(expected, rel=1e-9)
    full = rd.theory.largest_learning_rate(target, target)
    assert float(full) == pytest.approx(entry["full_gradient"], rel=1e-9)
    many = rd.theory.largest_learning_rate(target, target, 10**7)
    assert float(many) == pytest.approx(float(full), rel=1e-6)
    # a common factor of the rates divides the learning rate
    half = rd.theory.largest_learning_rate(target, target, 4, rates=rd.Rates(2.0, 2.0, 2.0))
    assert 2 * float(half) == pytest.approx(entry["largest_rate"]["4"], rel=1e-9)


@pytest.mark.parametrize(("factor", "falls"), [(0.92, True), (1.08, False)])
def test_mean_losses_fall_below_the_largest_rate(factor, falls):
    target = rd.leaky_integrator(0.3)
    near = rd.LinearRNN(target.W + 1e-5, target.u - 1e-5, target.v)
    loss = rd.SampledLoss(15.0, 0.1, 4, "uniform")  # nearly continuous, and without an end
    rate = factor * rd.theory.largest_learning_rate(target, target, 4)
    mean = np.asarray(rd.theory.minibatch_loss(near, target, loss, rate, 60))
    assert (mean[-1] < mean[-2]) is np.bool_(falls)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_mean_losses_of_runs(weighting):
    """Near the solution, means over 400 runs are within 3 standard errors."""
    target, steps, rates = rd.leaky_integrator(0.3), 20, rd.Rates(1.0, 0.5, 1.0)
    near = rd.LinearRNN(target.W + 3e-5, target.u + 1e-4, target.v - 5e-5)
    loss = rd.SampledLoss(8.0, 0.2, 2, weighting)
    mean = np.asarray(rd.theory.minibatch_loss(near, target, loss, 0.05, steps, rates))
    assert mean.shape == (steps + 1,)
    assert float(mean[0]) == pytest.approx(float(loss.expected(near, target)), rel=1e-9)

    def run(key):
        def step(rnn, key):
            _, gradient = loss.value_and_grad(rnn, target, key)
            gradient = rates.times(gradient)
            rnn = jax.tree.map(lambda x, g: x - 0.05 * g, rnn, gradient)
            return rnn, loss.expected(rnn, target)

        return jax.lax.scan(step, near, jax.random.split(key, steps))[1]

    found = np.asarray(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 400)))
    errors = found.std(axis=0, ddof=1) / np.sqrt(len(found))
    at = [0, 3, 8, 19]
    assert np.all(np.abs(found.mean(axis=0) - mean[1:])[at] < 3 * errors[at])
    # the noise is what keeps the mean up
    still = rd.SampledLoss(8.0, 0.2, 10**6, weighting)
    without = rd.theory.minibatch_loss(near, target, still, 0.05, steps, rates)
    assert np.all((mean[1:] - np.asarray(without)[1:])[3:9] > 3 * errors[3:9])


def test_what_has_no_theory_is_refused(case):
    _, rnn, target = case
    wide = rd.LinearRNN(rnn.W, rnn.u[:, None], rnn.v[:, None])
    loss = rd.SampledLoss(1.0, 0.5, 2)
    with pytest.raises(ValueError, match="`rnn` must have one input and one output, but is one"):
        rd.theory.gradient_covariance(wide, target, loss)
    with pytest.raises(ValueError, match=r"`vector` must have the shapes \(\(4, 4\), \(4,\), "):
        rd.theory.gradient_covariance_product(rnn, target, loss, target)
    with pytest.raises(TypeError, match="`loss` must be a SampledLoss, but is PopulationLoss"):
        rd.theory.minibatch_loss(rnn, target, rd.PopulationLoss(), 0.1, 3)
