"""Rows that are the same for all members of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rnn_dynamics.ode.batching import put, row

ROWS = np.arange(48.0).reshape(2, 3, 4, 2)


def over_batches(do, axes):
    """Of members of members."""
    return jax.jit(jax.vmap(jax.vmap(do, axes), axes))


@pytest.mark.parametrize("i", [0, 2, 3])
def test_row_and_put_are_those_of_each_member(i):
    index = jnp.int32(i)
    got = over_batches(row, (0, None))(jnp.asarray(ROWS), index)
    np.testing.assert_array_equal(got, ROWS[:, :, i])
    new = np.full((2, 3, 2), -1.0)
    expected = ROWS.copy()
    expected[:, :, i] = new
    got = over_batches(put, (0, 0, None))(jnp.asarray(ROWS), jnp.asarray(new), index)
    np.testing.assert_array_equal(got, expected)


def test_rows_of_all_members_or_a_new_one_for_all():
    same, new = jnp.zeros((4, 2)), jnp.ones((3, 2))
    got = jax.vmap(put, (None, 0, None))(same, new, jnp.int32(1))
    np.testing.assert_array_equal(got[:, 1], new)
    got = jax.vmap(put, (0, None, None))(jnp.zeros((3, 4, 2)), new[0], jnp.int32(1))
    np.testing.assert_array_equal(got[:, 1], new)


def test_neither_is_a_gather_or_a_scatter():
    rows, i = jnp.asarray(ROWS), jnp.int32(1)
    text = str(jax.make_jaxpr(over_batches(row, (0, None)))(rows, i))
    text += str(jax.make_jaxpr(over_batches(put, (0, 0, None)))(rows, rows[:, :, 0], i))
    assert "dynamic_slice" in text
    assert "dynamic_update_slice" in text
    assert "gather" not in text
    assert "scatter" not in text


def test_an_index_of_each_member_is_refused():
    rows, own = jnp.zeros((3, 4, 2)), jnp.arange(3, dtype=jnp.int32)
    with pytest.raises(ValueError, match="same for all members"):
        jax.vmap(row)(rows, own)
    with pytest.raises(ValueError, match="same for all members"):
        jax.vmap(put)(rows, rows[:, 0], own)
