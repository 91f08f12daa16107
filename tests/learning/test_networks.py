"""Training of networks of several channels and of structured networks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import relative

import rnn_dynamics as rd

KEY = jax.random.key(11)
TARGET = rd.damped_oscillator(0.4, 1.0)


def network_of(case):
    """The `LinearRNN` of a reference entry."""
    case = {name.lower(): case[name] for name in case if name.lower() in "wuv"}
    return rd.LinearRNN(*(np.asarray(case[name], float) for name in "wuv"))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_flows_of_several_channels(structured, index):
    case = structured["several_channels"][index]
    got = rd.gradient_flow(
        network_of(case),
        network_of(case["target"]),
        case["flow"]["train_time"],
        rtol=1e-10,
        method=rd.ode.TSIT5,
    )
    loss = np.asarray(case["flow"]["loss"])
    np.testing.assert_allclose(got.loss, loss, rtol=0, atol=1e-6 * loss[0])
    # U Uᵀ - V Vᵀ + W Wᵀ - Wᵀ W, at the tolerance of the integration
    assert np.max(got.conserved_drift) < 1e-10


@pytest.mark.parametrize("index", [0, 1])
def test_flows_of_low_rank_networks(structured, index):
    case = structured["low_rank"][index]
    network = rd.LowRankRNN(
        *(np.asarray(case[name], float) for name in ("input", "U", "readout", "V"))
    )
    N = float(len(network.U))

    def overlaps(network, _):
        readout = network.readout[:, None]
        vectors = [network.input[:, None], network.U, readout, network.V]
        all_ = jnp.concatenate(vectors, axis=1)
        return all_.T @ all_ / len(network.U)

    got = rd.gradient_flow(
        network,
        network_of(case["target"]),
        case["train_time"],
        rates=jax.tree.map(lambda _: N, network),
        observe={"overlaps": overlaps},
        method=rd.ode.TSIT5,
    )
    loss = np.asarray(case["loss"])
    np.testing.assert_allclose(got.loss, loss, rtol=0, atol=1e-6 * loss[0])
    np.testing.assert_allclose(got.observed["overlaps"], case["overlaps"], atol=1e-5)


def loss_of(network, target):
    """The loss of a small diagonal network by the integral of exponentials, in NumPy."""
    rows = np.r_[network[0], network[0].conj()], np.r_[network[1], network[1].conj()] / 2
    a, r = np.r_[rows[0], 1 - target[0]], np.r_[rows[1], -target[1]]
    return np.real(np.sum(np.outer(r, r) / (a[:, None] + a[None, :]))) / 2


def test_diagonal_networks_descend_by_real_and_imaginary_parts():
    network = rd.DiagonalRNN([0.5 + 0.3j, 0.8 - 0.2j], [0.3 + 0.1j, -0.2j])
    target = rd.leaky_integrator(0.3)
    poles = np.array([0.7]), np.array([1.0])
    x = np.asarray([network.decays, network.residues])
    for _ in range(3):
        slope = np.zeros_like(x)
        for index in np.ndindex(x.shape):
            for unit in (1, 1j):
                step = np.zeros_like(x)
                step[index] = 1e-6 * unit
                change = loss_of(x + step, poles) - loss_of(x - step, poles)
                slope[index] += unit * change / 2e-6
        x = x - 0.1 * slope
    got = rd.gradient_descent(network, target, learning_rate=0.1, num_steps=3, record_weights=True)
    assert float(got.loss[0]) == pytest.approx(
        loss_of(np.asarray([network.decays, network.residues]), poles)
    )
    # central differences of step 1e-6 are exact to 1e-10
    np.testing.assert_allclose([got.network.decays, got.network.residues], x, atol=1e-9)
    assert got.weights.decays.shape == (4, 2)
    assert got.eigenvalues.shape == (4, 4)
    assert got.network.decays.dtype == jnp.complex128
    flow = rd.gradient_flow(network, target, [0.0, 40.0], method=rd.ode.TSIT5)
    assert float(flow.loss[-1]) < 0.1 * float(flow.loss[0])


def test_stacks_learn_layer_by_layer_rates():
    def positive(stack):
        return eqx.tree_at(lambda s: s.layers[1].u, stack, replace_fn=jnp.abs)

    keys = jax.random.split(KEY, 2)
    stack = positive(rd.StackedRNN([rd.random_rnn(key, 5, 0.4) for key in keys]))
    rates = jax.tree.map(lambda _: 1.0, stack)
    rates = eqx.tree_at(lambda r: r.layers[0], rates, jax.tree.map(lambda _: 0, rates.layers[0]))
    mask = np.ones((5, 5)) - np.eye(5)
    rates = eqx.tree_at(lambda r: r.layers[1].W, rates, mask)
    got = rd.gradient_descent(
        stack,
        TARGET,
        learning_rate=0.1,
        num_steps=10,
        record_every=10,
        rates=rates,
        project=positive,
    )
    assert np.all(got.network.layers[1].u >= 0)
    assert got.loss[1] < got.loss[0]
    for before, after in zip(
        jax.tree.leaves(stack.layers[0]), jax.tree.leaves(got.network.layers[0]), strict=True
    ):
        np.testing.assert_array_equal(after, before)
    change = np.asarray(got.network.layers[1].W - stack.layers[1].W)
    np.testing.assert_array_equal(np.diag(change), 0)
    assert np.all(change[mask > 0] != 0)
    change = np.linalg.norm(got.network.system().W - stack.system().W)
    assert float(got.weight_change[1]) == pytest.approx(change, rel=1e-12)
    assert np.isnan(got.conserved_drift).all()
    assert "10 units" in str(got)
    assert got.rnn is got.network


def test_a_bulk_is_never_trained():
    bulk = rd.random_rnn(KEY, 8, 0.5)
    some = rd.random_rnn(KEY, 8, 1.0, num_inputs=2, num_outputs=2)
    network = rd.LowRankRNN(bulk.u, some.u, bulk.v, some.v, bulk.W)
    got = rd.gradient_descent(
        network,
        TARGET,
        optimizer=optax.adamw(0.01, weight_decay=0.1),
        num_steps=10,
        record_every=5,
        record_weights=True,
    )
    np.testing.assert_array_equal(got.network.bulk, bulk.W)
    assert np.all(got.network.U != network.U)
    assert got.weights.bulk.shape == (3, 8, 8)
    last = jax.tree.map(lambda x: x[-1], got.weights)
    assert eqx.tree_equal(last, got.network)


class Gain(eqx.Module):
    """y = scale tanh(w x): no `.system()`, and a leaf that is not an array."""

    scale: jax.Array
    w: jax.Array
    power: int


class Fit(rd.AbstractLoss):
    """Squared error at a few inputs."""

    def __call__(self, network, target, key=None):
        x = jnp.linspace(-1.0, 1.0, 5)
        return jnp.sum((network.scale * jnp.tanh(network.w * x) ** network.power - target) ** 2)


def test_any_module_is_trained_by_a_loss_that_jax_differentiates():
    network = Gain(jnp.asarray(0.5), jnp.asarray(0.1), 3)
    target = 0.7 * jnp.tanh(0.9 * jnp.linspace(-1.0, 1.0, 5)) ** 3
    got = rd.gradient_descent(
        network, target, loss=Fit(), optimizer=optax.adam(0.05), num_steps=800, record_every=400
    )
    assert float(got.loss[-1]) < 1e-6
    assert got.network.power == 3
    assert got.eigenvalues.shape == (3, 0)
    assert np.isnan(got.weight_norm).all()
    assert "a Gain" in str(got)
    flow = rd.gradient_flow(network, target, [0.0, 1.0], loss=Fit(), method=rd.ode.TSIT5)
    assert flow.loss[1] < flow.loss[0]


def test_observed_are_functions_of_network_and_target():
    rnn = rd.random_rnn(KEY, 6, 0.4)
    got = rd.gradient_flow(
        rnn,
        TARGET,
        [0.0, 1.0, 4.0],
        observe={
            "gap": lambda rnn, target: rnn.v @ rnn.u - target.v @ target.u,
            "zeros": lambda rnn, _: rnn.zeros(),
            "count": lambda rnn, _: jnp.sum(jnp.abs(rnn.eigenvalues()) > 0.1),
        },
        stop=rd.Stop(train_time=1.0),
        record_weights=True,
        method=rd.ode.TSIT5,
    )
    np.testing.assert_allclose(got.observed["gap"][:2] + 1, got.overlap[:2], rtol=1e-13)
    assert got.observed["zeros"].shape == (3, 5)
    assert got.observed["zeros"].dtype == jnp.complex128
    np.testing.assert_array_equal(got.weights.W[0], rnn.W)
    np.testing.assert_array_equal(got.weights.W[1], got.network.W)
    for leaf in (*got.observed.values(), *jax.tree.leaves(got.weights)):
        assert np.isfinite(leaf[:2]).all()
        assert np.isnan(leaf[2]).all()
    many = jax.vmap(observed_input)(jax.random.split(KEY, 2))
    assert many.shape == (2, 2, 4)


def observed_input(key):
    """u of a small network at both records of a step of descent."""
    rnn, observe = rd.random_rnn(key, 4, 0.3), {"u": lambda rnn, _: rnn.u}
    got = rd.gradient_descent(rnn, TARGET, learning_rate=0.1, num_steps=1, observe=observe)
    return got.observed["u"]


SIGNS = np.array([1.0, 1.0, 1.0, -1.0, -1.0, 1.0])
MASK = (np.arange(36).reshape(6, 6) % 3 > 0).astype(float)


def dale(rnn):
    """What a unit sends has one sign."""
    return rd.LinearRNN(SIGNS[None, :] * jnp.maximum(SIGNS[None, :] * rnn.W, 0), rnn.u, rnn.v)


def symmetric(rnn):
    """W = Wᵀ."""
    return rd.LinearRNN((rnn.W + rnn.W.T) / 2, rnn.u, rnn.v)


def sparse(rnn):
    """No connections outside of a mask."""
    return rd.LinearRNN(MASK * rnn.W, rnn.u, rnn.v)


def test_descents_keep_constraints():
    rnn, loss = rd.random_rnn(KEY, 6, 0.4), rd.PopulationLoss()
    for project in (dale, symmetric, sparse):
        start = project(rnn)
        got = rd.gradient_descent(
            start,
            TARGET,
            learning_rate=0.05,
            num_steps=40,
            project=project,
            record_weights=True,
        )
        assert got.loss[-1] < 0.9 * got.loss[0]
        gradient = loss.value_and_grad(start, TARGET)[1]
        once = project(jax.tree.map(lambda x, g: x - 0.05 * g, start, gradient))
        assert relative(got.weights.W[1], once.W) < 1e-12
        # projections are idempotent, but for the rounding of a mean
        again = jax.vmap(project)(got.weights)
        np.testing.assert_allclose(again.W, got.weights.W, rtol=0, atol=1e-16)


STACK = rd.StackedRNN([rd.leaky_integrator(0.3), rd.leaky_integrator(0.4)])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"network": 3}, TypeError, "`network` must be a LinearRNN or another eqx.Module.*3"),
        ({"network": rd.Stop()}, TypeError, "`network` must be a LinearRNN or another"),
        ({"rates": rd.Rates(0.5)}, TypeError, "`rates` must have the structure of a StackedRNN"),
        ({"rates": 2.0}, TypeError, "`rates` must be Rates or have the structure of a StackedRNN"),
        ({"rates": jax.tree.map(lambda _: -1.0, STACK)}, ValueError, "`rates` must be positive or"),
        (
            {"rates": jax.tree.map(lambda _: np.ones(3), STACK)},
            ValueError,
            r"`rates` must have shape \(1, 1\), but has shape \(3,\)",
        ),
        ({"observe": 3}, TypeError, "`observe` must be a dictionary"),
        ({"observe": {"all": lambda n, _: n}}, TypeError, r"`observe\['all'\]` must return an arr"),
        ({"project": 3}, TypeError, "`project` must be a function, but is 3"),
        ({"project": lambda n: n.layers[0]}, TypeError, "`project` must return a network with the"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    options = {"network": STACK, "target": TARGET, "learning_rate": 0.1, "num_steps": 1} | options
    with pytest.raises(error, match=message):
        rd.gradient_descent(**options)
