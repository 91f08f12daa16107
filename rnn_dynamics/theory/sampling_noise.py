"""Learning on sampled noise: the covariance of its gradients, and the mean loss near a solution
(section 11 of docs/theory.md).

One sequence of white noise ξ gives ∂ℓ/∂k_n, quadratic in ξ, at every lag n of the impulse response.
The errors e_t are Gaussian, so the covariance A of these K numbers is exact. It is linear in the
second moments S = ⟨δk δkᵀ⟩ of the error of the response. Parameters enter by the Jacobian J of the
response alone.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from rnn_dynamics.loss import SampledLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import positive_int, real_scalar, require, require_type
from rnn_dynamics.model.linear_rnn import require_rnns
from rnn_dynamics.theory.arguments import check_rates


def gradient_covariance(rnn: LinearRNN, target: LinearRNN, loss: SampledLoss) -> jax.Array:
    """Covariance of the gradient of one sampled sequence, (P, P), P = N² + 2N. Exact.

        Cov = Jᵀ A J,    J = ∂k/∂θ at the K time steps of the loss

    With the weighting "uniform" it is 2 L F + g gᵀ, where L is the expected loss, g its gradient
    and F = Σ_n dt ∂k_n ∂k_nᵀ the Gauss-Newton matrix. With "time_averaged", errors at different
    times are correlated,

        A_nm = dt/K² Σ_ts ⟨e_t e_s⟩ δ_{t-n,s-m} + ⟨e_t ξ_{s-m}⟩ ⟨e_s ξ_{t-n}⟩

    A minibatch has the covariance of one sequence divided by its size; the loss's own is not used.
    For many parameters see `gradient_covariance_product`. Takes K³ operations if "time_averaged".

    Args:
        rnn: the network, N units, one input and one output.
        target: any such `LinearRNN`.
        loss: a `SampledLoss` of white noise, of K time steps.

    Returns:
        The covariance, of the parameters W row by row, u, v.

    Raises:
        TypeError: if `loss` is no `SampledLoss`.
        ValueError: if its noise is coloured, or there are several channels.

    Example:
        >>> loss = rd.SampledLoss(15.0, 0.1, batch_size=1, weighting="uniform")
        >>> rd.theory.gradient_covariance(rnn, target, loss)

    Source: section 11 of docs/theory.md.
    """
    _check(rnn, target, loss)
    return _covariance(rnn, target, loss)


def gradient_covariance_product(
    rnn: LinearRNN, target: LinearRNN, loss: SampledLoss, vector: LinearRNN
) -> LinearRNN:
    """The covariance of `gradient_covariance`, (P, P), times a vector, without forming it.

    Args:
        rnn, target, loss: as in `gradient_covariance`.
        vector: a `LinearRNN` of the shape of `rnn`, such as a gradient.

    Returns:
        The product, a `LinearRNN`.

    Raises:
        TypeError, ValueError: as `gradient_covariance`, or if `vector` has other shapes.

    Example:
        >>> _, gradient = loss.expected.value_and_grad(rnn, target)
        >>> rd.theory.gradient_covariance_product(rnn, target, loss, gradient)

    Source: section 11 of docs/theory.md.
    """
    _check(rnn, target, loss)
    require_rnns(vector=vector)
    shapes = [tuple(x.shape for x in jax.tree.leaves(one)) for one in (rnn, vector)]
    require(shapes[0] == shapes[1], "vector", f"have the shapes {shapes[0]} of `rnn`", shapes[1])
    return _product(rnn, target, loss, vector)


def minibatch_loss(
    rnn: LinearRNN,
    target: LinearRNN,
    loss: SampledLoss,
    learning_rate: ArrayLike,
    num_steps: int,
    rates: Any = None,
) -> jax.Array:
    """Mean loss of gradient descent on minibatches near a solution, over all noise, (steps + 1,).

        S ← (1 - η Θ w) S (1 - η w Θ) + η²/B Θ A(S) Θ,    L = ½ Σ_n w_n S_nn

    S = ⟨δk δkᵀ⟩ are second moments of the error of the impulse response at K time steps, w_n its
    weights in the loss, Θ = J η Jᵀ the tangent kernel, A(S) the covariance in `gradient_covariance`
    and B the batch size. This is the recursion Σ ← Σ - η(FΣ + ΣF) + η²[(1 + 1/B) FΣF + tr(FΣ) F/B]
    of the parameters, for both weightings. Noise vanishes with the error: there is no floor.

    It is exact while J stays what it is at `rnn`, so near a solution only. For a leaky integrator
    of decay 0.3, B = 1, means of 2000 runs are within 2 standard errors, of 5 %, from a distance of
    1e-4 in the parameters, and up to 32 % below it from a distance of 0.1. It is a mean: above
    `largest_learning_rate` it grows though most seeds may still learn, and close to it few seeds
    dominate it. Takes K³ operations a step.

    Args:
        rnn: the network at step 0, close to the target's impulse response.
        target: any `LinearRNN` of one input and one output.
        loss: a `SampledLoss` of white noise, with its batch size.
        learning_rate: η, positive.
        num_steps: number of steps, positive.
        rates: `Rates`, by default all 1.

    Returns:
        The mean of the expected loss before each step and after the last, (num_steps + 1,).

    Raises:
        TypeError: if `loss` is no `SampledLoss`.
        ValueError: if its noise is coloured, there are several channels, or a number is not
            positive.

    Example:
        >>> loss = rd.SampledLoss(15.0, 0.1, batch_size=4)
        >>> rd.theory.minibatch_loss(trained, target, loss, learning_rate=0.05, num_steps=200)

    Source: section 11 of docs/theory.md.
    """
    _check(rnn, target, loss)
    check_rates(rates)
    rate = real_scalar("learning_rate", learning_rate, positive=True).astype(rnn.dtype)
    num_steps = positive_int("num_steps", num_steps)
    return _mean_losses(rnn, target, loss, rate, rates, num_steps)


def _check(rnn: Any, target: Any, loss: Any) -> None:
    require_rnns(rnn=rnn, target=target)
    require_type("loss", loss, SampledLoss, "a SampledLoss")
    require(loss.input is None, "loss", "have white noise", "one of coloured noise")
    for name, one in (("rnn", rnn), ("target", target)):
        shapes = f"one with `u` of shape {one.u.shape} and `v` of shape {one.v.shape}"
        require(one.u.ndim == one.v.ndim == 1, name, "have one input and one output", shapes)


def _response(rnn: LinearRNN, loss: SampledLoss) -> jax.Array:
    """k_n = vᵀ Mⁿ u, n < K, (K,): what a pulse leaves."""
    dt = jnp.asarray(loss.time_step, rnn.dtype)
    return rnn.simulate(jnp.zeros(loss.num_steps, rnn.dtype).at[0].set(1 / dt), dt)


def _error(rnn: LinearRNN, target: LinearRNN, loss: SampledLoss) -> jax.Array:
    return _response(rnn, loss) - _response(target.astype(rnn.dtype), loss)


def _weights(loss: SampledLoss, dtype: Any) -> jax.Array:
    """w_n of L = ½ Σ_n w_n δk_n², (K,)."""
    dt, num = jnp.asarray(loss.time_step, dtype), loss.num_steps
    averaged = loss.weighting == "time_averaged"
    return dt * (1 - jnp.arange(num, dtype=dtype) / num) if averaged else dt * jnp.ones(num, dtype)


def _lag_covariance(S: jax.Array, loss: SampledLoss) -> jax.Array:
    """A: of ∂ℓ/∂k_n of one sequence, where the error of the response has second moments S, both
    (K, K).
    """
    dt, num = jnp.asarray(loss.time_step, S.dtype), loss.num_steps
    if loss.weighting == "uniform":
        return dt**2 * (S + jnp.trace(S) * jnp.eye(num, dtype=S.dtype))

    def along_diagonals(earlier: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        total = row + jnp.concatenate([jnp.zeros(1, S.dtype), earlier[:-1]])
        return total, total

    # ⟨e_t e_s⟩/dt: sums of S down its diagonals; then these up the diagonals, over the common time
    correlations = jax.lax.scan(along_diagonals, jnp.zeros(num, S.dtype), S)[1]
    shared = jax.lax.scan(along_diagonals, jnp.zeros(num, S.dtype), correlations[::-1, ::-1])[1]
    lags = jnp.arange(num)

    def crossed(n: jax.Array) -> jax.Array:
        """Σ of S_ab, a + b = n + m, times the number of times (t, s) with t - s = a - m, (K,)."""
        m, a = lags[:, None], lags[None, :]
        b = n + m - a
        counts = num - jnp.maximum(m, a) - jnp.maximum(0, n - a)
        counts = jnp.where((b >= 0) & (b < num), jnp.maximum(counts, 0), 0)
        return jnp.sum(counts.astype(S.dtype) * S[a, jnp.clip(b, 0, num - 1)], axis=1)

    return (dt / num) ** 2 * (shared[::-1, ::-1] + jax.lax.map(crossed, lags))


@jax.jit
def _covariance(rnn: LinearRNN, target: LinearRNN, loss: SampledLoss) -> jax.Array:
    flat, unravel = ravel_pytree(rnn)
    J = jax.jacrev(lambda x: _response(unravel(x), loss))(flat)
    error = _error(rnn, target, loss)
    with jax.default_matmul_precision("highest"):
        return J.T @ _lag_covariance(error[:, None] * error[None, :], loss) @ J


@jax.jit
def _product(rnn: LinearRNN, target: LinearRNN, loss: SampledLoss, vector: LinearRNN) -> LinearRNN:
    error, push = jax.linearize(lambda rnn: _error(rnn, target, loss), rnn)
    A = _lag_covariance(error[:, None] * error[None, :], loss)
    with jax.default_matmul_precision("highest"):
        return jax.linear_transpose(push, rnn)(A @ push(vector))[0]


@jax.jit(static_argnums=5)
def _mean_losses(
    rnn: LinearRNN,
    target: LinearRNN,
    loss: SampledLoss,
    rate: jax.Array,
    rates: Any,
    num_steps: int,
) -> jax.Array:
    error, push = jax.linearize(lambda rnn: _error(rnn, target, loss), rnn)
    pull, w = jax.linear_transpose(push, rnn), _weights(loss, rnn.dtype)

    def kernel(lags: jax.Array) -> jax.Array:
        change = pull(lags)[0]
        return push(change if rates is None else rates.times(change))

    with jax.default_matmul_precision("highest"):
        one = jnp.eye(len(w), dtype=rnn.dtype)
        tangent = jax.vmap(kernel)(one)
        contraction = one - rate * tangent * w[None, :]

        def step(S: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            noise = tangent @ _lag_covariance(S, loss) @ tangent
            after = contraction @ S @ contraction.T + rate**2 / loss.batch_size * noise
            return after, jnp.sum(w * jnp.diag(S)) / 2

        start = error[:, None] * error[None, :]
        return jax.lax.scan(step, start, length=num_steps + 1)[1]
