"""Low-rank networks: overlaps against independent values, against training the vectors themselves,
and against random networks with a bulk.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd

OSCILLATOR = rd.damped_oscillator(0.3, 1.0)
TIMES = np.arange(9.0)
SEEN = np.kron([[0, 1], [1, 0]], np.ones((2, 2)))


def vectors(network):
    """Θ = [m, U | z, V]."""
    m, z = network.input[:, None], network.readout[:, None]
    return np.concatenate([m, network.U, z, network.V], axis=1)


def network_of(theta, bulk=None):
    half = theta.shape[1] // 2
    return rd.LowRankRNN(theta[:, 0], theta[:, 1:half], theta[:, half], theta[:, half + 1 :], bulk)


def smallest(overlaps):
    return rd.theory.low_rank_infinite_width(overlaps, weight_scale=0.0, max_length=0)


@pytest.mark.core
@pytest.mark.parametrize("index", [0, 1])
def test_the_reference_flow(structured, index):
    case = structured["low_rank"][index]
    network = rd.LowRankRNN(
        *(np.asarray(case[name], float) for name in ("input", "U", "readout", "V"))
    )
    target = rd.LinearRNN(*(np.asarray(case["target"][name], float) for name in "Wuv"))
    curve = rd.theory.overlaps(network, target, case["train_time"])
    # local errors of 1e-8 add up over some steps
    np.testing.assert_allclose(curve.overlaps, case["overlaps"], rtol=0, atol=5e-8)
    np.testing.assert_allclose(curve.loss, case["loss"], rtol=1e-8)
    half = len(curve.overlaps[0]) // 2
    U, V = np.arange(1, half), np.arange(half + 1, 2 * half)
    kept = curve.overlaps[:, U[:, None], U] - curve.overlaps[:, V[:, None], V]
    np.testing.assert_allclose(kept, np.broadcast_to(kept[0], kept.shape), atol=5e-8)
    inner = np.linalg.eigvals(curve.overlaps[-1][V[:, None], U])
    np.testing.assert_allclose(np.sort(curve.eigenvalues[-1].real), np.sort(inner.real), atol=1e-12)


def test_vectors_that_learn_at_rates_of_their_own():
    """The flow of the overlaps is that of the vectors: a gradient flow of the whole network."""
    N, loss = 5, rd.PopulationLoss()
    network = network_of(np.random.default_rng(2).normal(size=(N, 4)) * 0.6)
    structure, rates = jax.tree.structure(network), (0.0, 10.0, float(N), 3.0)
    curve = rd.theory.overlaps(network, OSCILLATOR, TIMES, jax.tree.unflatten(structure, rates))

    def velocity(_, y, args):
        slopes = jax.tree.leaves(loss.value_and_grad(y, OSCILLATOR)[1])
        slopes = [-rate * slope for rate, slope in zip(rates, slopes, strict=True)]
        return jax.tree.unflatten(structure, slopes)

    flow = rd.ode.solve(velocity, network, [0.0, TIMES[-1]], rtol=1e-10, atol=1e-12)
    learned = jax.tree.map(lambda y: y[-1], flow.ys)
    theta, system = vectors(learned), learned.system()
    # local errors of 1e-8 add up over some steps
    np.testing.assert_allclose(curve.overlaps[-1], theta.T @ theta / N, atol=1e-7)
    expected = {
        "loss": loss(learned, OSCILLATOR),
        "weight_change": np.linalg.norm(system.W - network.system().W),
        "input_norm": np.linalg.norm(system.u),
        "output_norm": np.linalg.norm(system.v),
        "overlap": system.u @ system.v,
    }
    for name, value in expected.items():
        assert float(getattr(curve, name)[-1]) == pytest.approx(float(value), abs=1e-7), name


def test_same_function_different_history():
    """Overlaps that the loss does not see change nothing but how it learns."""
    G = 0.1 * np.eye(4) + 0.02 * SEEN
    few = rd.theory.overlaps(smallest(G), OSCILLATOR, TIMES)
    np.testing.assert_array_equal(few.visible, SEEN == 1)
    other = smallest(np.where(few.visible, 1.0, 2.5) * G)
    many = rd.theory.overlaps(other, OSCILLATOR, TIMES)
    same = [one.system().impulse_response(TIMES) for one in (smallest(G), other)]
    np.testing.assert_allclose(same[0], same[1], atol=1e-15)
    np.testing.assert_allclose(np.asarray(few.loss)[[0, 2]], [0.44146953, 0.32698501], atol=1e-8)
    np.testing.assert_allclose(np.asarray(many.loss)[[0, 2]], [0.44146953, 0.26697017], atol=1e-8)


def test_long_memories_and_short_numbers():
    """Stiff at the end: the target has the slow decay 0.01; in float32 too."""
    target = rd.leaky_integrator(0.01)
    network = smallest(np.float32(0.1 * np.eye(4) + 0.02 * SEEN))
    curve = rd.theory.overlaps(network, target.astype("float32"), [0.0, 60.0])
    assert curve.loss.dtype == np.float32
    assert complex(curve.eigenvalues[-1, 0]) == pytest.approx(0.99, abs=1e-4)


def test_means_over_random_bulks():
    """Descent with the rate N on every vector, at infinite and at finite width."""
    G, steps, sigma = 0.5 * np.eye(4) + 0.1 * SEEN, 45, 0.6
    loss = rd.PopulationLoss()

    @jax.jit
    def descend(network):
        N = len(network.U)

        def step(network, _):
            value, gradient = loss.value_and_grad(network, OSCILLATOR)
            return jax.tree.map(lambda x, g: x - 0.05 * N * g, network, gradient), value

        return jax.lax.scan(step, network, length=steps + 1)[1]

    infinite = rd.theory.low_rank_infinite_width(G, sigma)
    theta = vectors(infinite)
    np.testing.assert_allclose(theta.T @ theta / len(theta), G, atol=1e-14)
    expected = np.asarray(descend(infinite))
    N, count, rng = 48, 20, np.random.default_rng(0)
    root = np.linalg.cholesky(G).T * np.sqrt(N)
    networks = [
        network_of(
            np.linalg.qr(rng.normal(size=(N, 4)))[0] @ root,
            sigma * rng.normal(size=(N, N)) / np.sqrt(N),
        )
        for _ in range(count)
    ]
    found = np.asarray(jax.vmap(descend)(jax.tree.map(lambda *x: jnp.stack(x), *networks)))
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(count)
    at = [15, 30, 45]
    assert np.all(np.abs(mean - expected)[at] < 3 * error[at])
    assert np.all(error[at] < 0.02 * mean[at])


def test_overlaps_that_depend_on_each_other():
    G = np.ones((4, 4)) * 0.3  # all vectors are equal
    network = rd.theory.low_rank_infinite_width(G, 0.5, 1)
    theta = vectors(network)
    np.testing.assert_allclose(theta.T @ theta / len(theta), G, atol=1e-14)
    assert network.bulk.shape == (12, 12)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: rd.theory.overlaps(
                rd.theory.low_rank_infinite_width(np.eye(4), 0.1, 1), OSCILLATOR, [0.0]
            ),
            ValueError,
            "`network` must have no bulk, but is one with a bulk",
        ),
        (
            lambda: rd.theory.overlaps(rd.LowRankRNN(*np.ones((4, 3, 1))), OSCILLATOR, [0.0]),
            ValueError,
            "`network` must have one input and one output, but is one with vectors of shapes",
        ),
        (
            lambda: rd.theory.overlaps(
                smallest(np.eye(4)), OSCILLATOR, [0.0], loss=rd.SampledLoss(1.0, 0.1, 2)
            ),
            TypeError,
            r"`loss` must be without noise, such as `loss\.expected`",
        ),
        (
            lambda: smallest(np.eye(4) + np.eye(4, k=1)),
            ValueError,
            "`overlaps` must be symmetric, but is skew by 1",
        ),
        (
            lambda: smallest(np.diag([1.0, 1.0, -0.5, 1.0])),
            ValueError,
            "`overlaps` must be positive semi-definite, but is of a lowest eigenvalue -0.5",
        ),
        (lambda: smallest(np.eye(5)), ValueError, r"`overlaps` must have shape \(2\+2r, 2\+2r\)"),
    ],
)
def test_what_has_no_theory_is_refused(call, kind, message):
    with pytest.raises(kind, match=message):
        call()
