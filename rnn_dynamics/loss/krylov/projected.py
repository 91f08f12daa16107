"""The exact gradient of a large network by a small problem: both Gramians in Krylov bases of n - N*
vectors.

With B = (p + A)⁻¹ and D = 2p B - 1, a rational function of A = 1 - W, time is traded for steps
(Laguerre functions of time, of rate p):

    ∫ q(t) q(t)ᵀ dt = Σ_j x_j x_jᵀ,    x_j = √(2p) D^j B u

and k(t) has the coefficients vᵀ x_j.

V and U are Krylov bases of W B = (1 + p) B - 1 and its transpose (networks of up to MOST_INVERTED
units: a pole at -p saves half of the vectors and more) or of W and Wᵀ (larger ones: no inverse is
needed). With the target as it is, the Gramians of the difference of student and target have the
corners

    P ≈ Vᵀ X V,    Q ≈ Uᵀ Y U          (X, Y: Gramians of n × n systems, by doubling)

and the gradient (section 2 of docs/theory.md) is

    ∂L/∂W = Uᵀ C V,    C = Y_ss (U Vᵀ) X_ss + Y_s* X_*s        (s: student, *: target)

The next vector v₊ of V, which is left out, would couple by h = H_{m+1,m} to the last one, and that
of U by f = F_{m+1,m}. What they do to the gradient is estimated by

    h (|(C e_m, (V ∂L/∂v)_m)| + |Y U v₊| |X e_m|) + h f (X_mm Y_mm tr X tr Y)^{1/2}

(the first term likewise from the left): the next column of C and component of ∂L/∂v, the error of
the impulse response, and what both leave out together. The loss changes by h (v₊ᵀ Q P e_m), its
derivative in this coupling, and by what both leave out of k. Without knowledge of a spectrum this
follows the true error within a factor of about ten, from 1e-3 to 1e-11 (benchmarks/columns.py),
unless e^{-At} grows before it decays: where ‖D^j‖ does so, bases are not relied on. Source: Ruhe,
Linear Algebra and its Applications 58, 391 (1984), for bases of an inverse; section 1 of Smith,
SIAM J. Appl. Math. 16, 198 (1968), for the doubling.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss.estimate import relative
from rnn_dynamics.loss.krylov.arnoldi import Bases, both_bases
from rnn_dynamics.loss.krylov.inverse import HalvedInverse, halved_inverse, inverse
from rnn_dynamics.model import LinearRNN

# p, in leak rates: below one half the symmetric part of p + A is positive in random networks up to
# a weight scale of 0.99, so that elimination needs no pivots; of 0.2, 0.4, 0.7 and 1 it takes the
# fewest vectors over weight scales, decays and training.
SHIFT = 0.4
MOST_INVERTED = 160  # units: beyond, an inverse costs more than the vectors that it saves
LARGEST_RESIDUAL = 1000.0  # of eps: an inverse that has lost more digits is not used
SAFETY = 10.0  # of the truncation: with 7 it was too small for 1.1 % of random networks
ROUNDING = 0.05  # of eps · steps · |X| |Y|, the products that C is a sum of
NUM_DOUBLED = 4  # doublings of columns, before the Gramian itself is cheaper to double
MOST_DOUBLINGS = 40
# Of the loss beside a gradient, which learning does not use: the larger bases that 1e-8 takes near
# a solution would not pay.
LARGEST_VALUE_ERROR = 1e-6
# Of the target's response: what rounding does to the network's, if estimates are relied on.
LARGEST_LOSS = 0.1
LARGEST_GROWTH = 4.0  # of ‖D^j‖_F/√n; 0.7 in random networks


class Probe(NamedTuple):
    """What is known of a network before any basis is built.

    Attributes:
        B: (p + A)⁻¹ in blocks, or None of a network that is too large to be inverted.
        residual: |B (p + A) x - x| / |x| of a random x, (); 0 without B.
        finite: whether all parameters are, () bool.
    """

    B: HalvedInverse | None
    residual: jax.Array
    finite: jax.Array


class Projected(NamedTuple):
    """Loss and gradient of a projected network.

    Attributes:
        value: the loss, ().
        gradient: in the student.
        truncation: estimates of the relative errors of value and gradient made by the bases, (2,).
        rounding: estimates of the relative errors of value and gradient by rounding, (2,).
        reliable: whether errors can be known, () bool: the projected network is stable and does not
            grow, as ‖D^j‖ falls well below 1 at some j and is never large, and its response is not
            lost in the rounding of what it is a sum of.
        doublings: of one step, until it does, ().
    """

    value: jax.Array
    gradient: LinearRNN
    truncation: jax.Array
    rounding: jax.Array
    reliable: jax.Array
    doublings: jax.Array


def probe(rnn: LinearRNN) -> Probe:
    """Invert p + A if that pays, and see by a random vector how good the inverse is."""
    W, N, s = rnn.W, rnn.num_units, 1 + SHIFT
    x = jnp.asarray(np.random.default_rng(0).choice([-1.0, 1.0], N) / np.sqrt(N), rnn.dtype)
    Wx = W @ x
    finite = jnp.isfinite(Wx @ Wx + rnn.u @ rnn.u + rnn.v @ rnn.v)
    if N > MOST_INVERTED:
        return Probe(None, jnp.zeros((), rnn.dtype), finite)
    B = halved_inverse(_shifted(W))
    gap = B.times(s * x - Wx) - x
    return Probe(B, jnp.sqrt(gap @ gap), finite)


def projected_gradient(rnn: LinearRNN, target: LinearRNN, size: int, seen: Probe) -> Projected:
    """Loss and gradient over an infinite horizon from a projection to `size` dimensions, the
    target's included.

    Args:
        rnn: the student.
        target: the target.
        size: dimensions of the small problem.
        seen: what `probe` sees of the student.
    """
    dtype, m = rnn.dtype, size - target.num_units
    bases = krylov_bases(rnn, m, seen.B)
    overlaps = bases.vectors[1] @ bases.vectors[0].T  # of left and right vectors, (m + 1, m + 1)
    V, U = bases.vectors[0, :m], bases.vectors[1, :m]

    inner = jnp.swapaxes(bases.H[:, :, :m], 1, 2)
    if seen.B is None:
        inner = jax.vmap(lambda H: inverse(_shifted(H)))(inner)
    else:  # B from W B
        inner = (inner + jnp.eye(m, dtype=dtype)[None]) / (1 + SHIFT)
    outer = inverse(_shifted(target.W))
    systems = jnp.zeros((2, size, size), dtype)
    systems = systems.at[:, :m, :m].set(inner).at[:, m:, m:].set(jnp.stack([outer, outer.T]))
    starts = jnp.zeros((2, size), dtype).at[:, 0].set(bases.norms)
    starts = starts.at[:, m:].set(jnp.stack([target.u, -target.v]))
    # the first vectors are u / |u| and v / |v|: V v and U u
    ends = bases.norms[::-1, None] * jnp.stack([overlaps[0, :m], overlaps[:m, 0]])
    ends = jnp.concatenate([ends, jnp.stack([-target.v, target.u])], axis=1)
    grams = jax.vmap(_gramian)(systems, starts)
    X, Y = grams.gramian

    # Y diag(U Vᵀ, 1) X; the last column and row, for the vectors that are left out, are Y U v₊ and
    # X V u₊
    middle = jnp.eye(size + 1, dtype=dtype).at[:m, :m].set(overlaps[:m, :m])
    middle = middle.at[:m, size].set(overlaps[:m, m]).at[size, :m].set(overlaps[m, :m])
    left = Y[:m] @ middle[:size]
    right = jnp.concatenate([left[:, :size], middle[size:, :size]]) @ X[:, :m]
    C, missed = right[:m], (left[:, size], right[m])
    du, dv = jnp.einsum("kij,kj->ki", grams.gramian[::-1, :m], ends[::-1])
    by_left = U.T @ jnp.concatenate([C, du[:, None]], axis=1)
    gradient = LinearRNN(by_left[:, :m] @ V, by_left[:, m], dv @ V)

    h, f = bases.H[:, m - 1, m]
    by_V, by_U = jnp.append(C[:, -1], dv[-1]), jnp.append(C[-1], du[-1])
    variances = jnp.maximum(jnp.diagonal(grams.gramian, axis1=1, axis2=2), 0)  # (2, size)
    both = h * f * jnp.sqrt(jnp.prod(variances[:, m - 1]))
    sizes = jnp.sqrt(jnp.sum(variances[:, :m], axis=1))
    neglected = h * (_norm(by_V) + _norm(missed[0]) * _norm(X[:m, m - 1]))
    neglected += f * (_norm(by_U) + _norm(missed[1]) * _norm(Y[:m, m - 1]))
    coupling = (Y @ middle[:size, size]) @ (middle[:size, :size] @ X[:, m - 1])
    length = jnp.sqrt(jnp.sum(C**2) + jnp.sum(du**2) + jnp.sum(dv**2))
    value = _energy(grams, ends[0])
    eps = float(jnp.finfo(dtype).eps) + seen.residual
    doublings = jnp.max(grams.doublings)
    steps = ROUNDING * jnp.exp2(doublings.astype(dtype))
    # of the samples of k, and of what is left after them
    states, root = jnp.sqrt(variances[0]), jnp.sqrt(2 * value)
    wanted = jnp.abs(target.v) @ states[m:]
    samples = eps * (bases.norms[1] * sizes[0] + wanted)
    later = jnp.abs(ends[0] @ grams.remote[0]) @ states
    lost = jnp.stack(
        [
            samples * (root + samples) + eps * steps * later**2,
            eps * steps * _norm(X) * _norm(Y),
        ]
    )
    changed = h * jnp.abs(coupling) + both * (root + both)
    missing = jnp.stack([changed, neglected + both * jnp.prod(sizes)])
    whole = jnp.stack([value, length])
    return Projected(
        value=value,
        gradient=gradient,
        truncation=relative(SAFETY * missing, whole),
        rounding=relative(lost, whole),
        reliable=jnp.all(grams.stable & (grams.growth <= LARGEST_GROWTH))
        & (samples <= LARGEST_LOSS * wanted),
        doublings=doublings,
    )


def _shifted(W: jax.Array) -> jax.Array:
    return (1 + SHIFT) * jnp.eye(len(W), dtype=W.dtype) - W


def krylov_bases(rnn: LinearRNN, size: int, B: HalvedInverse | None) -> Bases:
    """Both bases of `size` vectors: of W B by the B of `probe`, or of W."""
    if B is None:
        W = rnn.W
        return both_bases(lambda x: W @ x, lambda x: x @ W, rnn.u, rnn.v, size, 0.0)
    s = 1 + SHIFT
    return both_bases(
        lambda x: s * B.times(x) - x,
        lambda x: s * B.transposed_times(x) - x,
        rnn.u,
        rnn.v,
        size,
        1.0,
    )


class _Gramian(NamedTuple):
    gramian: jax.Array  # Σ_j x_j x_jᵀ, (n, n)
    remote: jax.Array  # D^J, (n, n)
    columns: jax.Array  # the first x_j, (n, J)
    doublings: jax.Array  # of one step
    stable: jax.Array
    growth: jax.Array  # largest ‖D^j‖_F/√n


def _gramian(B: jax.Array, start: jax.Array) -> _Gramian:
    """Σ_j x_j x_jᵀ of x_j = √(2p) D^j B u, by doubling: of J columns first."""
    D = 2 * SHIFT * B - jnp.eye(len(B), dtype=B.dtype)
    columns = (2 * SHIFT) ** 0.5 * (B @ start)[:, None]
    growth = _norm(D)
    for _ in range(NUM_DOUBLED):
        columns, D = jnp.concatenate([columns, D @ columns], axis=1), D @ D
        growth = jnp.maximum(growth, _norm(D))
    tolerance = float(jnp.finfo(D.dtype).eps) ** 0.25  # squared twice: by this doubling, and in P

    def double(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        P, D, _, growth, doublings = carry
        size = _norm(D)
        return P + D @ P @ D.T, D @ D, size, jnp.maximum(growth, size), doublings + 1

    first = jnp.full((), jnp.inf, D.dtype), growth, jnp.asarray(NUM_DOUBLED, jnp.int32)
    remote = D
    carry: tuple[jax.Array, ...] = (columns @ columns.T, D, *first)
    P, _, size, growth, doublings = jax.lax.while_loop(
        lambda carry: (carry[2] > tolerance) & (carry[4] < MOST_DOUBLINGS), double, carry
    )
    growth = growth / len(B) ** 0.5
    return _Gramian(P, remote, columns, doublings, size <= tolerance, growth)


def _energy(grams: _Gramian, end: jax.Array) -> jax.Array:
    """½ ∫ k(t)² dt, a sum of squares, of the right system."""
    remote = end @ grams.remote[0]
    rest = jnp.maximum(remote @ grams.gramian[0] @ remote, 0)  # but for rounding
    return (jnp.sum((end @ grams.columns[0]) ** 2) + rest) / 2


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x**2))
