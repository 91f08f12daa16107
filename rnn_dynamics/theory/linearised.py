"""The flow near a solution: its rates, and the largest stable learning rate of gradient descent
(section 3.1 of docs/theory.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import positive_int, real_scalar
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.arguments import check_rates


def outlier_rates(
    decay: ArrayLike, rates: Any = None, gain_ratio: ArrayLike = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Both rates, fast and slow, at which a learned leaky integrator settles, in closed form, each
    ().

    Around a = p q = 1, c = c*, with g = η_u q² + η_v p² and small deviations,

        a' = -g (δa/(2c) - δc/(4c²)),    c' = η_W (δa/(4c²) - δc/(4c³))

    has the rates s/2 ± √(s²/4 - d), s = g/(2c) + η_W/(4c³), d = g η_W/(16 c⁴). For equal rates and
    p = q they tend to 1/(4c³) and 1/(2c) as c → 0: long memories make learning stiff. All other
    directions of a full network are flat.

    Args:
        decay: c* of the target, positive.
        rates: `Rates`, by default all 1.
        gain_ratio: p/q at the solution, positive; p²/η_u - q²/η_v is conserved, and small weights
            lead to √(η_u/η_v).

    Raises:
        ValueError: if `decay` or `gain_ratio` is not positive.

    Source: section 3.1 of docs/theory.md.
    """
    c = real_scalar("decay", decay, positive=True)
    ratio = real_scalar("gain_ratio", gain_ratio, positive=True).astype(c.dtype)
    check_rates(rates)
    weights = (1.0, 1.0, 1.0) if rates is None else (rates.W, rates.u, rates.v)
    eta_W, eta_u, eta_v = (jnp.asarray(rate, c.dtype) for rate in weights)
    g = eta_u / ratio + eta_v * ratio
    # d / (s/2)² = 2 x y / (x + y)², without powers of c that overflow where the rates do not
    x, y = g / (4 * c), eta_W / (8 * c) / c / c
    half = x + y
    whole = jnp.where(half > 0, half, 1)
    share = 2 * (x / whole) * (y / whole)
    root = jnp.sqrt(1 - share)
    return half * (1 + root), half * share / (1 + root)


def linearised_rates(rnn: LinearRNN, target: LinearRNN, rates: Any = None) -> jax.Array:
    """All rates of the gradient flow linearised around a network, (N² + 2N,) real, from fast to
    slow.

    They are the eigenvalues of √η ∂²L √η, with η the rate of each parameter. At a solution none is
    negative; a minimal network of n units has 2n positive ones, and the rest, 0, belong to
    directions that leave k(t) as it is. Meant for solutions of few units: the Hessian is dense.

    Args:
        rnn: the network, N units, best a solution, such as the target itself.
        target: any stable `LinearRNN`.
        rates: `Rates`, by default all 1.

    Raises:
        ValueError: if the target is unstable.
    """
    require_rnns(rnn=rnn, target=target)
    check_rates(rates)
    loss = PopulationLoss()
    loss.check(target)
    return _rates(rnn, target, rates)


def largest_learning_rate(
    rnn: LinearRNN, target: LinearRNN, batch_size: int | None = None, *, rates: Any = None
) -> jax.Array:
    """The learning rate below which plain gradient descent is stable at a solution, ().

    Without noise 2 / the fastest rate: about 8 c*³ for a leaky integrator of small decay c* and
    equal rates. On minibatches of B white noise sequences, with the error at the last time as loss,
    the second moments of the distance obey

        Σ ← Σ - η(FΣ + ΣF) + η²[(1 + 1/B) FΣF + tr(FΣ) F/B]

    and fall, as the mean loss does, if Σ_j η λ_j / (2 - η(1 + 1/B) λ_j) < B, λ_j the rates. An
    average over times ("time_averaged") is less noisy, and allows more. Single runs may settle
    above: the mean grows first.

    Args:
        rnn: a solution, such as the target itself or a trained network.
        target: any stable `LinearRNN`.
        batch_size: B; None is without noise.
        rates: `Rates`, by default all 1.

    Raises:
        TypeError: if `batch_size` is not an integer.
        ValueError: if it is below 1, or the target is unstable.

    Example:
        >>> target = rd.leaky_integrator(0.3)
        >>> rd.theory.largest_learning_rate(target, target)  # 0.1783
        >>> rd.theory.largest_learning_rate(target, target, batch_size=1)  # 0.0585

    Source: sections 3.1 and 11 of docs/theory.md.
    """
    B = None if batch_size is None else positive_int("batch_size", batch_size)
    speeds = linearised_rates(rnn, target, rates)
    if B is None:
        return 2 / speeds[0]
    shares = jnp.maximum(speeds / speeds[0], 0)

    # of x = η (1 + 1/B) λ_max/2, between 0 and 1: Σ_j x r_j / (1 - x r_j) = B + 1, by bisection
    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        x = (low + high) / 2
        stable = jnp.sum(x * shares / (1 - x * shares)) < B + 1
        return jnp.where(stable, x, low), jnp.where(stable, high, x)

    zero = jnp.zeros_like(speeds[0])
    x, _ = jax.lax.fori_loop(0, jnp.finfo(speeds.dtype).nmant + 1, halve, (zero, zero + 1))
    return 2 * x * B / ((B + 1) * speeds[0])


@jax.jit
def _rates(rnn: LinearRNN, target: LinearRNN, rates: Any) -> jax.Array:
    flat, unravel = ravel_pytree(rnn)

    def gradient(x: jax.Array) -> jax.Array:
        return ravel_pytree(PopulationLoss().value_and_grad(unravel(x), target)[1])[0]

    hessian = jax.jacfwd(gradient)(flat)
    ones = jax.tree.map(jnp.ones_like, rnn)
    root = jnp.sqrt(ravel_pytree(ones if rates is None else rates.times(ones))[0])
    scaled = root[:, None] * (hessian + hessian.T) / 2 * root[None, :]
    return jnp.linalg.eigvalsh(scaled)[::-1]
