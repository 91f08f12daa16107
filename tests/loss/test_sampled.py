import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from support import parameters, relative

import rnn_dynamics as rd

WEIGHTINGS = ("time_averaged", "uniform")
RNN = functools.cache(lambda: rd.random_rnn(jax.random.key(0), 5, 0.5))
TARGET = functools.cache(lambda: rd.damped_oscillator(0.3, 1.0))


def backpropagation(rnn, target, noise, dt, weighting):
    """The page of code that the loss stands for: all trials through time, differentiated by JAX."""

    def outputs(rnn):
        def step(h, x):
            h = h + dt * (h @ rnn.W.T - h + x[:, None] * rnn.u[None, :])
            return h, h @ rnn.v

        return jax.lax.scan(step, jnp.zeros((len(noise), rnn.num_units)), noise.T)[1]

    def loss(rnn):
        errors = outputs(rnn) - outputs(target)
        return jnp.mean((errors if weighting == "time_averaged" else errors[-1]) ** 2) / 2

    return jax.value_and_grad(loss)(rnn)


@pytest.mark.core
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize(("batch", "num"), [(6, 23), (1, 1)])
def test_loss_and_gradient_are_those_of_backpropagation_through_time(weighting, batch, num):
    loss, key = rd.SampledLoss(num * 0.1, 0.1, batch, weighting), jax.random.key(1)
    value, gradient = loss.value_and_grad(RNN(), TARGET(), key)
    expected, slope = backpropagation(RNN(), TARGET(), loss.noise(key), 0.1, weighting)
    assert relative(value, expected) < 1e-12  # of a Fourier transform of a few dozen numbers
    assert relative(parameters(gradient), parameters(slope)) < 1e-12
    assert relative(loss(RNN(), TARGET(), key), expected) < 1e-12
    own = jax.grad(loss)(RNN(), TARGET(), key)
    assert relative(parameters(own), parameters(slope)) < 1e-12


def many(loss, seed, num):
    """Gradients of `num` independent minibatches, (num, N² + 2N)."""
    keys = jax.random.split(jax.random.key(seed), num)
    gradients = jax.jit(jax.vmap(lambda key: loss.value_and_grad(RNN(), TARGET(), key)[1]))(keys)
    leaves = jax.tree.leaves(gradients)
    return np.concatenate([np.asarray(x).reshape(num, -1) for x in leaves], axis=1)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_gradient_is_an_unbiased_estimate_and_its_error_falls_as_the_root_of_the_batch(
    weighting,
):
    exact = parameters(
        rd.SampledLoss(3.0, 0.1, 1, weighting).expected.value_and_grad(RNN(), TARGET())[1]
    )
    scatter = []
    for seed, batch in ((10, 4), (11, 64)):
        found = many(rd.SampledLoss(3.0, 0.1, batch, weighting), seed, 4000)
        z = (found.mean(0) - exact) / (found.std(0, ddof=1) / math.sqrt(len(found)))
        # a chance of 1e-3 that any of all components, two batch sizes and two weightings exceeds
        # this by luck
        assert np.max(abs(z)) < stats.norm.isf(1e-3 / (2 * z.size * 4))
        # and the estimate is sharp enough to see a bias of a tenth of the gradient
        assert np.linalg.norm(found.std(0)) / math.sqrt(4000) < 0.03 * np.linalg.norm(exact)
        scatter.append(np.linalg.norm(found.std(0, ddof=1)))
    # each scatter is of 4000 draws of heavy-tailed products: known to a few per cent
    assert scatter[0] / scatter[1] == pytest.approx(4, rel=0.1)


def test_the_mean_loss_is_the_population_loss_of_the_euler_network():
    loss = rd.SampledLoss(2.0, 0.1, 400)
    keys = jax.random.split(jax.random.key(5), 50)
    values = np.array([float(loss(RNN(), TARGET(), key)) for key in keys])
    expected = float(rd.PopulationLoss(2.0, "time_averaged", 0.1)(RNN(), TARGET()))
    error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - expected) < 4 * error
    assert error < 0.03 * expected


