"""Gradients of small networks near a solution, where those of `energy` are differences of numbers that agree to most digits.

The relative error of a Gramian is about eps, and so is that of its products Q P, Q u, P v with all of student and target; what the student
and the target have in common cancels, and what is left is as small as the root of the loss. One step of iterative refinement, with residuals
in twice the digits, leaves an error of about eps², before cancellation:

    A P + P Aᵀ = u uᵀ,    A δP + δP Aᵀ = u uᵀ - (A P + P Aᵀ),    P ← P + δP    as an unevaluated sum, and likewise Q

Source: Higham, Accuracy and Stability of Numerical Algorithms, 12; sums as in Dot2 of Ogita, Rump and Oishi, SIAM J. Sci. Comput. 26, 1955
(2005), of products in exact parts, as compilers fuse a product with the sum that follows it.
"""

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.panels import longest_panel
from rnn_dynamics.model import LinearRNN

Pair = tuple[jax.Array, jax.Array]  # a sum of two numbers, of which the second is small

# Of the longest panel, that of the correction, of which terms of third order are left out: 1e-14.
FIRST_PANEL = 2.0**-24
# Of the norm of e^{-At}, squared, where the correction ends.
NEGLIGIBLE, MOST_DOUBLINGS = 1e-20, 84


def refined_gradient(rnn: LinearRNN, P: jax.Array, Q: jax.Array) -> LinearRNN:
    """∂/∂W = Q P, ∂/∂u = Q u, ∂/∂v = P v of the energy of a network, as `energy_gradient`, to twice the digits before cancellation; in float64.

    Args:
        rnn: the network, of N units.
        P, Q: its Gramians, (N, N); symmetric.
    """
    W, x = jnp.stack([rnn.W, rnn.W.T]), jnp.stack([rnn.u, rnn.v])
    X = jnp.stack([P, Q])
    X = (X + jnp.swapaxes(X, 1, 2)) / 2
    with jax.default_matmul_precision("highest"):
        # one loop over W [P u] and Q [P u], Wᵀ [Q v] and P [Q v]
        ends = jnp.concatenate([X, x[:, :, None]], axis=2)
        high, low = product(jnp.stack([W, X[::-1]]), ends[None])
        R = _residual(x, X, (high[0, :, :, :-1], low[0, :, :, :-1]))
        more = _correction(W, R, FIRST_PANEL * longest_panel(rnn.W))
        more_ends = jnp.concatenate([more, jnp.zeros_like(x)[:, :, None]], axis=2)
        found = high[1] + (low[1] + (X[::-1] @ more_ends + more[::-1] @ ends))
    parts = (found[0, :, :-1], found[0, :, -1], found[1, :, -1])
    return eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, parts)


def product(A: jax.Array, B: jax.Array) -> Pair:
    """A B in twice the digits, (..., N, M) and (..., M, K) → (..., N, K)."""

    def add(k: jax.Array, carry: Pair) -> Pair:
        column = jax.lax.dynamic_index_in_dim(A, k, -1)
        return _plus_product(carry, column, jax.lax.dynamic_index_in_dim(B, k, -2))

    zeros = jnp.zeros((*A.shape[:-1], B.shape[-1]), A.dtype)
    return jax.lax.fori_loop(0, A.shape[-1], add, (zeros, zeros))


def _residual(x: jax.Array, X: jax.Array, WX: Pair) -> jax.Array:
    """x xᵀ - (A X + X Aᵀ) of a symmetric X, A = 1 - W, (2, N, N)."""
    high, low = WX
    carry: Pair = -2 * X, low + jnp.swapaxes(low, 1, 2)
    carry = _plus_product(carry, x[:, :, None], x[:, None, :])
    for part in (high, jnp.swapaxes(high, 1, 2)):
        carry = _plus(carry, part)
    return carry[0] + carry[1]


def _correction(W: jax.Array, R: jax.Array, h: jax.Array) -> jax.Array:
    """X of A X + X Aᵀ = R, (2, N, N): the integral over a very short panel h, doubled as in `energy`; E - 1 keeps the digits that E would lose."""
    ones = jnp.broadcast_to(jnp.eye(W.shape[-1], dtype=W.dtype), W.shape)
    hA = h * (ones - W)
    half = hA @ R / 2

    def going(carry: tuple[jax.Array, ...]) -> jax.Array:
        D, _, doublings = carry  # D = E - 1
        return (jnp.sum((ones + D) ** 2) > NEGLIGIBLE) & (doublings < MOST_DOUBLINGS)

    def double(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        D, X, doublings = carry
        E = ones + D
        return 2 * D + D @ D, X + E @ X @ jnp.swapaxes(E, 1, 2), doublings + 1

    X = h * (R - half - jnp.swapaxes(half, 1, 2))
    start: tuple[jax.Array, ...] = (hA @ hA / 2 - hA, X, jnp.int32(0))
    return jax.lax.while_loop(going, double, start)[1]


def _plus(carry: Pair, x: jax.Array) -> Pair:
    """The sum of a pair and a number: that of the high part is exact."""
    high, low = carry
    total = high + x
    own = total - high
    return total, low + ((high - (total - own)) + (x - own))


def _plus_product(carry: Pair, a: jax.Array, b: jax.Array) -> Pair:
    """The sum of a pair and a product, of which all parts are exact: so nothing changes if a compiler fuses them with a sum."""
    (upper_a, lower_a), (upper_b, lower_b) = _halves(a), _halves(b)
    for part in (upper_a * upper_b, upper_a * lower_b, lower_a * upper_b):
        carry = _plus(carry, part)
    return carry[0], carry[1] + lower_a * lower_b


def _halves(x: jax.Array) -> Pair:
    """A number's upper 26 digits, and the rest."""
    digits = jax.lax.bitcast_convert_type(x, jnp.uint64) & jnp.uint64(0xFFFFFFFFF8000000)
    upper = jax.lax.bitcast_convert_type(digits, x.dtype)
    return upper, x - upper
