"""Low-rank networks of nonlinear units at infinite width, by the overlaps of their vectors."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics import ode
from rnn_dynamics.loss import AbstractLoss, SampledLoss
from rnn_dynamics.model.arguments import (
    real_array,
    real_scalar,
    record_times,
    require,
    require_type,
    show,
)
from rnn_dynamics.theory.arguments import Tolerances, solver_numbers


class ClosedRNN(eqx.Module):
    """A low-rank network W = U Vᵀ/N, u = m, v = z/N of N → ∞ units φ(x) = erf(√π x/2) whose vectors
    are jointly Gaussian, as a nonlinear network of r + 1 units.

        α' = -α + x,    κ' = -κ + g (G_Vm α + G_VU κ),    y = g (G_zm α + G_zU κ)

        g = ⟨φ'(h)⟩ = 1/√(1 + π Δ/2),    Δ = ⟨h²⟩ of the activity h = m α + U κ

    Attributes:
        overlaps: G = Θᵀ Θ/N of Θ = [m, U | z, V], (2 + 2r, 2 + 2r).

    Source: section 10 of docs/theory.md.
    """

    overlaps: jax.Array

    def simulate(self, x: ArrayLike, time_step: ArrayLike) -> jax.Array:
        """The outputs after every Euler step, from rest, (..., T) → (..., T).

        Args:
            x: inputs.
            time_step: dt in leak time constants.

        Raises:
            ValueError: if the time step is not positive.
        """
        G, half = self.overlaps, len(self.overlaps) // 2
        dt, x = real_scalar("time_step", time_step, positive=True), jnp.asarray(x, G.dtype)
        dt = dt.astype(G.dtype)

        def read(s: jax.Array) -> jax.Array:
            variance = jnp.sum((s @ G[:half, :half]) * s, axis=-1, keepdims=True)
            return (s @ G[:half, half:]) / jnp.sqrt(1 + jnp.pi * variance / 2)

        def step(s: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            drive = jnp.concatenate([x[:, None], read(s)[:, 1:]], axis=1)
            s = s + dt * (drive - s)
            return s, read(s)[:, 0]

        trials = x.reshape(-1, x.shape[-1])
        with jax.default_matmul_precision("highest"):
            rest = jnp.zeros((len(trials), half), G.dtype)
            _, y = jax.lax.scan(step, rest, trials.T)
        return y.T.reshape(x.shape)


class ClosureCurve(eqx.Module):
    """What the Gaussian closure predicts at R records.

    Attributes:
        train_time: learning time τ of each record, (R,).
        loss: the loss, (R,).
        eigenvalues: of Vᵀ U/N, (R, r) complex: all eigenvalues of W that are not 0.
        overlaps: G = Θᵀ Θ/N of Θ = [m, U | z, V], (R, 2 + 2r, 2 + 2r). `ClosedRNN(overlaps[i])` is
            the network at a record.
        status: a `Status`, () int32; records after a failure are NaN.
    """

    train_time: jax.Array
    loss: jax.Array
    eigenvalues: jax.Array
    overlaps: jax.Array
    status: jax.Array


def gaussian_closure(
    network: Any,
    target: Any,
    loss: AbstractLoss,
    train_time: ArrayLike,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    max_steps: int = 100_000,
) -> ClosureCurve:
    """Gradient flow of a low-rank network of N → ∞ units φ(x) = erf(√π x/2), W = U Vᵀ/N.

        G' = -(S G + G S),    S = ∂L/∂G + (∂L/∂G)ᵀ,    G = Θᵀ Θ/N,    Θ = [m, U | z, V]

    with the loss L of `ClosedRNN(G)` and rates N on every vector. All that a wide network knows of
    its vectors are their overlaps, as long as the vectors are jointly Gaussian.

    It fails where they are not:

    - at small width: outputs have errors that fall as N^-1/2 (of the signal 0.14 at N = 500, 0.05
      at 4,000, 0.02 at 32,000);
    - as learning goes on: the gradient of a unit's weights is a nonlinear function of its own
      activity, of which Θ' = -Θ S keeps the linear part, so that vectors leave the Gaussian
      distribution. The flow is exact at the start; with overlaps of order 1 the loss is 2 % too
      high when it has fallen by a fifth and 8 % when it has halved, at any width;
    - where vectors start from another distribution: signs, sparse vectors, several populations;
    - beside a bulk, or for another activation.

    Args:
        network: a `LowRankRNN` without a bulk, with one input and one output: its vectors.
        target: any network that the loss takes.
        loss: a deterministic loss of networks that are simulated, such as
            `SampledLoss(...).fixed(key)`.
        train_time: learning times of the records, (R,), increasing, positive or zero.
        rtol: relative tolerance of the integration; by default that of `ode.solve`.
        atol: absolute tolerance of the overlaps; likewise.
        max_steps: most attempted steps; then the status is `max_steps`, and later records are NaN.

    Returns:
        The curve: `.loss`, `.overlaps`, and as `.eigenvalues` those of Vᵀ U/N.

    Raises:
        TypeError: if the network has no such vectors or the loss is on fresh noise.
        ValueError: if the network has a bulk, a shape is wrong or `train_time` does not increase.

    Example:
        >>> loss = rd.SampledLoss(horizon=20.0, time_step=0.1, batch_size=512)
        >>> fixed = loss.fixed(jax.random.key(0))
        >>> rd.theory.gaussian_closure(network, target, fixed, jnp.linspace(0, 10, 21)).loss

    Source: section 10 of docs/theory.md.
    """
    vectors = _vectors(network)
    require_type("loss", loss, AbstractLoss, "a loss, such as `SampledLoss(...).fixed(key)`")
    if isinstance(loss, SampledLoss):
        raise TypeError(
            "Argument `loss` must be on one batch of noise, `loss.fixed(key)`, but is a "
            "SampledLoss."
        )
    loss.check(target)
    tolerances, limit = solver_numbers(rtol, atol, max_steps)
    times = record_times(train_time, vectors.dtype)
    return _solve(vectors, target, loss, times, tolerances, limit)


def _vectors(network: Any) -> jax.Array:
    """Θ = [m, U | z, V], (N, 2 + 2r)."""
    names = ("input", "U", "readout", "V")
    if not all(hasattr(network, name) for name in names):
        raise TypeError(f"Argument `network` must be a LowRankRNN, but is {show(network)}.")
    bulk = getattr(network, "bulk", None)
    require(bulk is None, "network", "have no bulk", "a LowRankRNN with one")
    m, U, z, V = (
        real_array(f"network.{name}", getattr(network, name), ("N", "r")[: 1 + (i % 2)])
        for i, name in enumerate(names)
    )
    shapes = f"of vectors of shapes {m.shape}, {U.shape}, {z.shape} and {V.shape}"
    fits = m.shape == z.shape and U.shape == V.shape and len(m) == len(U)
    require(fits, "network", "have one input, one output and as many units", shapes)
    return jnp.concatenate([m[:, None], U, z[:, None], V], axis=1)


@eqx.filter_jit
def _solve(
    vectors: jax.Array,
    target: Any,
    loss: AbstractLoss,
    times: jax.Array,
    tolerances: Tolerances,
    max_steps: int,
) -> ClosureCurve:
    def velocity(_: jax.Array, G: jax.Array, args: Any) -> jax.Array:
        target, loss = args
        slope = loss.estimate(ClosedRNN(G), target).gradient.overlaps
        S = slope + slope.T
        return -(S @ G + G @ S)

    rtol, atol = tolerances
    with jax.default_matmul_precision("highest"):
        start = vectors.T @ vectors / len(vectors)
        # from τ = 0, where the first record may be
        from_zero = jnp.concatenate([jnp.zeros(1, times.dtype), times])
        solution = ode.solve(
            *(velocity, start, from_zero, (target, loss)),
            rtol=rtol,
            atol=atol,
            max_steps=max_steps,
        )
        G, half = solution.ys[1:], vectors.shape[1] // 2
        losses = jax.lax.map(lambda G: loss(ClosedRNN(G), target), G)
    good = jnp.isfinite(G[:, 0, 0])
    eigenvalues = jnp.linalg.eigvals(jnp.where(good[:, None, None], G, 0)[:, half + 1 :, 1:half])
    return ClosureCurve(
        times,
        jnp.where(good, losses, jnp.nan),
        jnp.where(good[:, None], eigenvalues, jnp.nan),
        G,
        solution.status,
    )
