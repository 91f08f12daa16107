"""Learning rates of the parameters, relative to each other."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.learning.parts import Complex, split
from rnn_dynamics.model import LinearRNN, NonlinearRNN
from rnn_dynamics.model.arguments import (
    check_real,
    is_traced,
    real_array,
    real_scalar,
    require,
    show,
)


class LeafRates(eqx.Module):
    """Rates η of all arrays of a network, each a number or an array of the same shape, in the order
    of its leaves: θ' = -η ∂L/∂θ.
    """

    def times(self, network: Any) -> Any:
        """η θ of a gradient or an update, and of what has its structure."""
        return self._map(lambda rate, x: jnp.asarray(rate, x.dtype) * x, network)

    def trained(self, gradient: Any) -> Any:
        """A gradient with zeros for frozen parameters."""
        return self._map(
            lambda rate, x: jnp.where(jnp.asarray(rate) > 0, x, jnp.zeros_like(x)), gradient
        )

    def _map(self, function: Callable[[Any, Any], Any], network: Any) -> Any:
        leaves, structure = jax.tree.flatten(network)
        pairs = zip(jax.tree.leaves(self), leaves, strict=True)
        return jax.tree.unflatten(structure, [function(rate, x) for rate, x in pairs])

    @property
    def roots(self) -> "LeafRates":
        """√η of each parameter, 1 of one that is frozen."""

        def root(rate: Any) -> Any:
            rate = jnp.asarray(rate)
            return jnp.where(rate > 0, jnp.sqrt(rate), jnp.ones_like(rate))

        return jax.tree.map(root, self)

    @property
    def inverses(self) -> "LeafRates":
        """1/η of each parameter, of which none is frozen."""
        return jax.tree.map(lambda rate: 1 / jnp.asarray(rate), self)


class TreeRates(LeafRates):
    """Rates of what is trained of any network, of its structure."""

    tree: Any


class Rates(LeafRates):
    """Rates η of the parameters: W' = -η_W ∂L/∂W, u' = -η_u ∂L/∂u, v' = -η_v ∂L/∂v. A rate of 0
    freezes its parameter.

    Networks other than a `LinearRNN` or a `NonlinearRNN` take a network of their structure with
    rates in the place of arrays, such as `jax.tree.map(lambda x: 0.5, network)`.

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

    def conserved(self, rnn: LinearRNN) -> tuple[jax.Array, jax.Array]:
        """C = u uᵀ/η_u - v vᵀ/η_v + (W Wᵀ - Wᵀ W)/η_W and the sum of the norms of its terms, (N, N)
        and ().

        C is constant along a gradient flow if all rates are positive; a frozen parameter makes both
        results NaN.

        Source: sections 2 and 8.1 of docs/theory.md.
        """

        def inverse(rate: Any) -> jax.Array:
            rate = jnp.asarray(rate, rnn.dtype)
            return jnp.where(rate > 0, 1 / rate, jnp.asarray(jnp.nan, rnn.dtype))

        def outer(scale: jax.Array, x: jax.Array) -> jax.Array:
            return scale * x[:, None] * x[None, :] if x.ndim == 1 else scale * (x @ x.T)

        def square(x: jax.Array) -> jax.Array:
            return x @ x if x.ndim == 1 else jnp.sum(x**2)

        W, u, v = rnn.W, rnn.u, rnn.v
        C = (
            outer(inverse(self.u), u)
            - outer(inverse(self.v), v)
            + inverse(self.W) * (W @ W.T - W.T @ W)
        )
        scale = inverse(self.u) * square(u) + inverse(self.v) * square(v)
        return C, scale + inverse(self.W) * jnp.sum(W**2)


def checked_rates(rates: Any, network: Any) -> LeafRates:
    """Rates for what is trained of a network.

    Raises:
        TypeError: if they are neither `Rates` of a `LinearRNN` nor of the network's structure, or
            one is not a real number or array.
        ValueError: if one is negative or not finite, or has another shape.
    """
    if isinstance(rates, Rates):
        if isinstance(network, LinearRNN | NonlinearRNN):
            return rates
        if any(not isinstance(rate, float) or rate != 1 for rate in jax.tree.leaves(rates)):
            kind = type(network).__name__
            raise TypeError(f"Argument `rates` must have the structure of a {kind}, but is Rates.")
        rates = jax.tree.map(lambda _: 1.0, network)
    structures: list[Any] = [jax.tree.structure(tree) for tree in (rates, network)]
    if structures[0] != structures[1]:
        kind = type(network).__name__
        raise TypeError(
            f"Argument `rates` must be Rates or have the structure of a {kind}, but is "
            f"{show(rates)}."
        )
    trained = split(network)[0]

    def check(rate: Any, x: Any) -> Any:
        if np.ndim(rate) == 0:
            check_real("rates", rate, minimum=0)
            return rate if isinstance(rate, int | float) else real_scalar("rates", rate)
        array = real_array("rates", rate, x.shape)
        must = is_traced(array) or bool(jnp.all(array >= 0))
        require(must, "rates", "be positive or zero", "an array with a negative number in it")
        return array

    def of_parts(rate: Any, x: Any) -> Any:
        one = check(rate, x.real)
        return Complex(one, one) if isinstance(x, Complex) else one

    return TreeRates(
        jax.tree.map(
            lambda x, rate: None if x is None else of_parts(rate, x),
            trained,
            rates,
            is_leaf=lambda x: x is None or isinstance(x, Complex),
        )
    )
