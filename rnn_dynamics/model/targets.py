"""Targets: small linear networks with a closed-form impulse response (section 1 of
docs/theory.md).
"""

from typing import Any

import jax.numpy as jnp
from jax.scipy.linalg import block_diag
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import numbers, real_array, real_scalar, require
from rnn_dynamics.model.linear_rnn import LinearRNN, require_rnns


def leaky_integrator(decay: ArrayLike, amplitude: ArrayLike = 1.0) -> LinearRNN:
    """The network of one unit with k*(t) = amplitude exp(-decay t): its eigenvalue is 1 - decay.

    Args:
        decay: decay rate per leak time constant, positive; 0 is the perfect integrator, which has
            an infinite loss over an infinite horizon.
        amplitude: k*(0), of either sign.

    Raises:
        ValueError: if `decay` is negative, or an argument is not finite.
    """
    decay = real_scalar("decay", decay, minimum=0)
    one = jnp.ones((1,), dtype=decay.dtype)
    amplitude = real_scalar("amplitude", amplitude).astype(decay.dtype)
    return LinearRNN((1 - decay).reshape(1, 1), one, amplitude * one)


def damped_oscillator(
    decay: ArrayLike, frequency: ArrayLike, phase: ArrayLike = 0.0, amplitude: ArrayLike = 1.0
) -> LinearRNN:
    """The network of two units with k*(t) = amplitude exp(-decay t) cos(frequency t + phase).

    Its eigenvalues are 1 - decay ± i frequency.

    Args:
        decay: decay rate per leak time constant, positive or zero.
        frequency: angular frequency, radians per leak time constant.
        phase: phase in radians.
        amplitude: of either sign.

    Raises:
        ValueError: if `decay` is negative, or an argument is not finite.
    """
    decay = real_scalar("decay", decay, minimum=0)
    frequency = real_scalar("frequency", frequency).astype(decay.dtype)
    phase = real_scalar("phase", phase).astype(decay.dtype)
    W = jnp.stack([jnp.stack([1 - decay, frequency]), jnp.stack([-frequency, 1 - decay])])
    u = jnp.array([1.0, 0.0], dtype=decay.dtype)
    amplitude = real_scalar("amplitude", amplitude).astype(decay.dtype)
    return LinearRNN(W, u, amplitude * jnp.stack([jnp.cos(phase), jnp.sin(phase)]))


def fir(values: Any) -> LinearRNN:
    """The network with a finite impulse response in discrete time: a shift register.

        k_n = values[n] for n < T, then 0,    with a `time_step` of 1

    A delay of d steps is `fir([0] * d + [1])`: the copy task. With a `time_step` of 1 the Euler
    scheme is the network of machine learning, h ← W h + u x.

    Args:
        values: k_0 … k_{T-1}, (T,); of several outputs and inputs (T, p, m).

    Returns:
        A network of T units, or T m: W has ones from each step to the next.

    Raises:
        TypeError: if `values` does not hold real numbers.
        ValueError: if it has another shape, none, or one that is not finite.

    Example:
        >>> rd.gradient_descent(
        ...     rnn, rd.fir([0.0, 0.0, 1.0]), loss=rd.PopulationLoss(time_step=1.0), **options
        ... )

    Source: section 8.5 of docs/theory.md.
    """
    k = numbers("values", values)
    k = k if jnp.issubdtype(k.dtype, jnp.floating) else jnp.asarray(k, float)
    k = real_array("values", k, ("T",), ("T", "p", "m"))
    require(len(k) > 0, "values", "have a step", f"of shape {k.shape}")
    if k.ndim == 1:
        one = jnp.zeros_like(k).at[:1].set(1)
        return LinearRNN(jnp.eye(len(k), k=-1, dtype=k.dtype), one, k)
    T, p, m = k.shape
    W = jnp.eye(T * m, k=-m, dtype=k.dtype)
    u = jnp.eye(T * m, m, dtype=k.dtype)
    return LinearRNN(W, u, k.transpose(0, 2, 1).reshape(T * m, p))


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
