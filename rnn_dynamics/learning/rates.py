"""Learning rates of the three parameters, relative to each other."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import check_real, real_scalar


class Rates(eqx.Module):
    """Rates η of the parameters: W' = -η_W ∂L/∂W, u' = -η_u ∂L/∂u, v' = -η_v ∂L/∂v. A rate of 0
    freezes its parameter.

    Raises:
        TypeError: if a rate is not a real number.
        ValueError: if a rate is negative or not finite.
    """

    W: jax.Array
    u: jax.Array
    v: jax.Array

    def __init__(self, W: ArrayLike = 1.0, u: ArrayLike = 1.0, v: ArrayLike = 1.0) -> None:
        rates = {"W": W, "u": u, "v": v}
        for name, value in rates.items():
            # a Python number stays one: default rates must not start JAX
            check_real(f"rates.{name}", value, minimum=0)
            if not isinstance(value, int | float):
                rates[name] = real_scalar(f"rates.{name}", value)
        self.W, self.u, self.v = (rates[name] for name in "Wuv")  # type: ignore[assignment]

    def times(self, rnn: LinearRNN) -> LinearRNN:
        """(η_W W, η_u u, η_v v) of a gradient or an update."""
        return eqx.tree_at(
            lambda r: (r.W, r.u, r.v),
            rnn,
            tuple(
                jnp.asarray(rate, x.dtype) * x
                for rate, x in ((self.W, rnn.W), (self.u, rnn.u), (self.v, rnn.v))
            ),
        )

    def trained(self, gradient: LinearRNN) -> LinearRNN:
        """A gradient with zeros for frozen parameters."""
        moves = (jnp.asarray(rate) > 0 for rate in (self.W, self.u, self.v))
        parts = zip(moves, (gradient.W, gradient.u, gradient.v), strict=True)
        return LinearRNN(*(jnp.where(moving, x, jnp.zeros_like(x)) for moving, x in parts))

    @property
    def roots(self) -> "Rates":
        """√η of each parameter, 1 of one that is frozen."""

        def root(rate: Any) -> Any:
            rate = jnp.asarray(rate)
            return jnp.where(rate > 0, jnp.sqrt(rate), jnp.ones_like(rate))

        return jax.tree.map(root, self)

    @property
    def inverses(self) -> "Rates":
        """1/η of each parameter, of which none is frozen."""
        return jax.tree.map(lambda rate: 1 / jnp.asarray(rate), self)

    def conserved(self, rnn: LinearRNN) -> tuple[jax.Array, jax.Array]:
        """C = u uᵀ/η_u - v vᵀ/η_v + (W Wᵀ - Wᵀ W)/η_W and the sum of the norms of its terms, (N, N)
        and ().

        C is constant along a gradient flow if all rates are positive; a frozen parameter makes both
        results NaN.
        Source: section 2 of the theory note.
        """

        def inverse(rate: Any) -> jax.Array:
            rate = jnp.asarray(rate, rnn.dtype)
            return jnp.where(rate > 0, 1 / rate, jnp.asarray(jnp.nan, rnn.dtype))

        W, u, v = rnn.W, rnn.u, rnn.v
        C = (
            inverse(self.u) * u[:, None] * u[None, :]
            - inverse(self.v) * v[:, None] * v[None, :]
            + inverse(self.W) * (W @ W.T - W.T @ W)
        )
        scale = inverse(self.u) * (u @ u) + inverse(self.v) * (v @ v)
        return C, scale + inverse(self.W) * jnp.sum(W**2)
