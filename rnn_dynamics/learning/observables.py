"""What is recorded of a network while it learns."""

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.learning.rates import Rates
from rnn_dynamics.loss import relative
from rnn_dynamics.model import LinearRNN


class Observables(eqx.Module):
    """Scalars of one network at one record, each (); of a whole trajectory, each (R,). All NaN
    after a failure.

    Attributes:
        loss: the loss; of a loss on sampled noise its exact expectation.
        gradient_norm: norm of the gradient of the loss in all parameters.
        gradient_error: estimate of the relative error of that gradient; of a loss on sampled noise
            the relative noise of the gradient that the next step is made with, its distance from
            that of the expectation.
        weight_norm: ‖W‖_F.
        weight_change: ‖W - W(0)‖_F.
        relative_change: ‖W - W(0)‖_F / ‖W(0)‖_F; infinite once W has left W(0) = 0.
        input_norm: |u|.
        output_norm: |v|.
        overlap: u · v.
        conserved_drift: change of the conserved matrix C since the start, relative to the sum of
            the norms of its terms: an integration error for a gradient flow, of the order of the
            step for gradient descent; NaN if a rate is 0.
    """

    loss: jax.Array
    gradient_norm: jax.Array
    gradient_error: jax.Array
    weight_norm: jax.Array
    weight_change: jax.Array
    relative_change: jax.Array
    input_norm: jax.Array
    output_norm: jax.Array
    overlap: jax.Array
    conserved_drift: jax.Array


def observe(
    rnn: LinearRNN,
    initial: LinearRNN,
    rates: Rates,
    value: jax.Array,
    gradient: LinearRNN,
    error: jax.Array,
) -> Observables:
    """The observables of `rnn`, which started as `initial`, with its loss, gradient and the error
    of that.
    """
    with jax.default_matmul_precision("highest"):
        squares = [jnp.sum(x**2) for x in (gradient.W, gradient.u, gradient.v)]
        change, start = jnp.linalg.norm(rnn.W - initial.W), jnp.linalg.norm(initial.W)
        (C, scale), (C0, _) = rates.conserved(rnn), rates.conserved(initial)
        return Observables(
            loss=value,
            gradient_norm=jnp.sqrt(squares[0] + squares[1] + squares[2]),
            gradient_error=error,
            weight_norm=jnp.linalg.norm(rnn.W),
            weight_change=change,
            relative_change=jnp.where(change == 0, jnp.zeros_like(change), change / start),
            input_norm=jnp.linalg.norm(rnn.u),
            output_norm=jnp.linalg.norm(rnn.v),
            overlap=rnn.u @ rnn.v,
            conserved_drift=relative(jnp.linalg.norm(C - C0), scale),
        )
