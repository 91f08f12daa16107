"""The network of least norm that has a given impulse response (section 9 of docs/theory.md)."""

import jax.numpy as jnp
import numpy as np

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, require
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.plateaus.small_networks import Arrays, arrays

MOST_STEPS = 200
CONVERGED = 1e-13  # of C, relative to the squared norm
LONGEST_STEP = 1.0  # of log T


def minimal_norm(rnn: LinearRNN) -> LinearRNN:
    """The network of least norm among all that differ from a network by units of the state.

        min over T of |T W T⁻¹|² + |T u|² + |T⁻ᵀ v|²,    where C = u uᵀ - v vᵀ + W Wᵀ - Wᵀ W = 0

    Learning with equal rates keeps C, so that small weights learn networks of C ≈ 0. The norm is
    convex along T = e^{Xs}, X symmetric, so Newton's method finds the minimum. It is unique up to
    rotations of the state.

    Computed on the host, in float64. It differentiates and maps over nothing.

    Args:
        rnn: any `LinearRNN` of N units, at most a few dozen: time grows with N⁶.

    Returns:
        The network, of N units. Modes that k(t) does not show stay, with their eigenvalues.

    Raises:
        ValueError: if no such network exists, as where W cannot be diagonalised and k(t) does not
            show all of it.

    Example:
        `rd.theory.minimal_norm(rd.damped_oscillator(0.3, 1.0))` has the squared norm 4.98.

    Source: section 9 of docs/theory.md.
    """
    require_known(rnn=rnn)
    found = least(arrays(rnn))
    require(found is not None, "rnn", "have a network of least norm", "one without")
    return as_rnn(found, rnn.dtype) if found else rnn


def require_known(**rnns: LinearRNN) -> None:
    """Refuse what is no `LinearRNN` of one input and one output, or is traced."""
    require_rnns(**rnns)
    for name, rnn in rnns.items():
        single = np.ndim(rnn.u) == np.ndim(rnn.v) == 1
        shapes = f"{np.shape(rnn.u)} and {np.shape(rnn.v)}"
        require(single, name, "have one input and one output", f"one with u and v of {shapes}")
        if is_traced(rnn.W) or is_traced(rnn.u) or is_traced(rnn.v):
            raise TypeError(f"Argument `{name}` must hold numbers, but is traced.")


def as_rnn(network: Arrays, dtype: np.dtype) -> LinearRNN:
    """W, u and v as a network of a dtype."""
    return LinearRNN(*(jnp.asarray(x, dtype) for x in network))


def least(network: Arrays) -> Arrays | None:
    """`minimal_norm` of arrays; None if it does not converge."""
    N = len(network[1])
    rows, columns = np.triu_indices(N)
    basis = np.zeros((len(rows), N, N))
    basis[np.arange(len(rows)), rows, columns] = basis[np.arange(len(rows)), columns, rows] = 1
    for _ in range(MOST_STEPS):
        W, u, v = network
        C = np.outer(u, u) - np.outer(v, v) + W @ W.T - W.T @ W
        if np.linalg.norm(C) <= CONVERGED * _norm(network):
            return network
        moves = [(basis @ W - W @ basis).reshape(len(rows), -1), basis @ u, -basis @ v]
        along = np.concatenate(moves, 1)
        here = np.concatenate([W.ravel(), u, v])
        # X acts as a symmetric matrix: the second derivative is 4 |X (W, u, v)|²
        step = -np.linalg.lstsq(2 * along @ along.T, along @ here, rcond=1e-13)[0]
        X = np.tensordot(step, basis, 1)
        X *= min(1.0, LONGEST_STEP / np.linalg.norm(X, 2))
        while _norm(moved := _in_units(network, X)) > _norm(network) and np.any(X):
            X = X / 2
        network = moved
    return None


def _norm(network: Arrays) -> float:
    return float(sum(np.sum(x**2) for x in network))


def _in_units(network: Arrays, X: np.ndarray) -> Arrays:
    """The network in the units T = e^X."""
    W, u, v = network
    values, vectors = np.linalg.eigh(X)
    T, inverse = ((vectors * np.exp(sign * values)) @ vectors.T for sign in (1, -1))
    return T @ W @ inverse, T @ u, inverse @ v
