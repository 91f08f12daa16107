"""Step-size control: error norm, PI controller, initial step."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import Array

_SAFETY = 0.9
_STRONGEST_SHRINK = 0.2
_STRONGEST_GROWTH = 5.0
# One very accurate step must not make the controller distrust the next ordinary one.
_SMALLEST_LAST_ERROR = 1e-4
_SMALLEST_ERROR = 1e-12


class ControllerState(eqx.Module):
    """State of the step-size control; every field is ().

    Attributes:
        step_size: the natural step, untouched by truncation at a record; infinite before the first
            step where nothing is known of it.
        last_error: scaled error of the last accepted step that was not truncated.
        rejected: whether the last attempt was rejected.
    """

    step_size: Array
    last_error: Array
    rejected: Array


class Decision(NamedTuple):
    """Whether a step is `accepted`, or rejected and `hopeless`, as no smaller step can be tried;
    each () bool.
    """

    accepted: Array
    hopeless: Array


def error_norm(error: Array, y0: Array, y1: Array, rtol: Array, atol: Array) -> Array:
    """Root mean square of error / (atol + rtol max(|y0|, |y1|)); (N,) arrays to a scalar.

    A step is acceptable where this is at most 1.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4.
    """
    return _rms(error / (atol + rtol * jnp.maximum(jnp.abs(y0), jnp.abs(y1))))


def smallest_step(t: Array) -> Array:
    """Step below which time no longer resolves a step, or numbers are no longer normal."""
    limits = jnp.finfo(t.dtype)
    return jnp.maximum(8.0 * float(limits.eps) * jnp.abs(t), float(limits.tiny))


def euler_step(y: Array, dy: Array, *, rtol: Array, atol: Array) -> Array:
    """Step that moves y by 1 % of its size, to measure the curvature; 0 where the vector field is
    0.

    A y below the tolerance counts as one of size 0.01 atol / rtol.
    """
    scale = atol + rtol * jnp.abs(y)
    slope = _rms_of_any_size(dy / scale)
    h0 = 0.01 * _size(y, rtol, atol) / jnp.where(slope > 0.0, slope, 1.0)
    return jnp.where((slope > 0.0) & jnp.isfinite(h0), h0, 0.0)


def initial_control(
    t: Array, y: Array, dy: Array, ahead: Array, *, order: int, rtol: Array, atol: Array
) -> ControllerState:
    """First step from the sizes of y, its derivative and an Euler estimate of its curvature.

        h = T min(1, (0.01 / max(|y|, T |y'|, T² |y''|))^(1/k)),    T = |y| / |y'|

    with k the `order`, and sizes relative to the tolerance. T makes all three of one dimension: the
    unit of time changes nothing. `dy` is the derivative at y, and `ahead` that after a step of
    `euler_step`. Where the vector field is zero the step is infinite: as far as there is to go.

    Source: Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4.
    """
    scale, time = atol + rtol * jnp.abs(y), 100.0 * euler_step(y, dy, rtol=rtol, atol=atol)
    bend = 100.0 * time * _rms_of_any_size((ahead - dy) / scale)
    steepest = jnp.maximum(_size(y, rtol, atol), bend)
    h = time * jnp.minimum((0.01 / steepest) ** (1.0 / order), 1.0)
    h = jnp.where(jnp.isfinite(h) & (h > 0.0), h, 1e-5 * time)
    return ControllerState(
        step_size=jnp.where(time > 0.0, jnp.maximum(h, smallest_step(t)), jnp.inf),
        last_error=jnp.ones_like(t),
        rejected=jnp.zeros_like(t, dtype=bool),
    )


def adapt(
    control: ControllerState,
    t: Array,
    step: Array,
    error: Array,
    *,
    finite: Array,
    truncated: Array,
    spans: Array,
    order: Array | int,
    gains: tuple[Array | float, Array | float],
) -> tuple[Decision, ControllerState]:
    """Accept or reject an attempted step, and choose the next.

        accepted:  h' = h clip(0.9 error^(-i/k) last_error^(p/k), 0.2, 5)
        rejected:  h' = h clip(0.9 error^(-1/k), 0.2, 0.9), or 0.2 h where not finite

    with k the order of the error estimate and `gains` = (i, p). A step directly after a rejection
    never grows. A truncated step that is accepted leaves the natural step as it was, or enlarges
    it where records are denser than steps.

    Args:
        control: state before the attempt.
        t: where the attempt ended, ().
        step: its size, ().
        error: its scaled error, ().
        finite: whether the new state and its derivative are finite, () bool.
        truncated: whether a record cut the step short, () bool.
        spans: whether the step began at the record before, () bool.
        order: k.
        gains: i and p.

    Returns:
        The decision, and the new state.

    Source: Gustafsson (1991), ACM Transactions on Mathematical Software 17, 533-554; Hairer
    and Wanner, Solving Ordinary Differential Equations II, IV.2.
    """
    finite = finite & jnp.isfinite(error)
    accepted = finite & (error <= 1.0)
    usable = jnp.where(finite, jnp.maximum(error, _SMALLEST_ERROR), 1.0)

    integral, proportional = gains
    grow = _SAFETY * usable ** (-integral / order) * control.last_error ** (proportional / order)
    ceiling = jnp.where(control.rejected, 1.0, _STRONGEST_GROWTH)
    after_accepted = step * jnp.clip(grow, _STRONGEST_SHRINK, ceiling)
    # Where ordinary steps led up to the record, they know the natural size better: at a stability
    # limit a short step is so accurate that it would ask for one far too long.
    after_truncated = jnp.where(
        spans, jnp.maximum(after_accepted, control.step_size), control.step_size
    )
    after_accepted = jnp.where(truncated, after_truncated, after_accepted)

    shrink = jnp.clip(_SAFETY * usable ** (-1.0 / order), _STRONGEST_SHRINK, _SAFETY)
    after_rejected = step * jnp.where(finite, shrink, _STRONGEST_SHRINK)

    floor = smallest_step(t)
    remember = accepted & ~truncated
    return Decision(accepted, ~accepted & (after_rejected < floor)), ControllerState(
        step_size=jnp.where(accepted, jnp.maximum(after_accepted, floor), after_rejected),
        last_error=jnp.where(
            remember, jnp.maximum(usable, _SMALLEST_LAST_ERROR), control.last_error
        ),
        rejected=~accepted,
    )


def _size(y: Array, rtol: Array, atol: Array) -> Array:
    """Size of y relative to the tolerance, that of 0.01 atol / rtol for one that is zero."""
    size = _rms(y / (atol + rtol * jnp.abs(y)))
    return jnp.where(size < 1e-5, 0.01 / rtol, size)


def _rms(x: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(x)))


def _rms_of_any_size(x: Array) -> Array:
    """Without squares of numbers that have a unit, which may overflow."""
    largest = jnp.max(jnp.abs(x))
    return largest * _rms(x / jnp.where(largest > 0.0, largest, 1.0))
