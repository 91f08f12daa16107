"""Reduced networks of several inputs and outputs, by what they keep exactly."""

import jax
import numpy as np
import pytest

import rnn_dynamics as rd

KEY = jax.random.key(4)


@pytest.mark.parametrize("length", [0, 1, 2])
def test_words_of_all_columns_keep_the_first_powers(length):
    rnn = rd.random_rnn(KEY, 60, 0.5, num_inputs=2, num_outputs=3)
    small = rd.theory.word_subspace(rnn, length)
    assert small.num_units == rd.theory.num_words(length, 5)
    assert (small.num_inputs, small.num_outputs) == (2, 3)
    for left, right in (("v", "u"), ("u", "u"), ("v", "v")):
        for power in range(2 * length + 2):  # words of length l on either side, and one letter
            expected, found = (
                np.asarray(getattr(one, left)).T
                @ np.linalg.matrix_power(np.asarray(one.W), power)
                @ np.asarray(getattr(one, right))
                for one in (rnn, small)
            )
            np.testing.assert_allclose(found, expected, atol=1e-13)


def test_infinite_width_has_the_scalar_products_of_its_columns():
    X = np.random.default_rng(0).normal(size=(6, 4))
    gram, sigma = X.T @ X, 0.4
    rnn = rd.theory.infinite_width(sigma, max_length=2, gram=gram, num_inputs=3)
    assert (rnn.num_units, rnn.num_inputs, rnn.num_outputs) == (28, 3, 1)
    W, columns = np.asarray(rnn.W), np.concatenate([rnn.u, rnn.v], axis=1)
    np.testing.assert_allclose(columns.T @ columns, gram, rtol=1e-12)
    # non-crossing pairings of W with its transpose: one of W Wᵀ, none of W W, two of W Wᵀ W Wᵀ
    np.testing.assert_allclose(columns.T @ W @ W.T @ columns, sigma**2 * gram, rtol=1e-12)
    np.testing.assert_allclose(columns.T @ W @ W @ columns, 0 * gram, atol=1e-12)
    squared = columns.T @ W @ W.T @ W @ W.T @ columns
    np.testing.assert_allclose(squared, 2 * sigma**4 * gram, rtol=1e-12)


def test_infinite_width_of_one_channel_is_the_same_in_another_basis():
    one = rd.theory.infinite_width(0.3, 0.8, 1.5, 0.4, 1)
    gram = [[0.64, 0.48], [0.48, 2.25]]
    other = rd.theory.infinite_width(0.3, max_length=1, gram=gram)
    target, loss = rd.leaky_integrator(0.4), rd.PopulationLoss()
    for _ in range(2):
        (value, slope), (again, tilt) = (loss.value_and_grad(x, target) for x in (one, other))
        assert float(value) == pytest.approx(float(again), rel=1e-10)
        one, other = (
            jax.tree.map(lambda x, g: x - 0.5 * g, *pair) for pair in ((one, slope), (other, tilt))
        )
    # of a silent read-out there is no Cholesky factor
    silent = rd.theory.infinite_width(0.3, gram=np.diag([1.0, 0.0]))
    assert not np.any(silent.v)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gram": np.eye(3)[:2]}, "`gram` must be square"),
        ({"gram": -np.eye(2)}, "`gram` must be positive semi-definite"),
        ({"gram": [[1.0, 0.5], [0.0, 1.0]]}, "`gram` must be symmetric"),
        ({"gram": np.eye(2), "overlap": 0.5}, "`gram` must be given without scales"),
        ({"gram": np.eye(2), "num_inputs": 2}, "`num_inputs` must be at most 1, but is 2"),
    ],
)
def test_bad_scalar_products_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        rd.theory.infinite_width(0.3, **options)
