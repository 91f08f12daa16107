"""Networks of nonlinear units: activations, gains, simulation and its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import erf
from support import parameters, relative

import rnn_dynamics as rd

DT = 0.1
RNN = functools.cache(lambda: rd.random_rnn(jax.random.key(0), 5, 0.9))
WIDE = functools.cache(
    lambda: rd.random_rnn(jax.random.key(1), 5, 0.9, num_inputs=2, num_outputs=3)
)


def nonlinear(rnn, activation=jnp.tanh, gain=None):
    return rd.NonlinearRNN(rnn.W, rnn.u, rnn.v, activation, gain)


def inputs(rnn, *shape):
    channels = rnn.u.shape[1:]
    return jax.random.normal(jax.random.key(2), (*shape, *channels)) / DT**0.5


@jax.jit
def plain(network, x):
    """The page of code that a network stands for: a scan over time of each trial, (B, T[, m])."""
    u, v = (weights.reshape(network.num_units, -1) for weights in (network.u, network.v))

    def step(h, x):
        h = h + DT * (network.W @ network.activation(h) - h + u @ x)
        return h, v.T @ network.activation(h)

    def trial(x):
        return jax.lax.scan(step, jnp.zeros(network.num_units), x)[1]

    y = jax.vmap(trial)(x.reshape(*x.shape[:2], -1))
    return y if network.v.ndim == 2 else y[:, :, 0]


@pytest.mark.core
@pytest.mark.parametrize("make", [RNN, WIDE])
@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.sigmoid])
@pytest.mark.parametrize("num", [1, 2, 13])
def test_outputs_and_gradients_are_those_of_a_plain_loop(make, activation, num):
    network = nonlinear(make(), activation)
    x = inputs(network, 3, num)
    weights = jax.random.normal(jax.random.key(3), plain(network, x).shape)

    def loss(simulate):
        return lambda network, x: jnp.sum(weights * jnp.sin(simulate(network, x)))

    found = jax.value_and_grad(loss(lambda n, x: n.simulate(x, DT)), argnums=(0, 1))(network, x)
    expected = jax.value_and_grad(loss(plain), argnums=(0, 1))(network, x)
    # sums of a few dozen terms of order 1, in another order
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(one - other) <= 1e-12 * np.linalg.norm(other)


def test_trials_may_have_any_axes():
    for make, outputs in ((RNN, ()), (WIDE, (3,))):
        network = nonlinear(make())
        x = inputs(network, 2, 3, 7)
        y = network.simulate(x, DT)
        assert y.shape == (2, 3, 7, *outputs)
        assert relative(y[1, 2], network.simulate(x[1, 2], DT)) < 1e-14


def test_the_derivative_of_the_gradient_is_that_of_differences():
    network, x = nonlinear(RNN()), inputs(RNN(), 2, 9)
    slope = jax.grad(lambda n: jnp.sum(n.simulate(x, DT) ** 2))
    move = jax.tree.map(jnp.ones_like, network)
    _, found = jax.jvp(slope, (network,), (move,))
    step = 1e-5  # differences are off by its square, and by eps over it
    ahead, behind = (
        slope(jax.tree.map(lambda x, d, s=s: x + s * step * d, network, move)) for s in (1, -1)
    )
    expected = (parameters(ahead) - parameters(behind)) / (2 * step)
    assert relative(parameters(found), expected) < 1e-8


@pytest.mark.core
@pytest.mark.parametrize("activation", [jnp.tanh, erf])
def test_no_gain_is_a_linear_network(activation):
    slope = float(jax.grad(activation)(0.0))
    linear = rd.LinearRNN(slope * RNN().W, RNN().u, slope * RNN().v)
    x = inputs(RNN(), 4, 30)
    for gain in (0.0, 1e-200, 1e-5):  # tanh(g h)/g differs by (g h)²
        y = nonlinear(RNN(), activation, gain).simulate(x, DT)
        assert relative(y, linear.simulate(x, DT)) < 1e-8


def test_a_gain_of_one_is_the_activation_and_a_gain_scales_states():
    x = inputs(RNN(), 4, 30)
    plain_one = nonlinear(RNN()).simulate(x, DT)
    assert relative(nonlinear(RNN(), gain=1.0).simulate(x, DT), plain_one) < 1e-14
    # g h obeys the equation of gain 1 with inputs g x
    found = nonlinear(RNN(), gain=0.4).simulate(x, DT)
    assert relative(0.4 * found, nonlinear(RNN()).simulate(0.4 * x, DT)) < 1e-13


def test_gains_are_one_program_and_are_not_trained():
    x = inputs(RNN(), 4, 30)

    def outputs(gain):
        return nonlinear(RNN(), gain=gain).simulate(x, DT)

    gains = jnp.array([0.0, 0.3, 1.0])
    for y, gain in zip(jax.jit(jax.vmap(outputs))(gains), gains, strict=True):
        assert relative(y, outputs(gain)) < 1e-13
    slope = jax.grad(lambda n: jnp.sum(n.simulate(x, DT)))(nonlinear(RNN(), gain=0.3))
    assert slope.gain == 0


def test_memory_is_a_tenth_of_that_of_a_plain_scan():
    """XLA's own count for 32 units, 16 trials and 400 steps."""
    rnn = rd.random_rnn(jax.random.key(0), 32, 0.3)
    network, x = nonlinear(rnn), inputs(rnn, 16, 400)

    def scan(network, x):
        def step(h, x):
            drive = jnp.tanh(h) @ network.W.T + x[:, None] * network.u[None]
            h = h + DT * (drive - h)
            return h, jnp.tanh(h) @ network.v

        return jax.lax.scan(step, jnp.zeros((len(x), 32)), x.T)[1].T

    def temporary(simulate):
        slope = jax.grad(lambda n: jnp.sum(simulate(n, x) ** 2))
        return jax.jit(slope).lower(network).compile().memory_analysis().temp_size_in_bytes

    assert temporary(lambda n, x: n.simulate(x, DT)) < temporary(scan) / 10


