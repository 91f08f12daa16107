"""One outlier: a network of rank one, W = λ e eᵀ, u = p e, v = q e (section 3.1 of
docs/theory.md).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, record_times, require, require_type
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.arguments import check_rates, initial_numbers, solver_numbers
from rnn_dynamics.theory.curve import TheoryCurve
from rnn_dynamics.theory.wide.vectors import unit


def single_outlier(
    target: LinearRNN,
    initial: tuple[ArrayLike, ArrayLike, ArrayLike],
    train_time: ArrayLike,
    rates: Any = None,
    *,
    loss: PopulationLoss = PopulationLoss(),
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
) -> TheoryCurve:
    """Gradient flow of a network of rank one: three numbers, for any target.

        L(a, c) = a²/(4c) - a T(c) + ½∫k*²,    a = p q,    c = 1 - λ,    T(c) = ∫ e^{-ct} k*(t) dt
        p' = -η_u q ∂L/∂a,    q' = -η_v p ∂L/∂a,    λ' = η_W ∂L/∂c

    Exact if the network starts in this form, and if v(0) = 0, W(0) = 0 and u is frozen; the limit
    of the full network as its initial weights go to 0. p²/η_u - q²/η_v is conserved. Stiff near the
    solution, so integrated by an L-stable method.

    Over a finite horizon, or in discrete time, the same three numbers follow the gradient of that
    loss instead, as a network of one unit does.

    Args:
        target: any `LinearRNN`, stable if the horizon is infinite.
        initial: (input gain p, output gain q, eigenvalue λ) at τ = 0, with λ < 1 if the horizon is
            infinite.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        rates: `Rates`, by default all 1.
        loss: by default `PopulationLoss()`.
        rtol: relative tolerance, by default 1e-8 in float64, 1e-5 in float32.
        atol: absolute tolerance, by default 1e-10 in float64, 1e-7 in float32.
        max_steps: most attempted steps.

    Returns:
        The curve, with one eigenvalue and the coordinates `input_gain`, `output_gain` and
        `eigenvalue`, among others.

    Raises:
        ValueError: if the target has an infinite loss, λ is not below 1 though the horizon is
            infinite, or `train_time` does not increase.
    """
    require_rnns(target=target)
    require_type("loss", loss, PopulationLoss, "a PopulationLoss")
    check_rates(rates)
    tolerances, limit = solver_numbers(rtol, atol, max_steps)
    dtype = target.dtype
    start = initial_numbers(initial, 3, "three", dtype)
    if loss.is_infinite and not is_traced(start):
        require(bool(start[2] < 1), "initial", "have an eigenvalue below 1", float(start[2]))
    times = record_times(train_time, dtype)
    loss.check(target)
    weights = [1.0, 1.0, 1.0] if rates is None else [rates.u, rates.v, rates.W]
    eta = jnp.stack([jnp.asarray(rate, dtype) for rate in weights])
    return _solve(target, start, times, eta, tolerances, limit, loss)


def outlier_start(
    rnn: LinearRNN, target: LinearRNN, rates: Any = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(input gain, output gain, eigenvalue) of the outlier that grows from a small random network,
    each ().

    While weights are small, u' = η_u T v and v' = η_v T u with T = T(1), which is negative for a
    target that mostly inverts its input: the direction that grows is e ∝ √η_v u ± √η_u v with the
    sign of T, and p = e·u, q = e·v, λ = eᵀ W e are what the network has in it. Where this is 0, as
    with u and v frozen, e is the direction of u, or of v if u is 0.
    """
    require_rnns(rnn=rnn, target=target)
    check_rates(rates)
    eta_u, eta_v = (1.0, 1.0) if rates is None else (rates.u, rates.v)
    eta_u, eta_v = (jnp.asarray(rate, rnn.dtype) for rate in (eta_u, eta_v))
    response = transfer_function(target.astype(rnn.dtype), jnp.ones((), rnn.dtype))
    sign = jnp.where(response < 0, -1, 1).astype(rnn.dtype)
    e = jnp.sqrt(eta_v) * rnn.u + sign * jnp.sqrt(eta_u) * rnn.v
    for instead in (rnn.u, rnn.v):
        e = jnp.where(jnp.any(e != 0), e, instead)
    e = unit(e)
    with jax.default_matmul_precision("highest"):
        return e @ rnn.u, e @ rnn.v, e @ rnn.W @ e


def transfer_function(target: LinearRNN, c: jax.Array) -> jax.Array:
    """T(c) = v*ᵀ (cI + A*)⁻¹ u*, A* = I - W*, (): a linear system, as coefficients of polynomials
    cancel for many units.
    """
    identity = jnp.eye(target.num_units, dtype=target.dtype)
    with jax.default_matmul_precision("highest"):
        return target.v @ jnp.linalg.solve((1 + c) * identity - target.W, target.u)


def outlier_loss(a: jax.Array, c: jax.Array, target: LinearRNN) -> jax.Array:
    """a²/(4c) - a T(c), (): the loss of one mode a e^{-ct}, up to the target's own energy."""
    return a**2 / (4 * c) - a * transfer_function(target, c)


def _network(y: jax.Array) -> LinearRNN:
    """The network of one unit of (p, q, λ)."""
    return LinearRNN(y[2].reshape(1, 1), y[:1], y[1:2])


@jax.jit(static_argnums=(4, 5))
def _solve(
    target: LinearRNN,
    start: jax.Array,
    times: jax.Array,
    eta: jax.Array,
    tolerances: tuple[float | None, float | None],
    max_steps: int,
    loss: PopulationLoss,
) -> TheoryCurve:
    def general(_: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        target, eta, loss = args
        _, gradient = loss.value_and_grad(_network(y), target)
        return -eta * jnp.concatenate([gradient.u, gradient.v, gradient.W[0]])

    def closed_form(_: jax.Array, y: jax.Array, args: Any) -> jax.Array:
        target, eta, _ = args
        p, q, eigenvalue = y
        a, c = p * q, 1 - eigenvalue
        da, dc = jax.grad(outlier_loss, argnums=(0, 1))(a, c, target)
        return eta * jnp.stack([-q * da, -p * da, dc])

    continuous = loss.is_infinite and loss.time_step is None
    velocity: Any = closed_form if continuous else general
    options: Any = {"method": ode.RODAS5P, "rtol": tolerances[0], "atol": tolerances[1]}
    # from τ = 0, where the first record may be
    from_zero = jnp.concatenate([jnp.zeros(1, times.dtype), times])
    args = target, eta, loss
    solution = ode.solve(velocity, start, from_zero, args, max_steps=max_steps, **options)
    ys = solution.ys[1:]
    p, q, eigenvalue = ys.T
    values = jax.vmap(lambda y: loss(_network(y), target))(ys)
    return TheoryCurve(
        train_time=times,
        loss=jnp.where(jnp.isnan(p), p, values),
        eigenvalues=jax.lax.complex(eigenvalue, jnp.zeros_like(eigenvalue))[:, None],
        coordinates={
            "input_gain": p,
            "output_gain": q,
            "eigenvalue": eigenvalue,
            "input_norm": jnp.abs(p),
            "output_norm": jnp.abs(q),
            "overlap": p * q,
            "weight_change": jnp.abs(eigenvalue - start[2]),
        },
        status=solution.status,
    )
