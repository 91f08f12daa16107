"""Low-rank networks: learning in the space of overlaps (section 10 of docs/theory.md)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.loss import AbstractLoss, PopulationLoss, SampledLoss
from rnn_dynamics.model import LinearRNN, LowRankRNN
from rnn_dynamics.model.arguments import real_scalar, record_times, require, require_type
from rnn_dynamics.theory.arguments import Tolerances, solver_numbers
from rnn_dynamics.theory.curve import TheoryCurve


class OverlapCurve(TheoryCurve):
    """The learning curve of a low-rank network, and the overlaps of its vectors.

    Attributes:
        overlaps: G = Θᵀ Θ/N of Θ = [m, U | z, V], (R, 2 + 2r, 2 + 2r).
        visible: which overlaps the loss sees, (2 + 2r, 2 + 2r) bool: z·m, z·U, V·m and V·U. The
            others, m·m, m·U, U·U, z·z, z·V and V·V, do not change k(t), but set how it learns.
    """

    overlaps: jax.Array = eqx.field(kw_only=True)

    @property
    def visible(self) -> np.ndarray:
        half = self.overlaps.shape[-1] // 2
        return np.kron([[False, True], [True, False]], np.ones((half, half), bool))


def overlaps(
    network: LowRankRNN,
    target: Any,
    train_time: ArrayLike,
    rates: LowRankRNN | None = None,
    *,
    loss: AbstractLoss = PopulationLoss(),
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
) -> OverlapCurve:
    """Gradient flow of W = U Vᵀ/N, u = m, v = z/N, by the overlaps of its vectors alone.

        G' = -(H S G + G S H),    G = Θᵀ Θ/N,    Θ = [m, U | z, V],    H = rates/N

    S has the gradient of the loss in the overlaps, of the network of r + 1 units

        W_r = [[0, 0], [V·m, V·U]]/N,    u_r = (1, 0),    v_r = (z·m, z·U)/N

    which has the impulse response of the whole one. Exact at any width, for any loss of the impulse
    response. Integrated is T of Θ(τ) = Θ(0) T, so that G = Tᵀ G(0) T stays a matrix of overlaps, by
    an L-stable method, as long memories are stiff.

    Args:
        network: a `LowRankRNN` of N units and rank r without a bulk, with one input and one output.
            `low_rank_infinite_width(overlaps, 0, 0)` has given overlaps, at 2 + 2r units.
        target: any network, stable if the horizon of the loss is infinite.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        rates: the rates of `input`, `U`, `readout` and `V`, each (), in a pytree of the network's
            structure; by default N.
        loss: any that depends on the impulse response alone and samples no noise.
        rtol: relative tolerance, by default 1e-8 in float64, 1e-5 in float32.
        atol: absolute tolerance of T, by default 1e-10 in float64, 1e-7 in float32.
        max_steps: most attempted steps; then the status is `max_steps`, and later records are NaN.

    Returns:
        The curve. Its eigenvalues, (R, r), are those of Vᵀ U/N; the other ones of W are 0. Forward
        mode differentiates it (`jax.jvp`), reverse mode does not.

    Raises:
        TypeError: if the network or the rates are no `LowRankRNN`, or the loss samples noise.
        ValueError: if the network has a bulk or several inputs or outputs, a rate is negative, the
            target has an infinite loss, or `train_time` does not increase.

    Example:
        Same function, different history: 2.5 times the overlaps that the loss does not see. For
        oscillator(0.3, 1) the loss is 0.4415 at first, and 0.3270 or 0.2670 at τ = 2.

        >>> seen = jnp.kron(1 - jnp.eye(2), jnp.ones((2, 2)))
        >>> G = 0.1 * jnp.eye(4) + 0.02 * seen
        >>> few = rd.theory.low_rank_infinite_width(G, weight_scale=0.0, max_length=0)
        >>> curve = rd.theory.overlaps(few, target, [0.0, 2.0])
        >>> more = jnp.where(curve.visible, 1.0, 2.5) * G
        >>> other = rd.theory.low_rank_infinite_width(more, weight_scale=0.0, max_length=0)
        >>> rd.theory.overlaps(other, target, [0.0, 2.0]).loss

    Source: section 10 of docs/theory.md.
    """
    require_type("network", network, LowRankRNN, "a LowRankRNN")
    require(network.bulk is None, "network", "have no bulk", "one with a bulk")
    shapes = f"one with vectors of shapes {network.input.shape} and {network.readout.shape}"
    one = network.input.ndim == network.readout.ndim == 1
    require(one, "network", "have one input and one output", shapes)
    require_type("loss", loss, AbstractLoss, "a loss")
    if isinstance(loss, SampledLoss):
        raise TypeError(
            "Argument `loss` must be without noise, such as `loss.expected`, but is a SampledLoss."
        )
    loss.check(target)
    tolerances, limit = solver_numbers(rtol, atol, max_steps)
    times = record_times(train_time, network.U.dtype)
    m, z = network.input[:, None], network.readout[:, None]
    vectors = jnp.concatenate([m, network.U, z, network.V], axis=1)
    with jax.default_matmul_precision("highest"):
        start = vectors.T @ vectors / len(vectors)
    num_units = jnp.asarray(len(vectors), start.dtype)
    shares = _shares(network, rates)
    curve = _solve(start, num_units, target, times, shares, loss, tolerances, limit)
    inner = curve.overlaps[:, curve.overlaps.shape[1] // 2 + 1 :, 1 : 1 + network.U.shape[1]]
    good = jnp.isfinite(inner)
    eigenvalues = jnp.linalg.eigvals(jnp.where(good, inner, 0))  # LAPACK, outside of the program
    eigenvalues = jnp.where(good[:, 0], eigenvalues, jnp.nan)
    return eqx.tree_at(lambda c: c.eigenvalues, curve, eigenvalues)


def _shares(network: LowRankRNN, rates: Any) -> jax.Array:
    """η/N of every column of Θ, (2 + 2r,)."""
    N, rank = network.U.shape
    if rates is None:
        return jnp.ones(2 + 2 * rank, network.U.dtype)
    require_type("rates", rates, LowRankRNN, "a LowRankRNN of rates")
    shares = []
    for name in ("input", "U", "readout", "V"):
        rate = real_scalar(f"rates.{name}", getattr(rates, name), minimum=0)
        columns = 1 if name in ("input", "readout") else rank
        shares += [rate.astype(network.U.dtype) / N] * columns
    return jnp.stack(shares)


def _small(G: jax.Array) -> LinearRNN:
    """The network of r + 1 units with the impulse response of one of overlaps G."""
    half = len(G) // 2
    visible = G[half:, :half]  # rows z, V; columns m, U
    W = jnp.concatenate([jnp.zeros_like(visible[:1]), visible[1:]])
    return LinearRNN(W, jnp.zeros_like(visible[0]).at[0].set(1), visible[0])


@eqx.filter_jit
def _solve(
    start: jax.Array,
    num_units: jax.Array,
    target: Any,
    times: jax.Array,
    shares: jax.Array,
    loss: AbstractLoss,
    tolerances: Tolerances,
    max_steps: int,
) -> OverlapCurve:
    dtype = times.dtype

    def gram(T: jax.Array, start: jax.Array) -> jax.Array:
        return T.T @ start @ T

    def velocity(_: jax.Array, T: jax.Array, args: Any) -> jax.Array:
        start, target, shares, loss = args
        gradient = loss.estimate(_small(gram(T, start)), target).gradient
        slope = jnp.concatenate([gradient.v[None, :], gradient.W[1:]])
        half = len(slope)
        return -jnp.concatenate([T[:, half:] @ slope, T[:, :half] @ slope.T], 1) * shares[None, :]

    def change(T: jax.Array, start: jax.Array) -> jax.Array:
        half = len(T) // 2
        at_start = jnp.eye(len(T), dtype=dtype)
        D = T[:, 1:half] @ T[:, half + 1 :].T - at_start[:, 1:half] @ at_start[:, half + 1 :].T
        return jnp.sqrt(jnp.maximum(jnp.sum((start @ D) * (D @ start)), 0))

    with jax.default_matmul_precision("highest"):
        # from τ = 0, where the first record may be
        from_zero = jnp.concatenate([jnp.zeros(1, dtype), times])
        solution = ode.solve(
            *(velocity, jnp.eye(len(start), dtype=dtype), from_zero),
            (start, target, shares, loss),
            method=ode.RODAS5P,
            rtol=tolerances[0],
            atol=tolerances[1],
            max_steps=max_steps,
        )
        T = solution.ys[1:]
        G = jax.vmap(gram, (0, None))(T, start)
        losses = jax.lax.map(lambda G: loss.value_and_grad(_small(G), target)[0], G)
        moved = jax.vmap(change, (0, None))(T, start)
    half, good = len(start) // 2, jnp.isfinite(G[:, 0, 0])
    return OverlapCurve(
        train_time=times,
        loss=jnp.where(good, losses, jnp.nan),
        eigenvalues=jnp.zeros(0, dtype),
        coordinates={
            "input_norm": jnp.sqrt(num_units * G[:, 0, 0]),
            "output_norm": jnp.sqrt(G[:, half, half] / num_units),
            "overlap": G[:, 0, half],
            "weight_change": moved,
        },
        status=solution.status,
        overlaps=G,
    )
