"""The stiffest directions of a field, found by evaluations of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode.power_iteration import MARGIN, Spectrum, iterate

NUM = 6


def symmetric(rates, seed=0):
    """A matrix with these eigenvalues, and its eigenvectors as rows."""
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(rates), len(rates)))).Q
    return basis.T @ np.diag(rates) @ basis, basis


def follow(matrix, known=None, passes=1, width=NUM, h=1.0):
    """The spectrum of a linear field after some passes, the first of which reinitialises, and
    whether the last changed nothing.
    """
    y = jnp.asarray(np.random.default_rng(1).normal(size=len(matrix)))

    def linear(t, y):
        return jnp.asarray(matrix) @ y

    @jax.jit
    def iterated(known, reinitialise):
        step, count = jnp.asarray(h), jnp.int32(width)
        return iterate(linear, t, y, dy, step, known, count, reinitialise)

    t, dy, settled = jnp.zeros(()), linear(0.0, y), False
    known = Spectrum.initial(dy, NUM) if known is None else known
    for i in range(passes):
        known, settled = iterated(known, i == 0)
    return known, bool(settled)


def orthonormal(directions):
    np.testing.assert_allclose(directions @ directions.T, np.eye(len(directions)), atol=1e-13)


# The eigenvalues are good to the square of what is left of the angles, and to the differences that
# stand for J, 1e-8 of the largest.
def test_the_leading_eigenvalues_are_found():
    rates = np.concatenate(([-4e3, -2e2, -50.0, 20.0, -4.0, -1.0], np.linspace(-0.1, 0.1, 14)))
    matrix, basis = symmetric(rates)
    assert not follow(matrix)[1]
    known, settled = follow(matrix, passes=5)
    assert settled
    assert bool(known.symmetric)
    np.testing.assert_allclose(known.rates, rates[:NUM], rtol=5e-3, atol=4e-4)
    orthonormal(np.asarray(known.directions))
    overlaps = np.abs(np.asarray(known.directions) @ basis.T)[:, :NUM]
    np.testing.assert_allclose(np.diag(overlaps)[:5], 1.0, atol=1e-3)
    assert 4e3 < float(known.radius) < 4e3 * 1.2
    # nothing turns: once more is enough
    again, settled = follow(matrix, known, width=3)
    assert settled
    np.testing.assert_allclose(again.rates[:3], rates[:3], rtol=1e-6)
    np.testing.assert_array_equal(again.rates[3:], known.rates[3:])


# Two eigenvalues as good as equal: any basis of their plane will do, if it is orthonormal.
def test_a_plane_of_equal_rates_is_found():
    rates = np.concatenate(([-1e3, -1e3 * (1 + 1e-9), -1.0], np.linspace(-0.1, 0.1, 10)))
    matrix, basis = symmetric(rates)
    known, _ = follow(matrix, passes=6)
    np.testing.assert_allclose(known.rates[:2], -1e3, rtol=1e-6)
    plane = basis[:2].T @ basis[:2]
    found = np.asarray(known.directions[:2])
    np.testing.assert_allclose(found @ plane @ found.T, np.eye(2), atol=1e-6)


# J x = 0 for all but one or none: no direction is lost for what may become stiff later, whether one
# or all are followed.
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("width", [1, NUM])
def test_directions_come_back_where_nothing_was_stretched(rank, width):
    rates = np.zeros(12)
    rates[:rank] = -100.0
    matrix, _ = symmetric(rates)
    known, _ = follow(matrix, passes=9)
    assert np.all(np.abs(known.rates[rank:]) < 1e-4)
    stiff, _ = symmetric(np.linspace(-10.0, -1.0, 12) ** 3, seed=2)
    later, _ = follow(stiff, known, passes=20, width=width)
    assert float(later.radius) == pytest.approx(1e3 * MARGIN, rel=0.05)


# Nothing moves but what the field moves: a parameter that is frozen is none of any direction after
# the first pass.
def test_directions_are_of_what_is_stretched():
    matrix, _ = symmetric(np.linspace(-1e3, -1.0, 12))
    matrix[:3] = 0.0
    known, _ = follow(matrix)
    np.testing.assert_array_equal(known.directions[:, :3], 0.0)
    assert bool(follow(matrix, known, passes=3)[0].symmetric)


def test_there_are_no_more_directions_than_dimensions():
    matrix, _ = symmetric(np.array([-1e3, -5.0]))
    known, _ = follow(matrix, passes=6)
    np.testing.assert_allclose(known.rates, [-1e3, -5.0, 0.0, 0.0, 0.0, 0.0], rtol=1e-4, atol=1e-4)
    orthonormal(np.asarray(known.directions[:2]))
    np.testing.assert_array_equal(known.directions[2:], 0.0)


def test_a_jacobian_that_is_not_symmetric_is_noticed():
    matrix, _ = symmetric(np.linspace(-1e3, -1.0, 12))
    matrix = matrix + 0.1 * np.diag(np.full(11, 1e3), 1)
    assert not bool(follow(matrix, passes=6)[0].symmetric)


def test_a_field_that_is_not_finite_leaves_what_is_known():
    matrix, _ = symmetric(np.linspace(-1e3, -1.0, 12))
    known, _ = follow(matrix)
    bad, settled = follow(np.full((12, 12), np.nan), known)
    assert settled  # no more passes
    np.testing.assert_array_equal(bad.directions, known.directions)
    np.testing.assert_array_equal(bad.rates, known.rates)
    assert float(bad.radius) == float(known.radius)


def test_no_direction_is_evaluated_where_none_is_asked_for():
    matrix, _ = symmetric(np.linspace(-1e3, -1.0, 12))
    known, _ = follow(matrix, passes=2)
    after, _ = follow(matrix, known, width=0)
    assert int(after.life) == int(known.life) - 1
    for name in ("radius", "directions", "rates", "symmetric"):
        np.testing.assert_array_equal(getattr(after, name), getattr(known, name))


def test_float32_stays_float32():
    dy = -jnp.arange(12, dtype=jnp.float32)
    one = jnp.ones((), jnp.float32)
    known = Spectrum.initial(dy, NUM)
    for _ in range(3):
        known, _ = iterate(
            lambda t, y: -y * jnp.arange(12, dtype=jnp.float32),
            *(0.0 * one, jnp.ones(12, jnp.float32), dy, one, known, jnp.int32(NUM), one < 0),
        )
    for x in (known.radius, known.directions, known.rates):
        assert x.dtype == jnp.float32
    assert float(known.rates[0]) == pytest.approx(-11.0, rel=0.05)
