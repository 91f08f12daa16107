"""exp(-(I - W) t): how a network forgets.

Written with matrix products alone: no LAPACK, and the scalar part e^{-t} is exact.
(`jax.scipy.linalg.expm` scales too little for norms between 5 and 11 times a power of two and is
wrong by 1e-8 there.)
"""

import math

import jax
import jax.numpy as jnp

TAYLOR_DEGREE = 16  # of e^{hW}, h · growth ≤ 1: the remainder is below 1/17! = 3e-15
# floats: without 64-bit mode JAX cannot take 16! as an integer
FACTORIALS = [float(math.factorial(k)) for k in range(TAYLOR_DEGREE + 5)]
MAX_SQUARINGS = 60


def growth(W: jax.Array) -> jax.Array:
    """‖W⁴‖_F^¼, (N, N) → (): the rate of the Taylor series of e^{tW}.

    The fourth power measures what W does when it is applied repeatedly; ‖W‖_F alone is √N times too
    large for a random W.
    """
    W2 = W @ W
    return jnp.sqrt(jnp.sqrt(jnp.linalg.norm(W2 @ W2)))


def taylor_powers(B: jax.Array) -> list[jax.Array]:
    """B⁰ … B⁴, each (N, N)."""
    B2 = B @ B
    return [jnp.eye(B.shape[0], dtype=B.dtype), B, B2, B2 @ B, B2 @ B2]


def taylor_exponential(
    powers: list[jax.Array], degree: int = TAYLOR_DEGREE, constant: bool = True
) -> jax.Array:
    """Σ_{k ≤ degree} B^k/k!, of a degree of 16 or 20, from B⁰ … B⁴ (Paterson and Stockmeyer), (N,
    N); without k = 0 unless `constant`.
    """
    blocks = []
    for low in range(degree - 4, -1, -4):
        block = powers[0] / FACTORIALS[low] if low or constant else jnp.zeros_like(powers[0])
        for i in range(1, 4):
            block = block + powers[i] / FACTORIALS[low + i]
        blocks.append(block)
    result = powers[4] / FACTORIALS[degree] + blocks[0]
    for block in blocks[1:]:
        result = result @ powers[4] + block
    return result


def propagator(W: jax.Array, t: jax.Array) -> jax.Array:
    """exp(-(I - W) t) at one time of either sign, (N, N), () → (N, N), by scaling and squaring."""
    with jax.default_matmul_precision("highest"):
        size = jnp.abs(t) * growth(W)
        squarings = jnp.ceil(jnp.log2(jnp.maximum(size, jnp.ones_like(size))))
        squarings = jnp.nan_to_num(squarings, nan=0.0, posinf=MAX_SQUARINGS).astype(jnp.int32)
        h = t * jnp.exp2(-squarings.astype(t.dtype))
        E = jnp.exp(-h) * taylor_exponential(taylor_powers(h * W))
        return jax.lax.fori_loop(0, jnp.minimum(squarings, MAX_SQUARINGS), lambda _, E: E @ E, E)
