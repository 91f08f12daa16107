"""Inverses by elimination in blocks, beside NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.krylov import dispatch
from rnn_dynamics.loss.krylov.inverse import halved_inverse, inverse
from rnn_dynamics.loss.krylov.projected import SHIFT, probe


def matrix(size: int) -> jax.Array:
    """Well-conditioned, as (1 + p) - W of a random W is."""
    return (
        1.4 * jnp.eye(size)
        - 0.5 * jax.random.normal(jax.random.key(size), (size, size)) / size**0.5
    )


@pytest.mark.parametrize("size", [1, 2, 4, 5, 8, 9, 24, 32, 33, 50, 64])
def test_the_inverse(size):
    M = matrix(size)
    np.testing.assert_allclose(inverse(M), np.linalg.inv(M), atol=1e-14)


@pytest.mark.parametrize("size", [2, 3, 8, 16, 17, 33, 64, 100])
def test_the_halved_inverse(size):
    M, x = matrix(size), jax.random.normal(jax.random.key(1), (size,))
    B = halved_inverse(M)
    np.testing.assert_allclose(B.times(x), np.linalg.solve(M, x), atol=1e-13)
    np.testing.assert_allclose(B.transposed_times(x), np.linalg.solve(M.T, x), atol=1e-13)


def test_it_stays_in_single_precision():
    M = matrix(33).astype(jnp.float32)
    assert inverse(M).dtype == halved_inverse(M).times(M[0]).dtype == jnp.float32


@jax.jit
def both_gradients(rnn, target):
    exact = doubling.gradient(rnn, target)
    return rd.PopulationLoss().value_and_grad(rnn, target), exact


@pytest.mark.parametrize("gap", [0.0, 1e-14, 1e-7])
def test_a_gradient_does_not_rest_on_a_bad_inverse(gap):
    """A stable network whose first pivot nearly vanishes, though p + A is well-conditioned: its
    gradient is found by doubling.
    """
    rnn, target = rd.random_rnn(jax.random.key(0), 40, 0.3), rd.leaky_integrator(0.2)
    W = rnn.W.at[:2, :2].set(jnp.array([[1 + SHIFT - gap, 2.0], [-2.0, -1.0]]))
    rnn = rd.LinearRNN(W, rnn.u, rnn.v)
    assert np.linalg.eigvals(np.asarray(W)).real.max() < 0.9
    assert np.linalg.cond((1 + SHIFT) * np.eye(40) - np.asarray(W)) < 20
    residual, eps = probe(rnn).residual, np.finfo(float).eps
    assert not residual <= dispatch.LARGEST_RESIDUAL * eps
    (value, gradient), exact = both_gradients(rnn, target)
    assert float(value) == pytest.approx(float(exact[0]), rel=10 * eps)
    for ours, theirs in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact[1]), strict=True):
        # the same sums in another order
        most = 10 * eps * float(jnp.max(jnp.abs(theirs)))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=most)
