"""Losses and gradients in ball arithmetic, and whether estimates cover what is found."""

import numpy as np
import pytest
from support import parameters, relative

import rnn_dynamics as rd


def in_digits(rnn: rd.LinearRNN, target: rd.LinearRNN) -> tuple[float, np.ndarray]:
    """Loss and gradient in 600 bits, by doubling the number of steps of a Cayley transform."""
    flint = pytest.importorskip("flint")
    N, size = rnn.num_units, rnn.num_units + target.num_units

    def matrix(x):
        x = np.asarray(x, float).reshape(len(x), -1)
        return flint.arb_mat(*x.shape, [flint.arb(float(one)) for one in x.flat])

    def numbers(x):
        return np.array([[float(one.mid()) for one in row] for row in x.tolist()])

    before, flint.ctx.prec = flint.ctx.prec, 600
    try:
        W = np.zeros((size, size))
        W[:N, :N], W[N:, N:] = rnn.W, target.W
        one = matrix(np.eye(size))
        u, v = matrix(np.r_[rnn.u, target.u]), matrix(np.r_[rnn.v, -np.asarray(target.v)])
        B = (2 * one - matrix(W)).inv()
        D, x, z = 2 * B - one, B * u, B.transpose() * v
        P, Q = 2 * (x * x.transpose()), 2 * (z * z.transpose())
        for _ in range(40):
            P, Q, D = P + D * P * D.transpose(), Q + D.transpose() * Q * D, D * D
            if max(abs(x) for row in numbers(D) for x in row) < 1e-60:
                break
        value = numbers(v.transpose() * P * v)[0, 0] / 2
        parts = numbers(Q * P)[:N, :N], numbers(Q * u)[:N, 0], numbers(P * v)[:N, 0]
        return value, np.concatenate([part.ravel() for part in parts])
    finally:
        flint.ctx.prec = before


def is_covered(found: rd.Evaluation, value: float, gradient: np.ndarray) -> bool:
    """Whether value and gradient are right within four times their estimates or 1e-8."""
    errors = (
        (relative(found.value, value), found.value_error),
        (relative(parameters(found.gradient), gradient), found.gradient_error),
    )
    return all(true <= max(4 * float(estimate), 1e-8) for true, estimate in errors)
