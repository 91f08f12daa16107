"""The best fit of a target by one mode: the plateau of the loss (section 3.2 of
docs/theory.md).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.theory.single_outlier import transfer_function

NUM_POINTS = 2048  # of log c on the first grid
CANDIDATES = 8  # maxima on the grid that are refined: these are nearest to the global one
REFINEMENTS = 6


class OneMode(NamedTuple):
    """One mode a e^{-ct}: its `gain` a, `decay` c, `eigenvalue` 1 - c, and the `loss` it leaves,
    each ().
    """

    gain: jax.Array
    decay: jax.Array
    eigenvalue: jax.Array
    loss: jax.Array


def best_one_mode(target: LinearRNN) -> OneMode:
    """The mode a e^{-ct} that fits a target best: the fixed point of the single outlier.

        L = ½∫k*² - c T(c)²,    a = 2 c T(c),    T(c) + 2 c T'(c) = 0,    T(c) = ∫ e^{-ct} k*(t) dt

    For a leaky integrator it is the target itself, with L = 0. For an oscillator it is where
    learning from small weights comes to rest first, the plateau: decay 0.3 and frequency 1 leave L
    = 0.17902 at the eigenvalue -0.669.

    c is the global maximum of c T(c)², found on a grid of log c and refined by Newton's method to
    rounding. Nothing falls between the points: √c T(c) is a convolution in log c of √t k*(t), of
    log t, with a kernel whose Fourier transform is Γ(½ + iω), which falls like e^{-π|ω|/2}, so that
    points 0.1 apart know it to e^{-49} of the root of the target's energy.

    Args:
        target: any stable `LinearRNN`.

    Raises:
        ValueError: if the target is unstable.

    Source: sections 3.1 and 3.2 of docs/theory.md.
    """
    PopulationLoss().check(target)
    return _best(target)


def best_mode(target: LinearRNN) -> OneMode:
    """As `best_one_mode`, within a program."""
    dtype = target.dtype

    def log_gained(x: jax.Array, target: LinearRNN) -> jax.Array:
        """½ log (c T²) at x = log c: the size of the response changes nothing, and nothing
        underflows.
        """
        return x / 2 + jnp.log(jnp.abs(transfer_function(target, jnp.exp(x))))

    fixed = jax.lax.stop_gradient(target)
    grid = _grid(fixed)
    values = jax.lax.map(lambda x: log_gained(x, fixed), grid)
    peak = (values[1:-1] >= values[:-2]) & (values[1:-1] >= values[2:])
    _, index = jax.lax.top_k(jnp.where(peak, values[1:-1], -jnp.inf), CANDIDATES)
    spacing = grid[1] - grid[0]

    def refined(x: jax.Array, target: LinearRNN) -> jax.Array:
        slope = jax.grad(log_gained)
        first, second = jax.jvp(lambda x: slope(x, target), (x,), (jnp.ones_like(x),))
        move = jnp.where(second < 0, -first / jnp.where(second < 0, second, -1), 0)
        return x + jnp.clip(move, -spacing, spacing)

    def refine(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jax.lax.fori_loop(0, REFINEMENTS, lambda _, x: refined(x, fixed), x)
        return x, log_gained(x, fixed)

    candidates, gained = jax.lax.map(refine, grid[1:-1][index])
    # a response of 0 has no best decay
    any_peak = jnp.any(jnp.isfinite(gained))
    best = jnp.where(any_peak, candidates[jnp.nanargmax(gained)], grid[NUM_POINTS // 2])
    # the last step is what derivatives are taken of: they are those of the root
    c = jnp.exp(refined(best, target))
    a = 2 * c * transfer_function(target, c)
    # the energy of the difference, as ½∫k*² - c T² cancels where the fit is good
    mode = LinearRNN((1 - c)[None, None], jnp.ones((1,), dtype), a[None])
    return OneMode(a, c, 1 - c, PopulationLoss()(mode, target))


_best = jax.jit(best_mode)


def _grid(target: LinearRNN) -> jax.Array:
    """log c, (NUM_POINTS,), as far as a global maximum can be.

    T has N poles, between 1/‖A⁻¹‖ and ‖A‖ in size. N³ times farther out a numerator of degree N - 1
    grows no more (Markov's inequality), so that c T² falls there.
    """
    A = jnp.eye(target.num_units, dtype=target.dtype) - target.W
    sizes = jnp.stack([1 / jnp.linalg.norm(jnp.linalg.inv(A)), jnp.linalg.norm(A)])
    far = math.log(100.0 * target.num_units**3)
    normal = -math.log(float(jnp.finfo(target.dtype).tiny))
    ends = jnp.clip(jnp.log(sizes) + jnp.asarray([-far, far], target.dtype), -normal, normal)
    ends = jnp.where(jnp.isnan(ends), jnp.asarray([-normal, normal], target.dtype), ends)
    return jnp.linspace(ends[0], ends[1], NUM_POINTS, dtype=target.dtype)
