"""Directions in the space of units."""

import jax
import jax.numpy as jnp


def unit(x: jax.Array) -> jax.Array:
    """x of unit length, (N,) → (N,); 0 stays 0."""
    largest = jnp.max(jnp.abs(x))  # of numbers whose squares underflow too
    x = x / jnp.where(largest > 0, largest, jnp.ones_like(largest))
    size = jnp.linalg.norm(x)
    return x / jnp.where(size > 0, size, jnp.ones_like(size))


def without(axis: jax.Array, x: jax.Array) -> jax.Array:
    """x less its part along an axis of unit length, (N,), (N,) → (N,)."""
    return x - (axis @ x) * axis
