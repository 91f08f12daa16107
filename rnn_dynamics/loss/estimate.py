"""What a loss finds: its value and gradient, and how good both are."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.model import LinearRNN

# First attempts: none at all, that of the weight scale, and what proves stability.
SKIP, ANEW, DENSE = -2, -1, 1000


class Evaluation(NamedTuple):
    """A loss, its gradient, and estimates of their errors.

    An error of infinity says that nothing is known: the network is neither proven to be stable nor
    shown to be unstable.

    Attributes:
        value: the loss, (); infinite if the network is unstable, NaN if that is not known or a
            weight is not finite.
        gradient: in the student, a `LinearRNN`; NaN unless the value is finite.
        value_error: estimate of the value's relative error, ().
        gradient_error: estimate of the relative error of the gradient, of the norm of all its
            parameters, ().
    """

    value: jax.Array
    gradient: LinearRNN
    value_error: jax.Array
    gradient_error: jax.Array


class Estimate(NamedTuple):
    """An evaluation, and how it was found.

    Attributes:
        value, gradient, value_error, gradient_error: as in `Evaluation`.
        attempt: which of the ways of finding it was good enough, () int32, of those that get better
            and dearer; 0 if there is one only.
    """

    value: jax.Array
    gradient: LinearRNN
    value_error: jax.Array
    gradient_error: jax.Array
    attempt: jax.Array

    @property
    def evaluation(self) -> Evaluation:
        """The same without the attempt."""
        return Evaluation(*self[:4])


def only_way(rnn: LinearRNN, evaluation: Evaluation) -> Estimate:
    """The estimate by the only way there is, with NaN for what is not finite."""
    nan = jnp.asarray(jnp.nan, evaluation.value.dtype)
    finite = all_finite(rnn)
    value, value_error, gradient_error = (
        jnp.where(finite, x, nan)
        for x in (evaluation.value, evaluation.value_error, evaluation.gradient_error)
    )
    return Estimate(value, evaluation.gradient, value_error, gradient_error, jnp.int32(0))


def where_wanted(rnn: LinearRNN, wanted: jax.Array) -> LinearRNN:
    """The network, or one without weights: what has failed takes longest, and its batch would wait
    for it.
    """

    def choose(x: Any) -> Any:
        return jnp.where(wanted, x, jnp.zeros_like(x)) if eqx.is_inexact_array(x) else x

    return jax.tree.map(choose, rnn)


def all_finite(rnn: LinearRNN) -> jax.Array:
    """Whether every parameter is finite, () bool."""
    leaves = jax.tree.leaves(eqx.filter(rnn, eqx.is_inexact_array))
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves]))


def norm(x: Any) -> jax.Array:
    """Norm of all numbers of a pytree, ()."""

    def square(leaf: jax.Array) -> jax.Array:
        return jnp.sum((jnp.abs(leaf) if jnp.iscomplexobj(leaf) else leaf) ** 2)

    return jnp.sqrt(sum(square(leaf) for leaf in jax.tree.leaves(x)))


def relative(error: jax.Array, size: jax.Array) -> jax.Array:
    """An error relative to a size; what is 0 is so exactly, by a silent parameter."""
    silent = size == 0
    return jnp.where(
        silent, jnp.zeros_like(error), error / jnp.where(silent, jnp.ones_like(size), size)
    )
