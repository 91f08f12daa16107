import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rnn_dynamics as rd
from rnn_dynamics.theory.wide.word_subspace import word_basis

TARGET = rd.leaky_integrator(0.2)
TIMES = np.linspace(0, 20, 21)


def largest_errors(rnn, length, full):
    """Largest error of the loss, relative to the initial one, and of the top eigenvalue at the
    end.
    """
    small = rd.gradient_flow(rd.theory.word_subspace(rnn, length), TARGET, TIMES)
    loss = float(np.abs(small.loss - full.loss).max() / full.loss[0])
    top = [np.max(curve.eigenvalues[-1].real) for curve in (small, full)]
    return loss, abs(top[0] - top[1])


@pytest.mark.core
def test_two_units_are_exact_without_initial_weights():
    rnn = rd.random_rnn(jax.random.key(0), 20, 0.0, 0.5, 0.7)
    assert rd.theory.word_subspace(rnn, 0).num_units == 2
    loss, top = largest_errors(rnn, 0, rd.gradient_flow(rnn, TARGET, TIMES))
    assert loss < 1e-8
    assert top < 1e-7


def test_error_falls_geometrically_with_the_length():
    rnn = rd.random_rnn(jax.random.key(0), 22, 0.1)
    full = rd.gradient_flow(rnn, TARGET, TIMES)
    errors = [largest_errors(rnn, length, full)[0] for length in range(3)]
    assert errors[2] < 1e-4
    # seen: 8e-3, 1e-4, 9e-8
    assert all(after < before / 10 for before, after in itertools.pairwise(errors))


def test_all_words_are_the_full_network():
    rnn = rd.random_rnn(jax.random.key(1), 10, 0.5)
    same = rd.theory.word_subspace(rnn, 3)
    assert same.num_units == 10
    assert float(rd.PopulationLoss()(same, TARGET)) == pytest.approx(
        float(rd.PopulationLoss()(rnn, TARGET)), rel=1e-13
    )


def test_projection_keeps_inner_products_of_short_words():
    rnn = rd.random_rnn(jax.random.key(2), 40, 0.5)
    small = rd.theory.word_subspace(rnn, 1)
    assert small.num_units == 6
    for word in (lambda r: r.u @ r.v, lambda r: r.v @ r.W @ r.u, lambda r: r.u @ r.W.T @ r.W @ r.v):
        assert float(word(small)) == pytest.approx(float(word(rnn)), abs=1e-14)


def test_a_silent_read_out_and_batches():
    rnns = jax.vmap(lambda key: rd.random_rnn(key, 20, 0.0, 1.0, 0.0))(
        jax.random.split(jax.random.key(0), 3)
    )
    small = jax.jit(jax.vmap(lambda rnn: rd.theory.word_subspace(rnn, 2)))(rnns)
    assert small.W.shape == (3, 14, 14)
    np.testing.assert_allclose(jnp.linalg.norm(small.u, axis=1), jnp.linalg.norm(rnns.u, axis=1))
    np.testing.assert_array_equal(small.v, 0)


@pytest.mark.parametrize(
    ("length", "error", "message"),
    [
        (-1, ValueError, "`max_length` must be at least 0, but is -1"),
        (1.0, TypeError, "`max_length` must be an integer, but is 1.0"),
    ],
)
def test_bad_lengths_are_refused(length, error, message):
    with pytest.raises(error, match=message):
        rd.theory.word_subspace(rd.random_rnn(jax.random.key(0), 4, 0.1), length)


@pytest.mark.core
@pytest.mark.parametrize("length", [1, 3])
def test_the_basis_is_orthonormal_and_holds_every_word(length):
    """To rounding, however long the words: W stays far from any word it is applied to."""
    rnn = rd.random_rnn(jax.random.key(2), 80, 0.6)
    B = word_basis(rnn, length)
    assert B.shape == (80, rd.theory.num_words(length))
    np.testing.assert_allclose(B.T @ B, np.eye(B.shape[1]), atol=1e-14)
    for word in itertools.product((rnn.W, rnn.W.T), repeat=length):
        for x in (rnn.u, rnn.v):
            for letter in word:
                x = letter @ x
            rest = x - B @ (B.T @ x)
            assert float(jnp.linalg.norm(rest) / jnp.linalg.norm(x)) < 1e-13


def test_the_basis_reveals_the_rank_of_the_words():
    """Dependent words are dropped: columns of zeros, units that never learn."""
    random = rd.random_rnn(jax.random.key(3), 20, 0.5)
    cases = {
        2: rd.LinearRNN(0 * random.W, random.u, random.v),  # no word but u and v
        1: rd.LinearRNN(0 * random.W, random.u, 2 * random.u),
        7: rd.LinearRNN(random.W, random.u, 0 * random.v),  # half of the words vanish
        6: rd.LinearRNN(random.W + random.W.T, random.u, random.v),  # W and its transpose agree
        0: rd.LinearRNN(random.W, 0 * random.u, 0 * random.v),
    }
    for rank, rnn in cases.items():
        B = word_basis(rnn, 2)
        sizes = np.linalg.norm(B, axis=0)
        assert np.isclose(sizes, 0, atol=1e-14).sum() == B.shape[1] - rank
        assert np.isclose(sizes, 1, atol=1e-14).sum() == rank
    full = rd.gradient_flow(cases[7], TARGET, [0.0, 2.0])
    small = rd.gradient_flow(rd.theory.word_subspace(cases[7], 2), TARGET, [0.0, 2.0])
    idle = np.linalg.norm(word_basis(cases[7], 2), axis=0) == 0
    assert (np.asarray(small.rnn.W)[idle] == 0).all()
    assert float(abs(small.loss - full.loss).max() / full.loss[0]) < 1e-3
