"""What is recorded of a network while it learns."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.learning.rates import LeafRates, Rates
from rnn_dynamics.loss import norm, relative
from rnn_dynamics.model import LinearRNN


class Observables(eqx.Module):
    """Scalars of one network at one record, each (); of a whole trajectory, each (R,). All NaN
    after a failure.

    W, u and v are those of `network.system()`, or of a `NonlinearRNN`; where there are none, what
    is of them is NaN.

    Attributes:
        loss: the loss; of a loss on sampled noise its exact expectation, or, of a nonlinear
            network, its mean over held-out noise.
        gradient_norm: norm of the gradient of the loss in all parameters.
        gradient_error: estimate of the relative error of that gradient; of a loss on sampled noise
            the relative noise of the gradient that the next step is made with, its distance from
            that of the expectation.
        weight_norm: ‖W‖_F.
        weight_change: ‖W - W(0)‖_F.
        relative_change: ‖W - W(0)‖_F / ‖W(0)‖_F; infinite once W has left W(0) = 0.
        input_norm: |u|.
        output_norm: |v|.
        overlap: u · v, of several channels tr(uᵀ v); NaN if u and v differ in shape.
        conserved_drift: change of the conserved matrix C since the start, relative to the sum of
            the norms of its terms: an integration error for a gradient flow, of the order of the
            step for gradient descent, and what nonlinear units do to it; NaN if a rate is 0, and of
            networks without `Rates`.
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
    rnn: LinearRNN | None,
    initial: LinearRNN | None,
    rates: LeafRates,
    value: jax.Array,
    gradient: Any,
    error: jax.Array,
) -> Observables:
    """The observables of a network that is `rnn`, if it is linear, and started as `initial`, with
    its loss, gradient and the error of that.
    """
    nan = jnp.full_like(value, jnp.nan)
    nothing = dict.fromkeys(Observables.__dataclass_fields__, nan)
    with jax.default_matmul_precision("highest"):
        nothing |= {"loss": value, "gradient_norm": norm(gradient), "gradient_error": error}
        if rnn is None or initial is None:
            return Observables(**nothing)
        change, start = jnp.linalg.norm(rnn.W - initial.W), jnp.linalg.norm(initial.W)
        drift = nan
        if isinstance(rates, Rates):
            (C, scale), (C0, _) = rates.conserved(rnn), rates.conserved(initial)
            drift = relative(jnp.linalg.norm(C - C0), scale)
        known = {
            "weight_norm": jnp.linalg.norm(rnn.W),
            "weight_change": change,
            "relative_change": jnp.where(change == 0, jnp.zeros_like(change), change / start),
            "input_norm": jnp.linalg.norm(rnn.u),
            "output_norm": jnp.linalg.norm(rnn.v),
            "overlap": jnp.vdot(rnn.u, rnn.v) if rnn.u.shape == rnn.v.shape else nan,
            "conserved_drift": drift,
        }
        return Observables(**(nothing | known))
