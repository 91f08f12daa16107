"""What the members of a batch decide together."""

from typing import Any

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
