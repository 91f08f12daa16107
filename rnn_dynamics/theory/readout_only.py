"""The lazy regime: read-out training of a network of infinite width, in closed form (section 3.6 of
docs/theory.md).

With W(0) = σ G/√N and u fixed, the error e = k - k* obeys e' = -|u|² K e with the kernel K(t, t') =
e^{-(t+t')} I₀(2σ√(tt')). By the formula of Hille and Hardy this kernel is diagonal in Laguerre
functions, for every σ < 1:

    K = Σ_n κ_n ψ_n ψ_nᵀ,    κ_n = w^n (1 + w)/2,    ψ_n(t) = √a e^{-at/2} L_n(at),
    √w = σ/(1 + √(1-σ²)),    a = 2√(1-σ²)

so that no ill-conditioned matrix is needed, nothing overflows, and the loss is a sum of positive
terms.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, real_scalar, record_times, require
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.ode import Status
from rnn_dynamics.theory.curve import TheoryCurve

NUM_MODES = 256  # κ_n < 1e-31 beyond, for σ ≤ 0.99
MAX_DOUBLINGS = 50
ROUNDING = 1e3  # of responses, in units of what a change of the weights by eps makes of them


def readout_only(
    target: LinearRNN,
    weight_scale: ArrayLike,
    train_time: ArrayLike,
    input_scale: ArrayLike = 1.0,
) -> TheoryCurve:
    """Gradient flow of the read-out alone, from v = 0, at infinite width.

        L(τ) = ½ Σ_n β_n² e^{-2 |u|² κ_n τ},    S = ½ I + A*/a,
        β_n = ∫ ψ_n k* dt = a^{-½} v*ᵀ (S - I)^n S^{-n-1} u*

    Modes n ≥ 256 are taken not to move: their part of the loss is exact but for a relative error of
    2 |u|² κ_256 τ, and the coordinate `truncation_error` bounds what this makes of the loss
    (relative to the loss, 1e-71 |u|² τ at σ = 0.95, 1e-31 |u|² τ at 0.99).

    Means of 32 networks of 512 units, decay 0.4, are within 2 standard errors of it for σ = 0.3 …
    0.6 up to τ = 1000, for 0.7 up to τ = 100 and for 0.8 up to τ = 3. Then losses are below 0.4 %
    of the initial one, and those of finite networks, which few bad draws dominate, are above it
    (`benchmarks/theory.py`).

    Args:
        target: any stable `LinearRNN`.
        weight_scale: σ, radius of the bulk, 0 ≤ σ < 1.
        train_time: learning times of the records at rate η_v = 1, (R,), increasing, positive or
            zero.
        input_scale: |u|.

    Returns:
        The curve. No outlier forms, so its one eigenvalue is the bulk's edge σ, at every record.
        Coordinates: `output_norm` = |v|, `overlap` = u·v, `input_norm`, `weight_change` = 0 and
        `truncation_error`.

    Raises:
        ValueError: if the target is unstable, σ is outside of [0, 1), or `train_time` does not
            increase.

    Source: section 3.6 of docs/theory.md.
    """
    sigma, alpha = _scales(target, weight_scale, input_scale)
    if not is_traced(sigma):
        require(bool(sigma < 1), "weight_scale", "be below 1, where networks are stable", sigma)
    PopulationLoss().check(target)
    return _solve(target, sigma, record_times(train_time, target.dtype), alpha)


def required_readout_norm(
    target: LinearRNN, weight_scale: ArrayLike, input_scale: ArrayLike = 1.0
) -> jax.Array:
    """Least squared norm |v|² of a read-out that makes the target from the bulk, (); infinite where
    none does.

        |v|² = |u|^{-2} Σ_n (v*ᵀ (W*/σ)^n u*)²
             = |u|^{-2} / (1 - (λ*/σ)²)        for a leaky integrator

    Finite exactly where the target's modes lie inside of the bulk, |λ*| < σ, but for those that its
    input does not reach or its read-out does not see: of a residue of 0, up to rounding. It is what
    |v|² tends to in `readout_only`.

    Args:
        target: any `LinearRNN`.
        weight_scale: σ, radius of the bulk, positive or zero.
        input_scale: |u|.

    Raises:
        ValueError: if a scale is negative or not finite.

    Source: section 3.6 of docs/theory.md.
    """
    sigma, alpha = _scales(target, weight_scale, input_scale)
    return _required(target, sigma, alpha)


def learnable(target: LinearRNN, weight_scale: ArrayLike) -> jax.Array:
    """Whether the bulk can represent the target with a finite read-out, () bool: |λ*| < σ for all
    of its modes that have a residue.

    If not, an outlier has to be learned.

    Raises:
        ValueError: if the weight scale is negative or not finite.
    """
    return jnp.isfinite(required_readout_norm(target, weight_scale))


def _scales(
    target: LinearRNN, weight_scale: ArrayLike, input_scale: ArrayLike
) -> tuple[jax.Array, jax.Array]:
    require_rnns(target=target)
    sigma = real_scalar("weight_scale", weight_scale, minimum=0).astype(target.dtype)
    return sigma, real_scalar("input_scale", input_scale, minimum=0).astype(target.dtype)


@jax.jit
def _solve(target: LinearRNN, sigma: jax.Array, times: jax.Array, alpha: jax.Array) -> TheoryCurve:
    dtype = target.dtype
    root = jnp.sqrt((1 - sigma) * (1 + sigma))
    w, a = (sigma / (1 + root)) ** 2, 2 * root
    identity = jnp.eye(target.num_units, dtype=dtype)
    S = identity / 2 + (identity - target.W) / a
    inverse = jnp.linalg.inv(S)
    step = identity - inverse  # (S - I) S⁻¹, of spectral radius below 1

    def to_next(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        return step @ x, target.v @ x

    with jax.default_matmul_precision("highest"):
        rest, beta = jax.lax.scan(to_next, inverse @ target.u / jnp.sqrt(a), None, NUM_MODES)
        tail = _power_energy(step, rest, target.v)
    kappa = w ** jnp.arange(NUM_MODES, dtype=dtype) * (1 + w) / 2
    speed = alpha**2 * kappa

    def at(time: jax.Array) -> Any:
        left = jnp.exp(-speed * time)  # what is left of the error of each mode
        # (1 - e^{-s τ}) / s, which is τ where the mode does not move
        done = jnp.where(
            speed > 0, -jnp.expm1(-speed * time) / jnp.where(speed > 0, speed, 1), time
        )
        loss = (jnp.sum((beta * left) ** 2) + tail) / 2
        size = alpha * jnp.sqrt(jnp.sum(kappa * (beta * done) ** 2))
        overlap = alpha**2 * jnp.sqrt(a) * jnp.sum(beta * kappa * done)
        moved = -jnp.expm1(-2 * alpha**2 * (kappa[-1] * w) * time) * tail / 2
        return loss, size, overlap, moved

    loss, size, overlap, truncation = jax.vmap(at)(times)
    same = jnp.ones_like(times)
    return TheoryCurve(
        train_time=times,
        loss=loss,
        eigenvalues=jax.lax.complex(sigma * same, jnp.zeros_like(same))[:, None],
        coordinates={
            "input_norm": alpha * same,
            "output_norm": size,
            "overlap": overlap,
            "weight_change": jnp.zeros_like(same),
            "truncation_error": truncation,
        },
        status=jnp.where(sigma < 1, jnp.int32(Status.ok), jnp.int32(Status.unstable)),
    )


@jax.jit
def _required(target: LinearRNN, sigma: jax.Array, alpha: jax.Array) -> jax.Array:
    tiny = jnp.asarray(jnp.finfo(sigma.dtype).tiny, sigma.dtype)
    with jax.default_matmul_precision("highest"):
        C, u, v = _connected(target.W / jnp.maximum(sigma, tiny), target.u, target.v)
        energy = _power_energy(C, u, v)
        P = _beyond_unit_circle(C)
        inside = _power_energy(C - C @ P, u - P @ u, v)
        energy = jnp.where(jnp.isinf(energy) & _is_hidden(C, u, v), inside, energy)
    return jnp.where(energy == 0, 0, energy / alpha / alpha)


def _power_energy(C: jax.Array, x: jax.Array, v: jax.Array) -> jax.Array:
    """Σ_n (vᵀ Cⁿ x)², (); infinite unless the spectral radius of C is below 1, which small powers
    of C prove.
    """
    eps = jnp.finfo(C.dtype).eps

    def going(carry: tuple[jax.Array, ...]) -> jax.Array:
        _, power, doublings = carry
        size = jnp.linalg.norm(power)
        return (size > eps) & jnp.isfinite(size) & (doublings < MAX_DOUBLINGS)

    def double(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        G, power, doublings = carry
        return G + power @ G @ power.T, power @ power, doublings + 1

    start: tuple[jax.Array, ...] = (x[:, None] * x[None, :], C, jnp.zeros((), jnp.int32))
    G, power, _ = jax.lax.while_loop(going, double, start)
    infinite = jnp.asarray(jnp.inf, C.dtype)
    return jnp.where(jnp.linalg.norm(power) <= eps, v @ G @ v, infinite)


def _connected(C: jax.Array, u: jax.Array, v: jax.Array) -> tuple[jax.Array, ...]:
    """C, u and v without the units that no path joins to input and output: these modes are hidden
    whatever the numbers are.
    """

    def follow(links: jax.Array, units: jax.Array) -> jax.Array:
        def further(_: int, units: jax.Array) -> jax.Array:
            return units | jnp.any(links & units[None, :], axis=1)

        return jax.lax.fori_loop(0, len(units), further, units)

    joined = follow(C != 0, u != 0) & follow((C != 0).T, v != 0)
    both = joined[:, None] & joined[None, :]
    return jnp.where(both, C, 0), jnp.where(joined, u, 0), jnp.where(joined, v, 0)


def _beyond_unit_circle(C: jax.Array) -> jax.Array:
    """The projector on the modes of C beyond the unit circle along those within it, (N, N): a
    matrix sign, by Newton's method.
    """
    identity = jnp.eye(len(C), dtype=C.dtype)
    sign = jnp.linalg.solve(C - identity, C + identity)  # the circle becomes the imaginary axis
    sign = jax.lax.fori_loop(0, MAX_DOUBLINGS, lambda _, X: (X + jnp.linalg.inv(X)) / 2, sign)
    return (identity + sign) / 2


def _is_hidden(C: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """Whether v sees nothing of u through the modes of C beyond the unit circle, () bool.

    Nothing is what a change of the weights by rounding, a share eps of each, can make of it. The
    first N of its responses vᵀ Cⁿ P u say all, up to factors.
    """

    def responses(C: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
        def to_next(x: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            size = jax.lax.stop_gradient(jnp.linalg.norm(x))
            x = x / jnp.where(size > 0, size, 1)
            return C @ x, v @ x

        return jax.lax.scan(to_next, _beyond_unit_circle(C) @ u, None, len(u))[1]

    normal, weights = np.random.default_rng(0).normal, (C, u, v)
    changes = tuple(x * jnp.asarray(normal(size=x.shape), x.dtype) for x in weights)
    response, change = jax.jvp(responses, weights, changes)
    rounding = ROUNDING * jnp.finfo(C.dtype).eps
    return jnp.linalg.norm(response) <= rounding * jnp.linalg.norm(change)
