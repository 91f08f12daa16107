"""Structured networks against independent values, closed forms and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import relative

import rnn_dynamics as rd

KEY = jax.random.key(5)
TIMES = np.array([0.0, 0.4, 1.5, 6.0])


def network_of(case):
    """The `LinearRNN` of a reference entry."""
    case = {name.lower(): case[name] for name in case if name.lower() in "wuv"}
    return rd.LinearRNN(*(np.asarray(case[name], float) for name in "wuv"))


@pytest.mark.parametrize("index", [0, 1])
def test_stacks_have_the_reference_gradients(structured, index):
    case = structured["stack"][index]
    stack = rd.StackedRNN([network_of(layer) for layer in case["layers"]])
    value, gradient = rd.PopulationLoss().value_and_grad(stack, network_of(case["target"]))
    assert float(value) == pytest.approx(case["loss"], rel=1e-11)
    for got, expected in zip(gradient.layers, case["grads"], strict=True):
        # the reference solves Lyapunov equations, to about 1e-12
        for name in "Wuv":
            assert relative(getattr(got, name), expected[name]) < 1e-9


@pytest.mark.parametrize("index", [0, 1])
def test_low_rank_networks_have_the_reference_loss_and_overlaps(structured, index):
    case = structured["low_rank"][index]
    network = rd.LowRankRNN(
        *(np.asarray(case[name], float) for name in ("input", "U", "readout", "V"))
    )
    value, gradient = rd.PopulationLoss().value_and_grad(network, network_of(case["target"]))
    assert float(value) == pytest.approx(case["loss"][0], rel=1e-10)
    # the chain rule of W = U Vᵀ/N, u and v = readout/N from the gradient of the full network
    full = network.system()
    whole = rd.PopulationLoss().value_and_grad(full, network_of(case["target"]))[1]
    N = full.num_units
    assert relative(gradient.U, whole.W @ network.V / N) < 1e-9
    assert relative(gradient.V, whole.W.T @ network.U / N) < 1e-9
    assert relative(gradient.input, whole.u) < 1e-9
    assert relative(gradient.readout, whole.v / N) < 1e-9


def test_a_bulk_is_added_and_has_no_gradient():
    bulk = rd.random_rnn(KEY, 9, 0.4, num_inputs=2, num_outputs=3)
    factors = rd.random_rnn(jax.random.key(1), 9, 0.4, num_inputs=1, num_outputs=1)
    network = rd.LowRankRNN(bulk.u, 3 * factors.u, 9 * bulk.v, 3 * factors.v, bulk.W)
    system = network.system()
    np.testing.assert_allclose(system.W, bulk.W + factors.u @ factors.v.T, rtol=1e-14)
    np.testing.assert_allclose(system.v, bulk.v, rtol=1e-15)
    loss = rd.PopulationLoss()
    gradient = loss.value_and_grad(network, bulk)[1]
    assert not np.any(gradient.bulk)
    assert np.any(gradient.U)


def test_diagonal_networks_have_their_closed_form():
    a, r = np.array([0.3 + 1.2j, 0.7, 0.4 - 2.0j]), np.array([1.0 - 0.5j, 2.0j, -0.3])
    network = rd.DiagonalRNN(a, r)
    expected = np.real(np.exp(-np.outer(TIMES, a)) @ r)
    np.testing.assert_allclose(network.system().impulse_response(TIMES), expected, atol=1e-13)
    found = network.system().eigenvalues()
    partners = rd.match_eigenvalues(np.r_[1 - a, 1 - a.conj()], found)
    np.testing.assert_allclose(found[partners], np.r_[1 - a, 1 - a.conj()], atol=1e-14)
    # dL = Re Σ (Ê(a) dr + r Ê'(a) da) with the Laplace transform Ê of the error
    value, gradient = rd.PopulationLoss().value_and_grad(network, rd.leaky_integrator(0.5))

    def E(s, power):
        modes = r[:, None] / (s + a[:, None]) ** power + np.conj(
            r[:, None] / (np.conj(s) + a[:, None]) ** power
        )
        return modes.sum(axis=0) / 2 - 1 / (s + 0.5) ** power

    np.testing.assert_allclose(gradient.residues, E(a, 1), rtol=1e-10)
    np.testing.assert_allclose(gradient.decays, -r * E(a, 2), rtol=1e-10)
    assert float(value) > 0


def test_stacks_convolve_and_nest():
    one, two = rd.leaky_integrator(0.3), rd.leaky_integrator(0.8, 2.0)
    stack = rd.StackedRNN([one, two])
    expected = 2 * (np.exp(-0.3 * TIMES) - np.exp(-0.8 * TIMES)) / 0.5
    np.testing.assert_allclose(stack.system().impulse_response(TIMES), expected, atol=1e-14)
    wide = rd.random_rnn(KEY, 4, 0.3, num_inputs=2, num_outputs=3)
    narrow = rd.random_rnn(KEY, 5, 0.3, num_inputs=3)
    nested = rd.StackedRNN([rd.StackedRNN([wide, narrow]), one]).system()
    flat = rd.StackedRNN([wide, narrow, one]).system()
    for got, want in zip(jax.tree.leaves(nested), jax.tree.leaves(flat), strict=True):
        np.testing.assert_array_equal(got, want)
    # in series in time too: each layer answers at once to the step before it
    x = np.random.default_rng(0).normal(size=(30, 2))
    y = narrow.simulate(wide.simulate(x, 1e-3), 1e-3)
    got = rd.StackedRNN([wide, narrow]).system().simulate(x, 1e-3)
    np.testing.assert_allclose(got, y, atol=2e-3 * np.max(np.abs(y)) + 1e-6)


def test_structured_networks_keep_float32_and_work_under_vmap():
    decays = jnp.asarray([[0.3 + 1j, 0.5], [0.2, 0.4 - 1j]], jnp.complex64)
    many = jax.vmap(lambda a: rd.DiagonalRNN(a, a).system())(decays)
    assert many.W.shape == (2, 4, 4)
    assert many.W.dtype == jnp.float32


X, F = np.ones((4, 2)), np.ones(4)


class Odd(rd.StackedRNN):
    """A network whose system is none."""

    def system(self):
        return 3


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: rd.LowRankRNN(F, F, F, F), ValueError, r"`U` must have shape \(N, r\), but has"),
        (lambda: rd.LowRankRNN(F, X[:, :0], F, X[:, :0]), ValueError, "`U` must have a column"),
        (
            lambda: rd.LowRankRNN(F, X, F, X[:, :1]),
            ValueError,
            r"`V` must have shape \(4, 2\) beside `U` of shape \(4, 2\), but has shape \(4, 1\)",
        ),
        (lambda: rd.LowRankRNN(F, X, F, X, X), ValueError, r"`bulk` must have shape \(4, 4\)"),
        (
            lambda: rd.LowRankRNN(F, X, F, X.astype(np.float32)),
            TypeError,
            "one dtype, but have float64 and float32",
        ),
        (lambda: rd.LowRankRNN(F + 0j, X, F, X), TypeError, "`input` must be a real floating"),
        (lambda: rd.DiagonalRNN(X, X), ValueError, r"`decays` must have shape \(N,\)"),
        (lambda: rd.DiagonalRNN(F, F[:2]), ValueError, r"`residues` must have the shape \(4,\)"),
        (lambda: rd.DiagonalRNN(F * np.nan, F), ValueError, "`decays` must be finite"),
        (lambda: rd.DiagonalRNN(["a"], F), TypeError, "`decays` must hold numbers"),
        (lambda: rd.StackedRNN([]), ValueError, "`layers` must hold at least one network"),
        (lambda: rd.StackedRNN([3]), TypeError, r"`layers\[0\]` must be a LinearRNN, or have a"),
        (
            lambda: rd.StackedRNN([rd.leaky_integrator(0.1), rd.LinearRNN(np.eye(4), X, F)]),
            ValueError,
            r"`layers\[1\]` must have as many inputs.*`u` has shape \(4, 2\) and `v` \(1,\)",
        ),
        (
            lambda: rd.PopulationLoss()(Odd([rd.leaky_integrator(0.1)]), rd.leaky_integrator(0.2)),
            TypeError,
            r"`network` must have a method `.system\(\)` that returns a LinearRNN, but it returns",
        ),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
