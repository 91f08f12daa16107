"""Targets: small linear networks with a closed-form impulse response (section 1 of the theory
note).
"""

import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import real_scalar
from rnn_dynamics.model.linear_rnn import LinearRNN, require_rnns


def leaky_integrator(decay: ArrayLike) -> LinearRNN:
    """The network of one unit with k*(t) = exp(-decay t): its eigenvalue is 1 - decay.

    Args:
        decay: decay rate per leak time constant, positive; 0 is the perfect integrator, which has
            an infinite loss over an infinite horizon.

    Raises:
        ValueError: if `decay` is negative or not finite.
    """
    decay = real_scalar("decay", decay, minimum=0)
    one = jnp.ones((1,), dtype=decay.dtype)
    return LinearRNN((1 - decay).reshape(1, 1), one, one)


def damped_oscillator(decay: ArrayLike, frequency: ArrayLike, phase: ArrayLike = 0.0) -> LinearRNN:
    """The network of two units with k*(t) = exp(-decay t) cos(frequency t + phase).

    Its eigenvalues are 1 - decay ± i frequency.

    Args:
        decay: decay rate per leak time constant, positive or zero.
        frequency: angular frequency, radians per leak time constant.
        phase: phase in radians.

    Raises:
        ValueError: if `decay` is negative, or an argument is not finite.
    """
    decay = real_scalar("decay", decay, minimum=0)
    frequency = real_scalar("frequency", frequency).astype(decay.dtype)
    phase = real_scalar("phase", phase).astype(decay.dtype)
    W = jnp.stack([jnp.stack([1 - decay, frequency]), jnp.stack([-frequency, 1 - decay])])
    u = jnp.array([1.0, 0.0], dtype=decay.dtype)
    return LinearRNN(W, u, jnp.stack([jnp.cos(phase), jnp.sin(phase)]))


def parallel(*rnns: LinearRNN) -> LinearRNN:
    """The networks side by side: W is block-diagonal and the impulse responses add.

    Raises:
        ValueError: if no network is given, or their inputs or outputs differ in number.
        TypeError: if an argument is not a `LinearRNN`, or dtypes differ.
    """
    if not rnns:
        raise ValueError("Argument `rnns` must hold at least one network, but is empty.")
    for rnn in rnns:
        if not isinstance(rnn, LinearRNN):
            raise TypeError(
                f"Argument `rnns` must hold LinearRNNs, but has a {type(rnn).__name__} in it."
            )
        require_rnns(rnns=rnn)
        if rnn.dtype != rnns[0].dtype:
            raise TypeError(
                f"Argument `rnns` must have one dtype, but has {rnns[0].dtype} and {rnn.dtype}."
            )
        for name in "uv":
            have, first = getattr(rnn, name).shape, getattr(rnns[0], name).shape
            if have[1:] != first[1:]:
                raise ValueError(
                    "Argument `rnns` must have equal inputs and outputs, but has "
                    f"`{name}` of shapes {first} and {have}."
                )
    return LinearRNN(
        block_diag(*(rnn.W for rnn in rnns)),
        jnp.concatenate([rnn.u for rnn in rnns]),
        jnp.concatenate([rnn.v for rnn in rnns]),
    )
