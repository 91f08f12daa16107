"""What a trajectory prints: a failure as one, noise as noise, a batch by its counts."""

import jax
import jax.numpy as jnp
import optax
import pytest

import rnn_dynamics as rd

TARGET = rd.leaky_integrator(0.2)
RNN = rd.random_rnn(jax.random.key(0), 8, 0.3)


def descend(rnn=RNN, **options):
    return rd.gradient_descent(rnn, TARGET, **{"num_steps": 50, "record_every": 10} | options)


@pytest.mark.core
def test_a_descent_that_fails_says_when_and_what_may_help():
    first, loss, *_ = str(descend(learning_rate=5.0)).splitlines()
    assert first == (
        "Trajectory of 8 units, unstable after record 1 of 6 (before learning time 50): "
        "a smaller learning rate may help"
    )
    assert "->" not in loss  # there is one record
    counted = str(descend(optimizer=optax.sgd(5.0)))
    assert "unstable after record 1 of 6 (before step 10): a smaller learning rate" in counted
    schedule = optax.piecewise_constant_schedule(0.1, {25: 100.0})
    later = str(descend(learning_rate=schedule))
    assert "after record 3 of 6 (before learning time 52.5): a smaller" in later
    assert "->" in later.splitlines()[1]


def test_a_descent_that_goes_well_says_so():
    text = str(descend(learning_rate=0.1))
    assert text.startswith("Trajectory of 8 units, 6 records to learning time 5: ok\n")
    assert "relative error" in text
    assert "6 records to step 50: ok\n" in str(descend(optimizer=optax.adam(0.01)))


def test_a_start_that_fails_says_so():
    unstable = rd.random_rnn(jax.random.key(0), 8, 2.5)
    for got in (
        descend(unstable, learning_rate=0.1),
        rd.gradient_flow(unstable, TARGET, jnp.linspace(0.0, 1.0, 6)),
    ):
        assert str(got) == "Trajectory of 8 units, unstable at the start, before record 1 of 6"
    both = jax.tree.map(lambda *x: jnp.stack(x), unstable, RNN)
    flows = jax.vmap(lambda rnn: rd.gradient_flow(rnn, TARGET, jnp.linspace(0.0, 1.0, 6)))(both)
    assert str(flows).splitlines()[0].endswith("1 ok, 1 unstable")


def test_a_flow_that_fails_says_what_may_help():
    text = str(rd.gradient_flow(RNN, TARGET, [0.0, 0.01, 50.0], max_steps=20))
    assert "max steps after record 2 of 3 (before learning time 50): a larger `max_steps`" in text
    assert "learning rate" not in text
    late = str(rd.gradient_flow(RNN, TARGET, [50.0, 60.0], max_steps=5))
    assert "max steps before record 1 of 2 (before learning time 50): a larger `max_steps`" in late


def test_sampled_noise_is_not_called_an_error():
    noisy = rd.SampledLoss(4.0, 0.1, 2)
    text = str(descend(loss=noisy, learning_rate=0.1, key=jax.random.key(0)))
    assert "relative noise" in text
    assert "error" not in text


@pytest.mark.core
def test_a_batch_says_how_many_members_have_which_status():
    rates = jnp.array([[0.1, 0.2, 5.0], [0.05, 9.0, 7.0]])
    learn = jax.vmap(jax.vmap(lambda rate: descend(learning_rate=rate, stop=rd.Stop(loss=0.05))))
    text = str(learn(rates))
    assert text.splitlines()[0] == (
        "Trajectories of 2 x 3 members of 8 units, 6 records to learning time 2.5 to 450: "
        "3 ok, 3 unstable, 2 stopped by loss; a smaller learning rate may help"
    )
    assert " at their last records" in text
    seen = []
    jax.vmap(lambda rate: seen.append(str(descend(learning_rate=rate))))(rates[0])
    assert seen == ["Trajectory of shape (6,)"]
