"""The population loss: the expected squared error on white noise, without sampling."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss.energy import energy, gramians
from rnn_dynamics.model import LinearRNN, parallel
from rnn_dynamics.model.arguments import is_traced

OTHER_PANEL = (
    0.7  # relative length of the panels of the second gradient, from which the error is estimated
)


class PopulationLoss(eqx.Module):
    """Expected squared error on white noise over an infinite horizon.

        L = ½ ∫₀^∞ (k(t) - k*(t))² dt

    k and k* are the impulse responses of student and target. L is the energy of one network, the student in parallel with
    the target of reversed sign, so its gradient is exact: no noise is drawn and no time grid is chosen. Any `LinearRNN` can be
    the target; it is cast to the student's dtype.

    An unstable student has an infinite loss and a NaN gradient: neither is ever a plausible wrong number.

    Source: sections 1 and 2 of the theory note.
    """

    def __call__(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> jax.Array:
        """The loss, (). It can be differentiated by `jax.grad` (reverse mode) in both networks.

        Args:
            rnn: the student, N units.
            target: the target.
            key: not used; losses that sample noise need it.

        Raises:
            ValueError: if the target is unstable: its loss over an infinite horizon is infinite.
        """
        self.check(target)
        return energy(difference(rnn, target))

    def value_and_grad(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN]:
        """The loss, (), and its exact gradient in the student, a `LinearRNN`.

        Raises:
            ValueError: if the target is unstable.
        """
        self.check(target)
        return _value_and_grad(rnn, target, 1.0)

    def check(self, target: LinearRNN) -> None:
        """Refuse a target that has an infinite loss; one that is being traced is passed over.

        Raises:
            ValueError: if an eigenvalue of `target.W` has a real part of 1 or more.
        """
        if is_traced(target.W):
            return
        largest = float(np.max(np.linalg.eigvals(np.asarray(target.W)).real))
        if largest >= 1:
            raise ValueError(
                "Argument `target` must be stable for an infinite horizon (every eigenvalue of W with a real part below "
                f"1), but has one at {largest:.6g}."
            )

    def gradient_and_error(
        self, rnn: LinearRNN, target: LinearRNN
    ) -> tuple[jax.Array, LinearRNN, jax.Array]:
        """The loss, its gradient, and an estimate of the gradient's relative error, ().

        Two gradients from panels of different length share no quadrature node and round differently; the error is the norm of
        their difference relative to the norm of the gradient.
        """
        self.check(target)
        return _gradient_and_error(rnn, target)


def difference(rnn: LinearRNN, target: LinearRNN) -> LinearRNN:
    """The network with impulse response k - k*, of N + N* units, in the student's dtype."""
    target = target.astype(rnn.dtype)
    return parallel(rnn, eqx.tree_at(lambda r: r.v, target, -target.v))


@jax.jit
def _value_and_grad(
    rnn: LinearRNN, target: LinearRNN, panel_scale: ArrayLike
) -> tuple[jax.Array, LinearRNN]:
    both = difference(rnn, target)
    G = gramians(both, panel_scale)
    N = rnn.num_units
    with jax.default_matmul_precision("highest"):
        gradient = (G.Q[:N] @ G.P[:, :N], G.Q[:N] @ both.u, G.P[:N] @ both.v)
    return G.energy, eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, gradient)


@jax.jit
def _gradient_and_error(
    rnn: LinearRNN, target: LinearRNN
) -> tuple[jax.Array, LinearRNN, jax.Array]:
    scales = jnp.asarray([1.0, OTHER_PANEL], rnn.dtype)
    values, gradients = jax.lax.map(lambda scale: _value_and_grad(rnn, target, scale), scales)
    gradient = jax.tree.map(lambda x: x[0], gradients)
    gap = jax.tree.map(lambda x: x[1] - x[0], gradients)
    return values[0], gradient, _norm(gap) / _norm(gradient)


def _norm(rnn: LinearRNN) -> jax.Array:
    return jnp.sqrt(jnp.sum(rnn.W**2) + jnp.sum(rnn.u**2) + jnp.sum(rnn.v**2))