def test_noise_is_white_of_variance_one_over_the_time_step():
    noise = np.asarray(rd.SampledLoss(10.0, 0.05, 200).noise(jax.random.key(0)))
    assert noise.shape == (200, 200)
    assert noise.var() * 0.05 == pytest.approx(1, abs=4 * math.sqrt(2 / noise.size))
    along = np.mean(noise[:, 1:] * noise[:, :-1]) * 0.05
    across = np.mean(noise[1:] * noise[:-1]) * 0.05
    assert max(abs(along), abs(across)) < 4 / math.sqrt(noise.size)


def test_memory_does_not_grow_as_batch_times_time_times_units():
    """XLA's own count for 64 units, 64 trials and 256 steps, where states of all trials would take
    8 MB.
    """
    rnn, target = rd.random_rnn(jax.random.key(0), 64, 0.3), rd.leaky_integrator(0.2)

    def temporary(loss):
        call = jax.jit(lambda rnn, key: loss.value_and_grad(rnn, target, key))
        return call.lower(rnn, jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes

    sizes = [
        temporary(rd.SampledLoss(num / 8, 1 / 8, batch)) for num, batch in ((256, 64), (256, 1))
    ]
    states = 8 * 256 * 64 * 64
    noise, states_of_one = 8 * 256 * 64, 8 * 256 * 64
    assert sizes[0] < 12 * noise + 6 * states_of_one < states / 2
    assert sizes[0] - sizes[1] < 12 * noise


def test_the_gradients_error_is_that_of_the_noise():
    loss, key = rd.SampledLoss(3.0, 0.1, 8), jax.random.key(3)
    value, gradient, error = loss.gradient_and_error(RNN(), TARGET(), key)
    exact_value, exact = loss.expected.value_and_grad(RNN(), TARGET())
    _, sampled = loss.value_and_grad(RNN(), TARGET(), key)
    assert value == exact_value
    assert relative(parameters(gradient), parameters(exact)) == 0
    assert relative(error, relative(parameters(sampled), parameters(exact))) < 1e-12


def test_single_precision_stays_single():
    rnn = RNN().astype(jnp.float32)
    value, gradient = rd.SampledLoss(3.0, 0.1, 8).value_and_grad(rnn, TARGET(), jax.random.key(0))
    assert value.dtype == gradient.W.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0, 0.1, 4), ValueError, "Argument `horizon` must be positive, but is 0.0"),
        ((math.inf, 0.1, 4), ValueError, "Argument `horizon` must be finite, but is inf"),
        ((1.0, -0.1, 4), ValueError, "Argument `time_step` must be positive, but is -0.1"),
        ((1.0, None, 4), TypeError, "Argument `time_step` must be a real number, but is None"),
        ((1.0, 0.3, 4), ValueError, "Argument `horizon` must be a whole number of time steps"),
        ((1.0, 0.1, 0), ValueError, "Argument `batch_size` must be at least 1, but is 0"),
        ((1.0, 0.1, 2.5), TypeError, "Argument `batch_size` must be an integer, but is 2.5"),
        ((1.0, 0.1, 4, "mean"), ValueError, "Argument `weighting` must be one of"),
    ],
)
def test_sampling_that_makes_no_sense_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        rd.SampledLoss(*arguments)


def test_a_key_and_a_number_of_steps_are_asked_for_where_they_are_needed():
    loss = rd.SampledLoss(1.0, 0.1, 4)
    for call in (loss, loss.value_and_grad, loss.gradient_and_error):
        with pytest.raises(ValueError, match="Argument `key` must be a random key"):
            call(RNN(), TARGET())
    with pytest.raises(ValueError, match="Argument `num_steps` must be given where"):
        jax.jit(lambda T: rd.SampledLoss(T, 0.1, 4)(RNN(), TARGET(), jax.random.key(0)))(1.0)
    traced = jax.jit(
        lambda T: rd.SampledLoss(T, 0.1, 4, num_steps=10)(RNN(), TARGET(), jax.random.key(0))
    )
    assert relative(traced(1.0), loss(RNN(), TARGET(), jax.random.key(0))) < 1e-14
