"""What a loss tells its learners: the gradient, how good it is, and how it was found."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rnn_dynamics.model import LinearRNN

ANEW = -1  # no attempt is known to be enough


class Estimate(NamedTuple):
    """A loss and its gradient.

    Attributes:
        value: the loss, (); NaN if a weight is not finite, infinite if the network is unstable.
        gradient: in the student.
        error: estimate of the gradient's relative error, (); NaN if the gradient is not finite.
        attempt: which of the ways of finding it was good enough, () int32, of those that get better and dearer; 0 if there is one only.
    """

    value: jax.Array
    gradient: LinearRNN
    error: jax.Array
    attempt: jax.Array


class Step(NamedTuple):
    """A network after a step of gradient descent, and what its loss was before.

    Attributes:
        value: the loss, as in `Estimate`.
        rnn: after the step; the network as it was if its loss or gradient is not finite.
        error: estimate of the relative error of the gradient that was taken, ().
        attempt: as in `Estimate`.
    """

    value: jax.Array
    rnn: LinearRNN
    error: jax.Array
    attempt: jax.Array


def stepped(rnn: LinearRNN, found: Estimate, rates: tuple[jax.Array, ...]) -> Step:
    """The step that a gradient means: W - rates[0] ∂L/∂W and so on, each rate ()."""
    g = found.gradient
    parts = zip((rnn.W, rnn.u, rnn.v), (g.W, g.u, g.v), rates, strict=True)
    good = jnp.isfinite(found.value + found.error)
    moved = LinearRNN(*(jnp.where(good, x - rate * g, x) for x, g, rate in parts))
    return Step(found.value, moved, found.error, found.attempt)


def only_way(rnn: LinearRNN, value: jax.Array, gradient: LinearRNN, error: jax.Array) -> Estimate:
    """The estimate by the only way there is, with NaN for what is not finite."""
    nan = jnp.asarray(jnp.nan, value.dtype)
    value = jnp.where(all_finite(rnn), value, nan)
    error = jnp.where(all_finite(gradient), error, nan)
    return Estimate(value, gradient, error, jnp.int32(0))


def where_wanted(rnn: LinearRNN, wanted: jax.Array) -> LinearRNN:
    """The network, or one without weights: what has failed takes longest, and its batch would wait for it."""
    return jax.tree.map(lambda x: jnp.where(wanted, x, jnp.zeros_like(x)), rnn)


def all_finite(rnn: LinearRNN) -> jax.Array:
    """Whether every parameter is finite, () bool."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(rnn)]))
