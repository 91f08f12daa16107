"""Descent by any optimiser: learning time is the sum of the rates that are declared."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import parameters, relative

import rnn_dynamics as rd

TARGET = rd.leaky_integrator(0.2)
RNN = rd.random_rnn(jax.random.key(0), 6, 0.3)
PIECEWISE = optax.piecewise_constant_schedule(0.1, {50: 0.1})


def descend(rnn=RNN, **options):
    return rd.gradient_descent(rnn, TARGET, **{"num_steps": 200, "record_every": 50} | options)


@pytest.mark.core
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (0.1, np.full(200, 0.1)),
        (np.float32(0.5), np.full(200, 0.5)),
        (PIECEWISE, np.where(np.arange(200) < 50, 0.1, 0.01)),
        (lambda k: jnp.asarray([0.1, 0.02, 0.0])[k % 3], np.resize([0.1, 0.02, 0.0], 200)),
        (lambda k: 1 / (k + 10), 1 / (np.arange(200) + 10)),
    ],
)
def test_learning_time_is_the_sum_of_the_declared_rates(schedule, rates):
    """Whatever the optimiser; without a declared rate records count steps."""
    expected = np.append(0, np.cumsum(rates))[[0, 50, 100, 150, 200]]
    for optimizer in (None, optax.adam(1e-3)):
        got = descend(optimizer=optimizer, learning_rate=schedule)
        np.testing.assert_allclose(got.train_time, expected, rtol=1e-14)
    np.testing.assert_array_equal(
        descend(optimizer=optax.sgd(0.01)).train_time, [0, 50, 100, 150, 200]
    )


def test_many_small_rates_of_float32_are_summed_without_loss():
    """Naive sums of float32 are off by 1e-4 here, and by more the longer they get."""
    rnn = rd.random_rnn(jax.random.key(0), 2, 0.1, dtype=jnp.float32)
    steps = 20_000
    schedule = optax.cosine_decay_schedule(3e-4, steps)
    got = descend(rnn, learning_rate=schedule, num_steps=steps, record_every=steps // 4)
    exact = 3e-4 * (1 + np.cos(np.pi * np.arange(steps) / steps)) / 2
    wanted = np.append(0, np.cumsum(exact))[:: steps // 4]
    assert got.train_time.dtype == jnp.float32
    np.testing.assert_allclose(got.train_time, wanted, rtol=3e-7)


def test_a_learning_rate_without_an_optimizer_is_plain_descent():
    # above 8 decay³ = 0.064 steps end in chaos, where rounding tells
    for schedule in (0.03, optax.piecewise_constant_schedule(0.05, {50: 0.1})):
        plain = descend(learning_rate=schedule)
        same = descend(optimizer=optax.sgd(schedule), learning_rate=schedule)
        assert relative(parameters(plain.rnn), parameters(same.rnn)) < 1e-10
        np.testing.assert_array_equal(plain.train_time, same.train_time)


def test_rates_and_what_is_in_a_schedule_may_be_traced():
    start, decay = jnp.array([0.05, 0.1]), jnp.array([0.99, 0.98])

    @jax.jit
    @jax.vmap
    def learn(start, decay):
        one = descend(learning_rate=start)
        falling = descend(learning_rate=lambda k: start * decay ** k.astype(float))
        return one.train_time, falling.train_time, falling.loss

    constant, falling, loss = learn(start, decay)
    np.testing.assert_allclose(constant, np.outer(start, np.arange(0, 201, 50)), rtol=1e-14)
    for index in range(2):
        rates = float(start[index]) * float(decay[index]) ** np.arange(200)
        np.testing.assert_allclose(falling[index, -1], rates.sum(), rtol=1e-12)
        alone = descend(learning_rate=lambda k, r=rates: jnp.asarray(r)[k])
        np.testing.assert_allclose(loss[index], alone.loss, rtol=1e-9)


OPTIMIZERS = {
    "lbfgs": optax.lbfgs(),
    "polyak": optax.polyak_sgd(),
    "clipped": optax.chain(optax.clip_by_global_norm(0.5), optax.lbfgs()),
    "backtracking": optax.chain(
        optax.sgd(1.0), optax.scale_by_backtracking_linesearch(15, store_grad=True)
    ),
    "plateau": optax.chain(optax.adam(0.02), optax.contrib.reduce_on_plateau()),
    "injected": optax.inject_hyperparams(optax.adam)(optax.cosine_decay_schedule(0.02, 40)),
    "accumulated": optax.MultiSteps(optax.sgd(0.1), 2),
    "noisy": optax.noisy_sgd(0.1, 1e-6, key=0),
}


@pytest.mark.core
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_transformation_of_optax_trains(name):
    got = descend(optimizer=OPTIMIZERS[name], num_steps=40, record_every=20)
    assert int(got.status) == rd.Status.ok
    assert float(got.loss[-1]) < 0.2 * float(got.loss[0])


@pytest.mark.parametrize("name", ["lbfgs", "polyak", "injected", "clipped"])
def test_any_transformation_of_optax_trains_in_float32(name):
    got = descend(RNN.astype(jnp.float32), optimizer=OPTIMIZERS[name], num_steps=40)
    assert got.loss.dtype == got.rnn.W.dtype == jnp.float32
    assert int(got.status) == rd.Status.ok
    assert float(got.loss[-1]) < 0.2 * float(got.loss[0])


@pytest.mark.parametrize("make", [optax.lbfgs, optax.polyak_sgd])
def test_the_extra_arguments_are_the_loss_and_its_gradient(make):
    """The same steps as by hand, with the loss of the package as any other function."""
    rnn, optimizer, loss = RNN, make(), rd.PopulationLoss()
    state = optimizer.init(rnn)
    with jax.numpy_dtype_promotion("standard"):
        for _ in range(6):
            value, gradient = loss.value_and_grad(rnn, TARGET)
            updates, state = optimizer.update(
                *(gradient, state, rnn),
                value=value,
                grad=gradient,
                value_fn=lambda rnn: loss(rnn, TARGET),
            )
            rnn = optax.apply_updates(rnn, updates)
    got = descend(optimizer=optimizer, num_steps=6)
    assert relative(parameters(got.rnn), parameters(rnn)) < 1e-8


def test_a_line_search_follows_the_rates():
    """Frozen parameters stay, the others are trained, and no step of a line search goes up."""
    rates = rd.Rates(W=1.0, u=0.0, v=0.25)
    got = descend(optimizer=optax.lbfgs(), num_steps=30, record_every=1, rates=rates)
    np.testing.assert_array_equal(got.rnn.u, RNN.u)
    assert float(got.loss[-1]) < 1e-2 * float(got.loss[0])
    assert np.all(np.diff(got.loss) <= 1e-7 * float(got.loss[0]))


def test_a_line_search_on_noise_and_of_a_batch():
    keys = jax.random.split(jax.random.key(1), 2)
    noisy = rd.SampledLoss(4.0, 0.1, 64)

    @jax.jit
    @jax.vmap
    def learn(key):
        rnn = rd.random_rnn(key, 6, 0.3)
        return descend(rnn, loss=noisy, key=key, optimizer=optax.lbfgs(), num_steps=10)

    got = learn(keys)
    assert (got.status == rd.Status.ok).all()
    assert (got.loss[:, -1] < 0.3 * got.loss[:, 0]).all()