def test_the_linearised_network_has_mean_slopes():
    network, x = nonlinear(WIDE()), 0.3 * inputs(WIDE(), 2, 11)
    states = []
    for trial in x:
        h = jnp.zeros(5)
        for now in trial:
            h = h + DT * (network.W @ jnp.tanh(h) - h + network.u @ now)
            states.append(h)
    slopes = np.mean(1 - np.tanh(np.array(states)) ** 2, axis=0)
    found = network.linearised(x, DT)
    assert relative(found.W, network.W * slopes[None, :]) < 1e-13
    assert relative(found.v, network.v * slopes[:, None]) < 1e-13
    assert np.array_equal(found.u, network.u)
    linear = nonlinear(RNN(), gain=0.0).linearised(inputs(RNN(), 2, 11), DT)
    assert relative(parameters(linear), parameters(RNN())) < 1e-14


def test_single_precision_stays_single():
    network = nonlinear(RNN(), gain=1e-3).astype(jnp.float32)
    y = network.simulate(inputs(RNN(), 4, 30), DT)
    assert y.dtype == network.gain.dtype == jnp.float32
    exact = nonlinear(RNN(), gain=1e-3).simulate(inputs(RNN(), 4, 30), DT)
    assert relative(y, exact) < 1e-5


@pytest.mark.parametrize(
    ("activation", "error", "message"),
    [
        ("tanh", TypeError, "must be a function, but is 'tanh'"),
        ([jnp.tanh], TypeError, "must be a function, but is "),
        (np.tanh, TypeError, "elementwise function that JAX can differentiate, but tanh raised"),
        (lambda x: x @ x, TypeError, "elementwise function that JAX can differentiate, but"),
        (jax.nn.softmax, ValueError, "must be elementwise, but is softmax"),
        (lambda x: x - jnp.mean(x), ValueError, "must be elementwise"),
        (jnp.sum, ValueError, "must keep shape and dtype, but is sum"),
        (lambda x: x.astype(jnp.float32), ValueError, "must keep shape and dtype"),
        (jnp.sign, ValueError, "must have a derivative that is not 0, but is sign"),
        (jnp.sqrt, ValueError, "must be finite with its derivative everywhere, but is sqrt"),
    ],
)
def test_what_is_no_elementwise_differentiable_function_is_refused(activation, error, message):
    with pytest.raises(error, match=f"Argument `activation` .*{message}"):
        nonlinear(RNN(), activation)


def test_other_arguments_that_make_no_sense_are_refused():
    with pytest.raises(
        ValueError, match=r"`activation` must be 0 at 0 beside a `gain`, but is 0.5"
    ):
        nonlinear(RNN(), jax.nn.sigmoid, 1.0)
    with pytest.raises(ValueError, match="Argument `gain` must be positive or zero, but is -1"):
        nonlinear(RNN(), gain=-1.0)
    with pytest.raises(ValueError, match="Argument `x` must have shape"):
        nonlinear(WIDE()).simulate(jnp.ones((3, 7)), DT)
    with pytest.raises(ValueError, match="Argument `time_step` must be positive, but is 0"):
        nonlinear(RNN()).simulate(jnp.ones((3, 7)), 0.0)


def test_networks_are_made_inside_of_programs():
    made = jax.jit(lambda W: nonlinear(rd.LinearRNN(W, RNN().u, RNN().v), lambda x: x / (1 + x**2)))
    assert relative(made(RNN().W).W, RNN().W) == 0
