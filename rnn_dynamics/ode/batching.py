"""What the members of a batch do together."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap


@custom_vmap
def any_member(flag: Array) -> Array:
    """Whether a boolean scalar is true of any member of the batch that `jax.vmap` makes.

    A loop with this for its condition is one loop for all: `jax.vmap` does not select, in every
    pass, all that the loop carries. Its body must leave the members alone that are done.
    """
    return flag


@any_member.def_vmap
def _any_of_batch(_: int, __: Any, flags: Array) -> tuple[Array, bool]:
    return any_member(jnp.any(flags, axis=0)), False


def row(rows: Array, i: Array) -> Array:
    """Row i of (s, ...), or the last one; i is at least 0, and the same for all members."""
    return _row(0)(rows, i)


def put(rows: Array, new: Array, i: Array) -> Array:
    """(s, ...) with `new` for row i, or for the last one, in place where it can be; i as for
    `row`.
    """
    return _put(0)(rows, new, i)


# `jax.vmap` makes gathers and scatters of these, with indices that are made, checked and clipped,
# though they are the same for all: for small networks as much work as the rest of a stage.
@functools.cache
def _row(axis: int) -> Callable[[Array, Array], Array]:
    @custom_vmap
    def take(rows: Array, i: Array) -> Array:
        start = [jnp.zeros_like(i)] * rows.ndim
        start[axis] = i
        sizes = [1 if k == axis else size for k, size in enumerate(rows.shape)]
        found = jax.lax.dynamic_slice(rows, start, sizes, allow_negative_indices=False)
        return jnp.squeeze(found, axis)

    @take.def_vmap
    def _of_batch(_: int, batched: Any, rows: Array, i: Array) -> tuple[Array, bool]:
        if batched[1]:
            raise ValueError("Argument `i` must be the same for all members.")
        return _row(axis + 1)(rows, i), True

    return take


@functools.cache
def _put(axis: int) -> Callable[[Array, Array, Array], Array]:
    @custom_vmap
    def put_in(rows: Array, new: Array, i: Array) -> Array:
        start = [jnp.zeros_like(i)] * rows.ndim
        start[axis] = i
        new = jnp.expand_dims(new, axis)
        return jax.lax.dynamic_update_slice(rows, new, start, allow_negative_indices=False)

    @put_in.def_vmap
    def _of_batch(size: int, batched: Any, rows: Array, new: Array, i: Array) -> tuple[Array, bool]:
        if batched[2]:
            raise ValueError("Argument `i` must be the same for all members.")
        rows = rows if batched[0] else jnp.broadcast_to(rows, (size, *rows.shape))
        new = new if batched[1] else jnp.broadcast_to(new, (size, *new.shape))
        return _put(axis + 1)(rows, new, i), True

    return put_in
