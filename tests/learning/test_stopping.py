import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import parameters

import rnn_dynamics as rd

TARGET = functools.cache(lambda: rd.leaky_integrator(0.3))
RNN = functools.cache(lambda: rd.random_rnn(jax.random.key(0), 6, 0.2))


def descend(stop=rd.Stop(), num_steps=200, rnn=None):
    return rd.gradient_descent(
        RNN() if rnn is None else rnn,
        TARGET(),
        learning_rate=0.05,
        num_steps=num_steps,
        record_every=10,
        stop=stop,
    )


def test_a_network_rests_from_the_record_at_which_its_loss_is_small_enough():
    full = descend()
    value = float(full.loss[7]) * 1.0001
    stopped = descend(rd.Stop(loss=value))
    assert int(stopped.stop_reason) == rd.StopReason.loss
    assert int(stopped.num_records) == 8
    assert int(stopped.status) == rd.Status.ok
    np.testing.assert_array_equal(stopped.loss[:8], full.loss[:8])
    assert np.isnan(stopped.loss[8:]).all()
    assert np.isnan(stopped.eigenvalues[8:]).all()
    assert int(stopped.num_gradients[-1]) == 70
    final = descend(num_steps=70).rnn
    np.testing.assert_array_equal(parameters(stopped.rnn), parameters(final))
    assert "ok, stopped by loss at record 7" in str(stopped)
    assert int(full.stop_reason) == rd.StopReason.none
    assert int(full.num_records) == 21


def test_a_network_rests_once_its_learning_time_is_reached():
    stopped = descend(rd.Stop(train_time=4.3))  # records at 0, 0.5, 1, …
    assert int(stopped.stop_reason) == rd.StopReason.train_time
    assert float(stopped.train_time[int(stopped.num_records) - 1]) == pytest.approx(4.5)
    exact = descend(rd.Stop(train_time=4.5))
    assert int(exact.num_records) == int(stopped.num_records)


def test_a_network_rests_on_a_plateau():
    full = descend()
    stopped = descend(rd.Stop(plateau=0.5, patience=2))
    assert int(stopped.stop_reason) == rd.StopReason.plateau
    lowest, waited = np.inf, [0]
    for loss in np.asarray(full.loss):
        falls = loss <= 0.5 * lowest
        lowest, waited = (loss, [*waited, 0]) if falls else (lowest, [*waited, waited[-1] + 1])
    assert int(stopped.num_records) == waited.index(2)
    assert 2 < waited.index(2) < 21
    silent = rd.LinearRNN(RNN().W, 0 * RNN().u, 0 * RNN().v)  # without a gradient
    solved = descend(rd.Stop(plateau=0.01, patience=1), rnn=silent, num_steps=30)
    assert int(solved.num_records) == 2  # a loss that does not fall


def test_the_flow_rests_too_and_members_of_a_batch_rest_alone():
    times = jnp.linspace(0.0, 4.0, 9)
    rnns = jax.vmap(lambda key: rd.random_rnn(key, 4, 0.2))(jax.random.split(jax.random.key(1), 3))
    stops = jnp.array([1e-9, 0.2, 10.0])

    @jax.vmap
    def learn(rnn, value):
        return rd.gradient_flow(rnn, TARGET(), times, stop=rd.Stop(loss=value))

    found = learn(rnns, stops)
    assert found.stop_reason.tolist() == [0, rd.StopReason.loss, rd.StopReason.loss]
    assert int(found.num_records[0]) == 9
    assert 1 < int(found.num_records[1]) < 9
    assert int(found.num_records[2]) == 1
    first = int(found.num_records[1])
    assert float(found.loss[1, first - 1]) < 0.2 < float(found.loss[1, first - 2])
    same = jax.tree.map(lambda x: x[2], found.rnn)
    np.testing.assert_array_equal(parameters(same), parameters(jax.tree.map(lambda x: x[2], rnns)))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("loss", -1.0, "positive, but is -1.0"),
        ("train_time", 0.0, "positive, but is 0.0"),
        ("plateau", 1.5, "below 1, but is 1.5"),
        ("patience", 0.5, "at least 1, but is 0.5"),
        ("loss", np.array(-1.0), "positive, but is -1.0"),
    ],
)
def test_criteria_that_make_no_sense_are_refused(name, value, problem):
    with pytest.raises(ValueError, match=f"Argument `stop.{name}` must be {problem}"):
        rd.Stop(**{name: value})
