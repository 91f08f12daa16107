"""Balanced units of the state: a diagonal change of units h → D h, exact as D holds powers of two.

    W → D W D⁻¹,    u → D u,    v → D⁻¹ v                     leaves k(t) as it is

A norm of e^{-At} depends on the units, a spectrum does not, so whatever is decided by norms is
decided in balanced units. With the rates S = |1 - diag W| and Z = S^{-1/2} |W - diag W| S^{-1/2}, D
= (y/x)^{1/2} with the right and left Perron vectors x and y of Z minimises ‖D Z D⁻¹‖₂. They are
computed as sums over paths, x ∝ Σ_j Z^j 1 and y ∝ Σ_j 1ᵀ Z^j, which exist for triangular W too. For
these, for Jordan blocks and for chains with couplings that are stronger one way than the other,
e^{-At} then does not grow before it decays. Sums, traces and products of non-negative numbers are
accurate in any units.

Source: Stoer and Witzgall, Numerische Mathematik 4, 158 (1962).
"""

import jax
import jax.numpy as jnp

# Of what a unit gives and gets, where units are balanced as they are; among few units it varies
# more.
LARGEST_RATIO, LARGEST_RATIO_OF_FEW, FEW = 3.0, 5.0, 24
SMALLEST_RATE = 2.0**-10  # of the largest |1 - W_ii|: a unit without a leak has no time scale
LARGEST_EXPONENT = {8: 400, 4: 30}  # of D, by the bytes of a number: P scales with D²


def balancing_units(W: jax.Array) -> jax.Array:
    """D, powers of two, (N, N) → (N,)."""
    W = jax.lax.stop_gradient(W)
    N = len(W)
    one = jnp.ones(N, W.dtype)
    rates = jnp.abs(one - jnp.diagonal(W))
    roots = jnp.sqrt(jnp.maximum(rates, SMALLEST_RATE * jnp.max(rates)))
    Z = jnp.abs(W - jnp.diag(jnp.diagonal(W))) / (roots[:, None] * roots[None, :])

    def extend(_: int, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        Z, x, y = carry
        x, y = x + Z @ x, y + y @ Z
        Z = Z @ Z
        return Z / jnp.maximum(jnp.trace(Z) / N, one[0]), x / jnp.max(x), y / jnp.max(y)

    most = LARGEST_RATIO if N >= FEW else LARGEST_RATIO_OF_FEW
    gets, gives = jnp.sum(Z, axis=1), jnp.sum(Z, axis=0)
    unequal = jnp.any(jnp.maximum(gets, gives) > most * jnp.minimum(gets, gives))
    squarings = jnp.where(unequal, jnp.int32(N.bit_length() + 1), jnp.int32(0))
    _, x, y = jax.lax.fori_loop(0, squarings, extend, (Z, one, one))
    exponent = jnp.round(jnp.log2(y / x) / 2)
    limit = LARGEST_EXPONENT[W.dtype.itemsize]
    exponent = jnp.nan_to_num(exponent, nan=0.0, posinf=limit, neginf=-limit)
    exponent = jnp.clip(exponent, -limit, limit)
    return jnp.exp2(exponent - jnp.round(jnp.mean(exponent)))


def in_units(W: jax.Array, d: jax.Array) -> jax.Array:
    """D W D⁻¹, (N, N), (N,) → (N, N)."""
    return d[:, None] * W / d[None, :]


def scaled(d: jax.Array, x: jax.Array) -> jax.Array:
    """D x of a vector or of columns, (N,), (N,) or (N, m) → the shape of x."""
    return d * x if x.ndim == 1 else d[:, None] * x
