"""Bases with a complex pair of poles instead of a real one, for ceiling.py.

For an oscillator of decay γ and frequency ω the poles of A = 1 - W that count are γ ± iω. With T =
(A + γ)² + ω², real, the basis grows by T⁻¹ and by A in turn, so that two vectors have one pair of
poles at -γ ± iω; H is found by its products with W. The engine's bases of the same size have a real
pole.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from ceiling_bases import in_bases

import rnn_dynamics as rd
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.krylov import projected
from rnn_dynamics.loss.krylov.inverse import inverse

DECAY, FREQUENCY = 0.1, 1.0
SIZES = (12, 20)

Gradient = Callable[[rd.LinearRNN], rd.LinearRNN]


def target_of(rnn: rd.LinearRNN) -> rd.LinearRNN:
    """The oscillator, in the dtype of a network."""
    return rd.damped_oscillator(DECAY, FREQUENCY).astype(rnn.dtype)


def bases(rnn: rd.LinearRNN, size: int) -> tuple[jax.Array, jax.Array]:
    """Orthonormal rows V and U, (m, N) each."""
    A = jnp.eye(rnn.num_units, dtype=rnn.dtype) - rnn.W
    shifted = A + DECAY * jnp.eye(rnn.num_units, dtype=rnn.dtype)
    eye = FREQUENCY**2 * jnp.eye(rnn.num_units, dtype=rnn.dtype)
    G = inverse(shifted @ shifted + eye)

    def grow(K: tuple[jax.Array, jax.Array], x: jax.Array) -> jax.Array:
        rows = (x / jnp.linalg.norm(x))[None]
        for index in range(1, size - 2):
            y = K[index % 2] @ rows[-1]
            for _ in range(2):
                y = y - (rows @ y) @ rows
            rows = jnp.concatenate([rows, (y / jnp.linalg.norm(y))[None]])
        return rows

    return grow((A, G), rnn.u), grow((A.T, G.T), rnn.v)


def pair(rnn: rd.LinearRNN, size: int) -> rd.LinearRNN:
    """The gradient in bases with a complex pair of poles."""
    return in_bases(rnn, *bases(rnn, size), target_of(rnn))


def real(rnn: rd.LinearRNN, size: int) -> rd.LinearRNN:
    """The gradient in the engine's bases of one size."""
    return projected.projected_gradient(rnn, target_of(rnn), size, projected.probe(rnn)).gradient


def exact(rnn: rd.LinearRNN) -> rd.LinearRNN:
    """The gradient by doubling."""
    return doubling.gradient(rnn, target_of(rnn))[1]


def learn(rnn: rd.LinearRNN) -> rd.LinearRNN:
    """The engine's gradient."""
    return rd.PopulationLoss().value_and_grad(rnn, target_of(rnn))[1]


PAIRS: dict[int, Gradient] = {size: partial(pair, size=size) for size in SIZES}
REALS: dict[int, Gradient] = {size: partial(real, size=size) for size in SIZES}
