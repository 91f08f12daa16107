"""Horizons and time steps: their checks, and whether the Euler scheme follows a network."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss.gramian.panels import euler_step, gauss_panel, longest_panel
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, real_scalar, require, show
from rnn_dynamics.model.balancing import balancing_units, in_units

MAX_STEPS = 2**20  # of a horizon
LARGEST = float(np.finfo(float).max)
NUM_SQUARINGS = 20  # growth rates are told apart to about log N / 2²⁰
SHARP = 1e-8  # eigenvalues with smaller errors are what they seem
SLACK = 1e-4  # growth rates per leak time constant that count as equal


def check_timing(horizon: ArrayLike, time_step: Any, *, whole: bool = True) -> Any:
    """Refuse a horizon or a time step that is not positive, and a horizon that is not a whole
    number of steps; the horizon.

    Raises:
        TypeError: if one is not a real number.
        ValueError: if it is out of range.
    """
    for name, value in (("horizon", horizon), ("time_step", time_step)):
        if value is None and name == "time_step":
            continue
        if isinstance(value, int | float) and not isinstance(value, bool):
            if not 0 < value <= LARGEST:  # a Python number stays one: defaults must not start JAX
                must = "be positive" if not value > 0 else "be finite"
                raise ValueError(f"Argument `{name}` must {must}, but is {show(value)}.")
        else:
            real_scalar(name, value, positive=True)
    if whole and time_step is not None and not (is_traced(horizon) or is_traced(time_step)):
        count_steps(horizon, time_step)
    return horizon


def check_weighting(weighting: str) -> str:
    """Refuse an unknown weighting; the weighting.

    Raises:
        ValueError: if it is unknown.
    """
    words = ("uniform", "time_averaged")
    known = isinstance(weighting, str) and weighting in words
    require(known, "weighting", f"be one of {words}", show(weighting))
    return weighting


def count_steps(horizon: ArrayLike, time_step: ArrayLike) -> int:
    """The number of time steps of a horizon.

    Raises:
        ValueError: if it is not a whole number from 1 to 2²⁰.
    """
    ratio = float(np.asarray(horizon)) / float(np.asarray(time_step))
    number = round(min(ratio, 2.0 * MAX_STEPS))
    if abs(ratio - number) > 1e-6 * ratio or not 1 <= number <= MAX_STEPS:
        raise ValueError(
            f"Argument `horizon` must be a whole number of time steps, from 1 to {MAX_STEPS}, "
            f"but is {ratio:.9g} of them."
        )
    return number


def check_stable(name: str, rnn: LinearRNN, time_step: Any, reason: str) -> None:
    """Refuse a network that is unstable, with or without Euler steps, where `reason` needs a stable
    one.

    Eigenvalues that rounding may have moved over the edge, as those of Jordan blocks, are passed
    over.

    Raises:
        ValueError: if it is unstable.
    """
    W = np.asarray(rnn.W, float)
    eigenvalues, vectors = np.linalg.eig(W)
    try:
        conditions = np.linalg.norm(np.linalg.inv(vectors), axis=1)
    except np.linalg.LinAlgError:  # defective
        conditions = np.full(len(W), np.inf)
    errors = len(W) * np.finfo(float).eps * np.linalg.norm(W) * conditions
    errors = np.where(errors < SHARP, 0.0, errors)
    largest = float(np.max(eigenvalues.real - errors))
    if largest >= 1:
        raise ValueError(
            f"Argument `{name}` must be stable for {reason} (every eigenvalue of W with "
            f"a real part below 1), but has one at {largest:.6g}."
        )
    if time_step is not None:
        dt = float(time_step)
        factor = float(np.max(np.abs(1 + dt * (eigenvalues - 1)) - dt * errors))
        if factor >= 1:
            raise ValueError(
                f"Argument `{name}` must be stable in steps of `time_step` for {reason}, "
                f"but grows by a factor of {factor:.6g} per step."
            )


def steps_are_stable(W: jax.Array, time_step: Any) -> jax.Array:
    """Whether Euler steps of length dt grow no faster than the network, or decay if it does, (N, N)
    → () bool.

    Growth rates are log ‖E^k‖/t of the step and of the exact propagator, for k = 2²⁰ steps by
    squaring: matrix products alone. True in continuous time.
    """
    if time_step is None:
        return jnp.ones((), bool)
    with jax.default_matmul_precision("highest"):
        W, dt = in_units(W, balancing_units(W)), jnp.asarray(time_step, W.dtype)
        h = longest_panel(W)
        zero = jnp.zeros_like(W[:, :1])
        exact = _growth_rate(gauss_panel(W, zero, h).E, h)
        return _growth_rate(euler_step(W, dt), dt) <= jnp.maximum(exact, 0) + SLACK


def _growth_rate(E: jax.Array, time: jax.Array) -> jax.Array:
    """log of the spectral radius of E per unit of time, ()."""

    def square(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        E, rate = carry
        size = jnp.linalg.norm(E)
        E = E / jnp.where(size > 0, size, jnp.ones_like(size))
        return E @ E, 2 * (rate + jnp.log(size))

    E, rate = jax.lax.fori_loop(0, NUM_SQUARINGS, square, (E, jnp.zeros((), E.dtype)))
    return (rate + jnp.log(jnp.linalg.norm(E))) / (2.0**NUM_SQUARINGS * time)
