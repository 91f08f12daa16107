"""Optimisers from traced numbers are those of optax with plain ones, and so are the schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rnn_dynamics.learning import SCHEDULES, MakeOptimizer
from rnn_dynamics.sweep.config.optimizers import OPTIMIZERS

RATES, STEPS = (0.01, 0.02), 3
PARAMETERS = {"W": np.linspace(-1.0, 2.0, 6).reshape(2, 3), "u": np.array([0.5, -0.3])}


def gradient(parameters):
    return jax.tree.map(lambda x: x * x - x, parameters)


def expected(optimizer):
    with jax.numpy_dtype_promotion("standard"):  # optax mixes counts of steps with real numbers
        parameters = jax.tree.map(jnp.asarray, PARAMETERS)
        state = optimizer.init(parameters)
        for _ in range(STEPS):
            updates, state = optimizer.update(gradient(parameters), state, parameters)
            parameters = optax.apply_updates(parameters, updates)
    return parameters


def descended(make, dtype, **numbers):
    """All rates at once, as in a sweep: traced under vmap, steps in a loop that refuses a change of
    dtype.
    """

    def one(rate, numbers):
        optimizer = make(learning_rate=rate, **numbers)
        start = jax.tree.map(lambda x: jnp.asarray(x, dtype), PARAMETERS)

        def step(_, carry):
            parameters, state = carry
            updates, state = optimizer.update(gradient(parameters), state, parameters)
            return jax.tree.map(jnp.add, parameters, updates), state

        return jax.lax.fori_loop(0, STEPS, step, (start, optimizer.init(start)))[0]

    numbers = jax.tree.map(lambda x: jnp.asarray(x, dtype), numbers)
    return jax.jit(jax.vmap(one, (0, None)))(jnp.asarray(RATES, dtype), numbers)


@pytest.mark.core
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_with_all_of_its_arguments_in_either_precision(name):
    known = OPTIMIZERS[name]
    arguments = {key: 0.3 + 0.05 * index for index, key in enumerate(known.numbers)}
    if "threshold" in arguments:
        arguments["threshold"] = 5.0  # below 4, radam takes roots of negative numbers
    flags = dict.fromkeys(known.flags, True)
    make = MakeOptimizer(name, tuple(flags.items()))
    # rounding of float32; weights are of order 1
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        found = descended(make, dtype, arguments=arguments)
        for index, rate in enumerate(RATES):
            wanted = expected(getattr(optax, name)(rate, **arguments, **flags))
            for key in PARAMETERS:
                one = np.asarray(found[key][index])
                assert one.dtype == dtype
                np.testing.assert_allclose(one, wanted[key], atol=tolerance)
                assert (abs(one - PARAMETERS[key]) > 1e-6).any()


SCHEDULED = {
    "constant": ({}, optax.constant_schedule(1.0)),
    "linear": ({"end_factor": 0.2, "steps": 12.0}, optax.linear_schedule(1.0, 0.2, 12)),
    "cosine": ({"end_factor": 0.2, "steps": 12.0}, optax.cosine_decay_schedule(1.0, 12, 0.2)),
    "exponential": ({"factor": 0.3, "steps": 12.0}, optax.exponential_decay(1.0, 12, 0.3)),
    "warmup_cosine": (
        {"warmup_steps": 5.0, "end_factor": 0.2, "steps": 12.0},
        optax.warmup_cosine_decay_schedule(0.0, 1.0, 5, 12, 0.2),
    ),
}


@pytest.mark.core
@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules_are_those_of_optax(kind):
    parameters, theirs = SCHEDULED[kind]
    steps = np.arange(20.0)
    ours = np.array([SCHEDULES[kind].factor(jnp.asarray(k), **parameters) for k in steps])
    with jax.numpy_dtype_promotion("standard"):
        wanted = [float(theirs(int(k))) for k in steps]
    np.testing.assert_allclose(ours, wanted, rtol=1e-14, atol=1e-15)
    # the sums in closed form are those of the factors
    totals = SCHEDULES[kind].total(np.append(steps, 20.0), **parameters)
    np.testing.assert_allclose(totals, np.append(0, np.cumsum(ours)), rtol=1e-13, atol=1e-14)


def test_sums_of_long_and_constant_schedules():
    total = SCHEDULES["exponential"].total
    np.testing.assert_array_equal(total(np.array([0.0, 7.0]), factor=np.ones(2), steps=5), [0, 7])
    slow = total(np.array(3.0), factor=1 - 1e-15, steps=1e6)
    np.testing.assert_allclose(slow, 3.0, rtol=1e-14)
    warm = SCHEDULES["warmup_cosine"]
    np.testing.assert_allclose(warm.total(9.0, warmup_steps=0, end_factor=1.0, steps=4), 9.0)
    start = warm.factor(jnp.zeros(()), warmup_steps=0.0, end_factor=0.0, steps=4.0)
    assert float(start) == 1.0


@pytest.mark.parametrize("kind", SCHEDULES)
def test_an_optimizer_follows_its_schedule(kind):
    """Each step and each step's decay of the weights is that of the step's learning rate."""
    parameters, theirs = SCHEDULED[kind]
    make = MakeOptimizer("sgd", schedule=kind)
    found = descended(make, "float64", schedule=parameters, weight_decay=0.4)
    for index, rate in enumerate(RATES):
        wanted = PARAMETERS
        for step in range(STEPS):
            now = rate * float(theirs(step))
            wanted = {k: w - now * (w * w - w) - now * 0.4 * w for k, w in wanted.items()}
        for key in PARAMETERS:
            np.testing.assert_allclose(found[key][index], wanted[key], rtol=1e-14)
