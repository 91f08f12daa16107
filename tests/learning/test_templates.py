"""Equal optimisers and schedules share compiled programs, whatever their numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import rnn_dynamics as rd
from rnn_dynamics.learning.templates import take_apart

RNN, TARGET = rd.random_rnn(jax.random.key(0), 5, 0.3), rd.leaky_integrator(0.3)


@pytest.fixture
def compiled():
    """Counts the programs that are compiled."""
    count = [0]

    def listen(event, _seconds, **_):
        count[0] += "backend_compile" in event

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: count[0]
    jax.monitoring.unregister_event_duration_listener(listen)


def train(**options):
    options = {"num_steps": 20, "record_every": 10} | options
    return np.asarray(rd.gradient_descent(RNN, TARGET, **options).loss)


OPTIMIZERS = {
    "adam": lambda rate: optax.adam(rate),
    "chain": lambda rate: optax.chain(
        optax.clip_by_global_norm(100 * rate),
        optax.add_decayed_weights(0.1 * rate),
        optax.sgd(optax.warmup_cosine_decay_schedule(0.0, rate, 5, 20), momentum=0.9),
    ),
    "noisy": lambda rate: optax.noisy_sgd(rate, key=jax.random.key(3)),
    "own": lambda rate: optax.GradientTransformation(
        lambda _: (),
        functools.partial(
            lambda g, s, _=None, *, rate: (jax.tree.map(lambda x: -rate * x, g), s), rate=rate
        ),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_another_number_compiles_nothing(name, compiled):
    make = OPTIMIZERS[name]
    jax.clear_caches()
    found = {0.01: train(optimizer=make(0.01))}
    before = compiled()
    assert before > 0
    np.testing.assert_array_equal(train(optimizer=make(0.01)), found[0.01])
    found[0.02] = train(optimizer=make(0.02))
    assert compiled() == before
    assert abs(found[0.02] / found[0.01] - 1).max() > 1e-4
    # the same program, compiled for one rate alone
    jax.clear_caches()
    np.testing.assert_allclose(train(optimizer=make(0.02)), found[0.02], rtol=1e-12)


def test_schedules_share_programs_too(compiled):
    found = {}
    for rate in (0.01, 0.02):
        before = compiled()
        schedule = optax.cosine_decay_schedule(rate, 20)
        found[rate] = rd.gradient_descent(RNN, TARGET, learning_rate=schedule, num_steps=20)
    assert compiled() == before
    np.testing.assert_allclose(found[0.02].train_time, 2 * found[0.01].train_time, rtol=1e-12)
    alone = [float(optax.cosine_decay_schedule(0.02, 20)(step)) for step in range(20)]
    assert float(found[0.02].train_time[-1]) == pytest.approx(sum(alone), rel=1e-12)


def test_a_function_that_looks_at_its_numbers_is_compiled_with_them():
    def make(rate):
        def update(gradient, state, _=None):
            sign = -1.0 if rate > 0 else 1.0  # of a traced number, an error
            return jax.tree.map(lambda x: sign * abs(rate) * x, gradient), state

        return optax.GradientTransformation(lambda _: (), update)

    for rate in (0.01, 0.02):
        np.testing.assert_allclose(
            train(optimizer=make(rate)), train(learning_rate=rate), rtol=1e-12
        )


def test_what_differs_in_more_than_numbers_is_another_structure():
    def own(scale, flag=False, array=jnp.ones(2), other=None):
        return lambda x: (x * scale, flag, array, other)

    same, _ = take_apart(own(1.0))
    again, numbers = take_apart(own(2.0))
    assert same == again
    assert hash(same) == hash(again)
    assert numbers == (2.0,)
    assert same(numbers)(3.0)[0] == 6.0
    for different in (
        own(1),
        own(1.0, flag=True),
        own(1.0, array=jnp.zeros(2)),
        own(1.0, array=jnp.ones(3)),
        own(1.0, other=own(2.0)),
        own(1.0, other={"a": 1}),
        lambda x: x,
    ):
        assert take_apart(different)[0] != same
    assert take_apart(own(1.0), traced=False)[0] != take_apart(own(2.0), traced=False)[0]
    assert take_apart(own(1.0), traced=False)[0] == take_apart(own(1.0), traced=False)[0]


def test_functions_that_hold_themselves_are_taken_whole():
    def loop(n):
        return 0.5 if n == 0 else loop(n - 1)

    template, numbers = take_apart(loop)
    assert template(numbers)(3) == 0.5
    assert template == take_apart(loop)[0]


def test_an_optimizer_of_traced_numbers():
    rates = jnp.asarray([0.01, 0.02])
    both = jax.vmap(
        lambda rate: (
            rd.gradient_descent(
                RNN, TARGET, optimizer=optax.adam(rate), num_steps=20, record_every=10
            ).loss
        )
    )(rates)
    for found, rate in zip(both, rates, strict=True):
        np.testing.assert_allclose(found, train(optimizer=optax.adam(float(rate))), rtol=1e-9)
