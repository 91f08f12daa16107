import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd

TARGET = rd.damped_oscillator(0.4, 0.9, 0.3)


def moved(rnn, gradient, time):
    """A step of the flow, and its remainder of second order."""
    return jax.tree.map(lambda x, g: x - time * g, rnn, gradient)


def test_velocities_are_differences_along_the_flow():
    rnn = rd.random_rnn(jax.random.key(1), 10, 0.5)
    rates = rd.Rates(1.0, 0.5, 2.0)
    times = np.array([0.0, 1.0 - 1e-4, 1.0, 1.0 + 1e-4])
    flow = rd.gradient_flow(rnn, TARGET, times[:3], rates=rates, rtol=1e-12, atol=1e-14)
    _, gradient = rd.PopulationLoss().value_and_grad(flow.rnn, TARGET)
    motion = rd.theory.spectral_motion(flow.rnn, gradient, rates)
    around = [
        rd.gradient_flow(rnn, TARGET, times[[0, i]], rates=rates, rtol=1e-12, atol=1e-14).rnn
        for i in (1, 3)
    ]
    before, after = (rd.modes(x) for x in around)
    order = [rd.match_eigenvalues(motion.eigenvalues, x.eigenvalues) for x in (before, after)]
    for name in ("eigenvalue", "residue"):
        values = [getattr(x, f"{name}s")[at] for x, at in zip((before, after), order, strict=True)]
        expected = (values[1] - values[0]) / 2e-4
        # central differences of step 1e-4 leave 1e-8 of the third derivative and 1e-11 of the
        # tolerance
        np.testing.assert_allclose(getattr(motion, f"{name}_velocity"), expected, atol=1e-6)
    velocity = rd.theory.eigenvalue_velocity(flow.rnn, gradient, rates)
    back = rd.match_eigenvalues(flow.rnn.eigenvalues(), motion.eigenvalues)
    np.testing.assert_array_equal(velocity, motion.eigenvalue_velocity[back])


def test_sums_over_modes():
    """Σ λ̇ is the trace of W', and Σ ρ̇ is the velocity of u·v = k(0)."""
    rnn = rd.random_rnn(jax.random.key(2), 7, 0.4)
    _, g = rd.PopulationLoss().value_and_grad(rnn, TARGET)
    motion = rd.theory.spectral_motion(rnn, g)
    assert complex(motion.eigenvalue_velocity.sum()) == pytest.approx(-float(jnp.trace(g.W)))
    expected = -float(g.u @ rnn.v + rnn.u @ g.v)
    assert complex(motion.residue_velocity.sum()) == pytest.approx(expected)


def test_modes_are_the_impulse_response():
    rnn = rd.random_rnn(jax.random.key(3), 6, 0.5)
    found, t = rd.modes(rnn), np.linspace(0, 5, 4)
    k = np.exp(-np.outer(t, 1 - np.asarray(found.eigenvalues))) @ np.asarray(found.residues)
    np.testing.assert_allclose(k.imag, 0, atol=1e-13)
    np.testing.assert_allclose(k.real, rnn.impulse_response(t), atol=1e-13)
    np.testing.assert_allclose(
        found.right @ (found.eigenvalues[:, None] * found.left), rnn.W, atol=1e-13
    )


def test_a_gradient_of_another_network_is_refused():
    rnn = rd.random_rnn(jax.random.key(0), 4, 0.5)
    with pytest.raises(ValueError, match="`gradient` must be of 4 units like the network"):
        rd.theory.eigenvalue_velocity(rnn, TARGET)
