"""The best fit of a target by one mode: the plateau of the loss (section 3.2 of the theory note)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.theory.single_outlier import transfer_function

NUM_POINTS = 2048  # of c on the first grid, evenly spaced in log c
REFINEMENTS = 6


class OneMode(NamedTuple):
    """One mode a e^{-ct}: its `gain` a, `decay` c, `eigenvalue` 1 - c, and the `loss` it leaves, each ()."""

    gain: jax.Array
    decay: jax.Array
    eigenvalue: jax.Array
    loss: jax.Array


def best_one_mode(target: LinearRNN) -> OneMode:
    """The mode a e^{-ct} that fits a target best: the fixed point of the single outlier.

        L = ½∫k*² - c T(c)²,    a = 2 c T(c),    T(c) + 2 c T'(c) = 0,    T(c) = ∫ e^{-ct} k*(t) dt

    For a leaky integrator it is the target itself, with L = 0. For an oscillator it is where learning from small weights comes to
    rest first, the plateau: decay 0.3 and frequency 1 leave L = 0.17902 at the eigenvalue -0.669.

    T is rational, so c is a root of a polynomial; the root of least loss is bracketed on a grid of log c between bounds on all
    roots, and polished by Newton's method to rounding.

    Args:
        target: any stable `LinearRNN`.

    Raises:
        ValueError: if the target is unstable.

    Source: sections 3.1 and 3.2 of the theory note.
    """
    PopulationLoss().check(target)
    return _best(target)


def best_mode(numerator: jax.Array, denominator: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gain and decay of the best mode for a transfer function, given by its polynomials, highest power first."""

    def T(c: jax.Array) -> jax.Array:
        return jnp.polyval(numerator, c) / jnp.polyval(denominator, c)

    def gained(x: jax.Array) -> jax.Array:
        return jnp.exp(x) * T(jnp.exp(x)) ** 2

    # all poles of T lie between these moduli (Cauchy's bounds); a maximum of c T² lies not far outside of them
    leading, constant = denominator[:-1], denominator[1:]
    high = 1 + jnp.max(jnp.abs(constant))
    low = denominator[-1] / (denominator[-1] + jnp.max(jnp.abs(leading)))
    ends = jnp.log(low / 8), jnp.log(high * 8)
    grid = jnp.linspace(*ends, NUM_POINTS, dtype=numerator.dtype)
    x = grid[jnp.argmax(jax.vmap(gained)(grid))]
    slope = jax.grad(gained)

    def polish(_: int, x: jax.Array) -> jax.Array:
        curvature = jax.grad(slope)(x)
        move = jnp.where(curvature < 0, -slope(x) / jnp.where(curvature < 0, curvature, -1), 0)
        return x + jnp.clip(move, -(grid[1] - grid[0]), grid[1] - grid[0])

    c = jnp.exp(jax.lax.fori_loop(0, REFINEMENTS, polish, x))
    return 2 * c * T(c), c


@jax.jit
def _best(target: LinearRNN) -> OneMode:
    a, c = best_mode(*transfer_function(target))
    # the energy of the difference, as ½∫k*² - c T² cancels where the fit is good
    mode = LinearRNN((1 - c)[None, None], jnp.ones((1,), c.dtype), a[None])
    return OneMode(a, c, 1 - c, PopulationLoss()(mode, target))
