"""The gradient of one network by others: by SciPy, and in many digits, where those of float64 cancel, SciPy's too."""

from typing import Any

import mpmath
import numpy as np
import scipy.linalg

DIGITS, DOUBLINGS = 60, 16  # rates of 0.01 are forgotten to 60 digits after 2^14 steps


def by_scipy(rnn: Any, target: Any) -> tuple[np.ndarray, ...] | None:
    """By its Lyapunov solver, or None of an unstable network."""
    W, u, v = (np.asarray(x, float) for x in (rnn.W, rnn.u, rnn.v))
    N, A = len(u), scipy.linalg.block_diag(W, np.asarray(target.W, float))
    A = np.eye(len(A)) - A
    if np.linalg.eigvals(A).real.min() <= 0:
        return None
    u, v = np.append(u, target.u), np.append(v, -np.asarray(target.v))
    P = scipy.linalg.solve_continuous_lyapunov(A, np.outer(u, u))
    Q = scipy.linalg.solve_continuous_lyapunov(A.T, np.outer(v, v))
    return (Q @ P)[:N, :N], (Q @ u)[:N], (P @ v)[:N]


def in_digits(rnn: Any, target: Any) -> tuple[np.ndarray, ...]:
    """Of a stable network in W, u and v, rounded once: both Gramians as sums over the steps of a Cayley transform, doubled."""
    N, n = len(rnn.u), len(rnn.u) + len(target.u)
    with mpmath.workdps(DIGITS):
        A, one = mpmath.eye(n), mpmath.eye(n)
        for start, W in ((0, rnn.W), (N, target.W)):
            for (i, j), x in np.ndenumerate(np.asarray(W, float)):
                A[start + i, start + j] -= mpmath.mpf(x)
        u = mpmath.matrix([*map(float, rnn.u), *map(float, target.u)])
        v = mpmath.matrix([*map(float, rnn.v), *(-float(x) for x in target.v)])
        B = mpmath.inverse(one + A)
        D, x, z = 2 * B - one, B * u, B.T * v
        P, Q = 2 * x * x.T, 2 * z * z.T
        for _ in range(DOUBLINGS):
            P, Q, D = P + D * P * D.T, Q + D.T * Q * D, D * D
        found = (Q * P)[:N, :N], (Q * u)[:N, 0], (P * v)[:N, 0]
        by_W, by_u, by_v = (np.array(part.tolist(), float) for part in found)
    return by_W, by_u[:, 0], by_v[:, 0]
