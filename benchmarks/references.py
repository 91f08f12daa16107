"""The gradient of one network by others: by SciPy, and in many digits, where those of float64
cancel, SciPy's too.
"""

from typing import Any

import numpy as np
import scipy.linalg
from flint import arb, arb_mat, ctx

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
    """Of a stable network in W, u and v, rounded once: both Gramians as sums over the steps of a
    Cayley transform, doubled, in ball arithmetic.

    Raises:
        ArithmeticError: if it has fewer digits than float64.
    """
    N, W = len(rnn.u), scipy.linalg.block_diag(rnn.W, target.W).astype(float)
    earlier, ctx.dps = ctx.dps, DIGITS
    try:
        one = balls(np.eye(len(W)))
        u, v = balls(np.r_[rnn.u, target.u]), balls(np.r_[rnn.v, -np.asarray(target.v)])
        B = (2 * one - balls(W)).inv()
        D, x, z = 2 * B - one, B * u, B.transpose() * v
        P, Q = 2 * (x * x.transpose()), 2 * (z * z.transpose())
        for _ in range(DOUBLINGS):
            P, Q, D = P + D * P * D.transpose(), Q + D.transpose() * Q * D, D * D
        return numbers(Q * P)[:N, :N], numbers(Q * u)[:N, 0], numbers(P * v)[:N, 0]
    finally:
        ctx.dps = earlier


def balls(x: np.ndarray) -> arb_mat:
    """Numbers as they are, of a matrix or a column."""
    x = np.asarray(x, float).reshape(len(x), -1)
    return arb_mat(*x.shape, [arb(float(one)) for one in x.flat])


def numbers(x: arb_mat) -> np.ndarray:
    """The middles of balls, each of which must have the digits of float64, beside the largest of
    its row.
    """
    parts = [[(float(one.mid()), float(one.rad())) for one in row] for row in x.tolist()]
    middles, radii = np.moveaxis(np.array(parts), -1, 0)
    if not np.all(radii.max(axis=1) < 1e-17 * np.abs(middles).max(axis=1)):
        raise ArithmeticError(f"{DIGITS} digits are not enough.")
    return middles
