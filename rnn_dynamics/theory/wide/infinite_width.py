"""Infinite width at any weight scale: a deterministic network, without random numbers (section 3.5
of docs/theory.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.model import LinearRNN, LowRankRNN
from rnn_dynamics.model.arguments import (
    is_traced,
    numbers,
    positive_int,
    real_array,
    real_scalar,
    require,
)

LONGEST = 12  # 16382 units


def infinite_width(
    weight_scale: ArrayLike,
    input_scale: ArrayLike = 1.0,
    output_scale: ArrayLike = 1.0,
    overlap: ArrayLike = 0.0,
    max_length: int = 3,
    gram: ArrayLike | None = None,
    num_inputs: int = 1,
) -> LinearRNN:
    """The network of 2(2^{ℓ+1} - 1) units that learns like a random one of infinitely many.

        W(0) = σ (l₁ + l₂ᵀ) ⊗ I₂,    u = |u| Ω⊗e₁,    v = |v| (ρ Ω⊗e₁ + √(1-ρ²) Ω⊗e₂)

    on the words of length ≤ ℓ in two letters, where l_g puts the letter g in front of a word and Ω
    is the empty word. For N → ∞ a Gaussian W(0) = σ G/√N acts on u and v as this circular element
    does: inner products of words in W, Wᵀ applied to u and v become the numbers of their
    non-crossing pairings, without fluctuations. Trained in place of the random network it has the
    learning curve, the outliers, ‖W - W(0)‖_F, |u|, |v| and u·v of N = ∞; cutting the words off at
    length ℓ leaves an error that falls geometrically (`converged_length` measures it). Eigenvalues
    inside of the disc |λ| < σ mean nothing: the bulk is not in it.

    Means over finite networks differ from it by 1/N, single networks scatter around it by 1/√N. At
    σ = 0.3, decay 0.2 and unit norms the mean loss lies above it by at most 26, 9 and 5 % of itself
    at N = 64, 128 and 256, ‖W - W(0)‖_F by 0.7, 0.3 and 0.2 %; means of 32 networks of 256 units
    are within 2 standard errors at 85 % of the records, 10 of 16 such means at all of them (the
    outlier of another one was up to 2.9 off). At decay 0.5, N = 256 and σ = 0.3, 0.6 and 0.8, ‖W -
    W(0)‖_F of all 16, 16 and 15 means of 16 is within 2 standard errors at all records, and |u|,
    |v| and u·v of 12 to 15; but late losses, below 1e-4 of the initial one, are twice as large in
    the mean as at N = ∞ (`benchmarks/theory.py`).

    Args:
        weight_scale: σ, radius of the bulk, positive or zero; from 1 on the network is unstable.
        input_scale: |u|, positive or zero.
        output_scale: |v|, positive or zero.
        overlap: ρ = u·v/(|u||v|), between -1 and 1.
        max_length: longest word ℓ, static, 0 or more.
        gram: of several channels, the scalar products of all columns of u, then of v, (m + p, m +
            p), in place of the two scales and the overlap. The network then has m + p copies of
            the words in place of 2.
        num_inputs: m, how many of these columns are of u.

    Raises:
        TypeError: if `max_length` is not an integer, or a number is not real.
        ValueError: if a scale is negative, `overlap` is outside of [-1, 1], `max_length` is
            negative, or `gram` is given beside scales, or not symmetric and positive semi-definite.

    Example:
        >>> gram = np.eye(4)  # two inputs and two outputs
        >>> rd.theory.infinite_width(0.4, gram=gram, num_inputs=2)

    Source: sections 3.5 and 8.1 of docs/theory.md; Voiculescu's model of a circular element on
        the full Fock space.
    """
    max_length = positive_int("max_length", max_length, minimum=0, maximum=LONGEST)
    sigma = real_scalar("weight_scale", weight_scale, minimum=0)
    dtype = sigma.dtype
    alpha = real_scalar("input_scale", input_scale, minimum=0).astype(dtype)
    beta = real_scalar("output_scale", output_scale, minimum=0).astype(dtype)
    rho = real_scalar("overlap", overlap).astype(dtype)
    if not is_traced(rho):
        require(bool(abs(rho) <= 1), "overlap", "be between -1 and 1", float(rho))
    one_copy: Any = _circular(max_length)
    if gram is not None:
        given: Any = (input_scale, output_scale, overlap)
        alone = not any(is_traced(x) for x in given) and given == (1.0, 1.0, 0.0)
        require(alone, "gram", "be given without scales and an overlap", "given beside one")
        return _of_channels(sigma, one_copy, gram, num_inputs)
    vacuum = jnp.zeros(len(one_copy), dtype).at[0].set(1)
    nothing = jnp.zeros_like(vacuum)
    return LinearRNN(
        sigma * jnp.asarray(np.kron(np.eye(2), one_copy), dtype),
        alpha * jnp.concatenate([vacuum, nothing]),
        beta * jnp.concatenate([rho * vacuum, jnp.sqrt(1 - rho**2) * vacuum]),
    )


def _of_channels(sigma: jax.Array, one_copy: Any, gram: Any, num_inputs: int) -> LinearRNN:
    """One copy of the words per column; what matters of the columns is their scalar products."""
    gram = jnp.asarray(numbers("gram", gram), sigma.dtype)
    count = len(gram) if gram.ndim else 0
    require(gram.shape == (count, count), "gram", "be square", f"of shape {gram.shape}")
    num_inputs = positive_int("num_inputs", num_inputs, maximum=count - 1)
    squares, axes = jnp.linalg.eigh(gram)
    if not is_traced(gram):
        least, size = float(jnp.min(squares)), float(jnp.max(jnp.abs(squares)))
        symmetric = bool(jnp.all(jnp.abs(gram - gram.T) <= 1e-6 * size))
        require(symmetric, "gram", "be symmetric", gram)
        require(least >= -1e-6 * size, "gram", "be positive semi-definite", gram)
    root = jnp.sqrt(jnp.maximum(squares, 0))[:, None] * axes.T
    W = sigma * jnp.asarray(np.kron(np.eye(count), one_copy), sigma.dtype)
    vacua = jnp.zeros((len(W), count), sigma.dtype).at[:: len(one_copy)].set(root)
    return LinearRNN(W, vacua[:, :num_inputs], vacua[:, num_inputs:])


def low_rank_infinite_width(
    overlaps: ArrayLike, weight_scale: ArrayLike, max_length: int = 3
) -> LowRankRNN:
    """The low-rank network on a fixed random bulk of infinitely many units, without random numbers.

        bulk = σ (l₁ + l₂ᵀ) ⊗ I,    [m, U | z, V] = √n Ω ⊗ √G

    on the words of length ≤ ℓ as in `infinite_width`, with a copy for each of the 2 + 2r vectors:
    n = (2 + 2r)(2^{ℓ+1} - 1) units. Trained as every low-rank network, with its own number of units
    n as the rate of every vector, it has the learning curve of W = σ J/√N + U Vᵀ/N, rates N, for
    N → ∞, where J is Gaussian, fixed, and independent of the vectors. The error of the truncation
    falls geometrically with ℓ. Single networks of N units scatter around it by 1/√N; means of 16
    networks of 64 units, and of 8 of 128, are within 1.2 standard errors at σ = 0.6 (ℓ = 3), of 0.5
    to 2 % of the loss.

    With ℓ = 0 it has no bulk: the smallest network with the overlaps, exact for σ = 0.

    Args:
        overlaps: G = Θᵀ Θ/N of Θ = [m, U | z, V], (2 + 2r, 2 + 2r), symmetric, positive
            semi-definite; gradients in it exist where its eigenvalues differ and are positive.
        weight_scale: σ, radius of the bulk, positive or zero; from 1 on the network is unstable.
        max_length: longest word ℓ, static, 0 or more.

    Raises:
        TypeError: if `overlaps` is no real array or `max_length` not an integer.
        ValueError: if `overlaps` cannot be those of vectors, or `weight_scale` or `max_length` is
            negative.

    Example:
        >>> rnn = rd.theory.low_rank_infinite_width(overlaps, weight_scale=0.6)
        >>> rates = jax.tree.map(lambda _: float(len(rnn.U)), rnn)
        >>> rd.gradient_flow(rnn, target, [0.0, 1.0], rates=rates)

    Source: sections 3.5 and 10 of docs/theory.md.
    """
    G = real_array("overlaps", overlaps, ("2+2r", "2+2r"))
    size, half = len(G), len(G) // 2
    shape_fits = G.shape == (size, size) and size >= 4 and size % 2 == 0
    require(shape_fits, "overlaps", "have shape (2+2r, 2+2r)", f"of shape {G.shape}")
    sigma = real_scalar("weight_scale", weight_scale, minimum=0).astype(G.dtype)
    if not is_traced(G):
        size_of, skew = float(jnp.max(jnp.abs(G))), float(jnp.max(jnp.abs(G - G.T)))
        least = float(jnp.linalg.eigvalsh(G)[0])
        require(skew <= 1e-6 * size_of, "overlaps", "be symmetric", f"skew by {skew:g}")
        must, but = "be positive semi-definite", f"of a lowest eigenvalue {least:g}"
        require(least >= -1e-6 * size_of, "overlaps", must, but)
    columns = infinite_width(sigma, max_length=max_length, gram=G, num_inputs=half)
    root = np.sqrt(columns.num_units).astype(G.dtype)
    inputs, outputs = root * columns.u, root * columns.v
    bulk = columns.W if max_length else None
    return LowRankRNN(inputs[:, 0], inputs[:, 1:], outputs[:, 0], outputs[:, 1:], bulk)


def _circular(max_length: int) -> np.ndarray:
    """l₁ + l₂ᵀ on the words of length ≤ ℓ; words are numbered by length, then as binary numbers."""
    size = 2 ** (max_length + 1) - 1
    matrix = np.zeros((size, size))
    for length in range(max_length):
        first, longer = 2**length - 1, 2 ** (length + 1) - 1
        for word in range(2**length):
            matrix[longer + word, first + word] = 1  # letter 1 in front
            matrix[first + word, longer + 2**length + word] = 1  # letter 2 taken off
    return matrix
