"""Learning under finite horizons and sampled noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import parameters, relative

import rnn_dynamics as rd

TARGET = functools.cache(lambda: rd.leaky_integrator(0.0))
RNN = functools.cache(lambda: rd.random_rnn(jax.random.key(0), 6, 0.2))
NOISY = rd.SampledLoss(4.0, 0.1, 4)


def descend(loss, rnn=None, num_steps=40, **options):
    options = {"optimizer": optax.sgd(0.05), "record_every": 20} | options
    return rd.gradient_descent(
        RNN() if rnn is None else rnn, TARGET(), loss=loss, num_steps=num_steps, **options
    )


def test_a_perfect_integrator_is_learned_over_a_horizon():
    found = rd.gradient_flow(
        RNN(), TARGET(), [0.0, 5.0, 200.0], loss=rd.PopulationLoss(5.0), rtol=1e-9, atol=1e-12
    )
    assert int(found.status) == rd.Status.ok
    assert float(found.loss[-1]) < 1e-6 * float(found.loss[0])
    # any network whose impulse response is 1 up to the horizon will do; with few weights it is that
    # of one eigenvalue 1
    assert float(jnp.max(found.eigenvalues[-1].real)) == pytest.approx(1, abs=0.02)
    assert float(found.conserved_drift[-1]) < 1e-8  # the symmetry is that of every horizon


def test_an_unstable_network_learns_over_a_finite_horizon():
    rnn = rd.random_rnn(jax.random.key(1), 6, 1.5)
    assert float(jnp.max(rnn.eigenvalues().real)) > 1
    found = descend(rd.PopulationLoss(4.0), rnn=rnn, optimizer=optax.sgd(0.005))
    assert int(found.status) == rd.Status.ok
    assert float(found.loss[-1]) < 0.5 * float(found.loss[0])


@pytest.mark.core
def test_descent_on_sampled_noise_is_the_loop_that_it_says():
    key = jax.random.key(5)
    found = descend(NOISY, key=key)
    rnn, seen = RNN(), []
    for step in range(41):
        own = jax.random.fold_in(key, step)
        _, gradient = NOISY.value_and_grad(rnn, TARGET(), own)
        if step % 20 == 0:
            exact = NOISY.expected.value_and_grad(rnn, TARGET())
            seen.append((exact[0], relative(parameters(gradient), parameters(exact[1]))))
        if step < 40:
            rnn = jax.tree.map(lambda x, g: x - 0.05 * g, rnn, gradient)
    assert relative(parameters(found.rnn), parameters(rnn)) < 1e-13
    assert relative(found.loss, [loss for loss, _ in seen]) < 1e-12
    assert relative(found.gradient_error, [error for _, error in seen]) < 1e-10


def test_keys_and_steps_have_noise_of_their_own():
    first, again = (descend(NOISY, key=jax.random.key(5)) for _ in range(2))
    np.testing.assert_array_equal(first.loss, again.loss)
    other = descend(NOISY, key=jax.random.key(6))
    assert relative(other.loss[1:], first.loss[1:]) > 1e-3
    rests = descend(NOISY, rnn=first.rnn, num_steps=1, record_every=1, key=jax.random.key(5))
    # the same network and key meet other noise at step 0 than at step 40
    assert relative(rests.gradient_error[0], first.gradient_error[-1]) > 1e-3


def test_sampled_noise_scatters_around_the_population_curve():
    keys = jax.random.split(jax.random.key(7), 64)
    losses = jax.vmap(lambda key: descend(NOISY, key=key).loss[-1])(keys)
    expected = float(descend(NOISY.expected).loss[-1])
    relative_scatter = float(jnp.std(losses)) / expected
    assert 0.01 < relative_scatter < 1
    # a bias of second order in the noise is expected; it is far below the loss's fall from its
    # start
    assert abs(float(jnp.mean(losses)) - expected) < 0.2 * float(descend(NOISY.expected).loss[0])


@pytest.mark.parametrize(
    "loss", [rd.PopulationLoss(5.0, time_step=2.5), rd.SampledLoss(5.0, 2.5, 2)]
)
def test_a_time_step_above_the_limit_of_the_scheme_is_a_status(loss):
    found = descend(loss, key=jax.random.key(0), num_steps=2, record_every=1)
    assert int(found.status) == rd.Status.unstable
    assert np.isnan(found.loss).all()
    np.testing.assert_array_equal(parameters(found.rnn), parameters(RNN()))


def test_losses_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match="`loss` must be a PopulationLoss for a gradient flow"):
        rd.gradient_flow(RNN(), TARGET(), [0.0, 1.0], loss=NOISY)
    with pytest.raises(ValueError, match="Argument `key` must be a random key for sampled noise"):
        descend(NOISY)
    with pytest.raises(ValueError, match="`target` must be stable for an infinite horizon"):
        descend(rd.PopulationLoss())
