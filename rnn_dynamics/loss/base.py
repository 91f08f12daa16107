"""What every loss has: a value, its gradient, and how trainers ask for them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss.estimate import SKIP, Estimate, Evaluation, only_way, where_wanted


class AbstractLoss(eqx.Module):
    """A loss of a network against a target, for `gradient_flow` and `gradient_descent`.

    A subclass defines `__call__`, which JAX differentiates, or `evaluate`, if it knows more about
    its gradient. Everything else follows.

        class StationaryLoss(rd.AbstractLoss):
            def __call__(self, network, target, key=None):
                def gain(rnn):  # of a constant input, vᵀ (1 - W)⁻¹ u
                    return rnn.v @ jnp.linalg.solve(jnp.eye(rnn.num_units) - rnn.W, rnn.u)

                return (gain(network) - gain(target)) ** 2 / 2

        rd.gradient_flow(rnn, target, [0.0, 1.0], loss=StationaryLoss())
    """

    def __call__(self, network: Any, target: Any, key: jax.Array | None = None) -> jax.Array:
        """The loss, ().

        Args:
            network: the student.
            target: the target.
            key: a JAX random key, for losses that sample noise.
        """
        if type(self).evaluate is AbstractLoss.evaluate:
            raise NotImplementedError(
                f"{type(self).__name__} must define `__call__` or `evaluate`, but has neither."
            )
        return self.evaluate(network, target, key).value

    def evaluate(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The loss, its gradient in the student, and estimates of their errors.

        By default JAX differentiates the loss, in reverse mode, and both errors are eps of the
        dtype: what rounding does is not known.
        """
        value, gradient = eqx.filter_value_and_grad(lambda one: self(one, target, key))(network)
        eps = jnp.asarray(jnp.finfo(value.dtype).eps, value.dtype)
        return Evaluation(value, gradient, eps, eps)

    def value_and_grad(
        self, network: Any, target: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """The loss, (), and its gradient in the student, of `evaluate`."""
        return self.evaluate(network, target, key)[:2]

    def gradient_and_error(
        self, network: Any, target: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any, jax.Array]:
        """The loss and its gradient as records keep them, and the gradient's relative error, ()."""
        value, gradient, _, error = self.reference(network, target, key)
        return value, gradient, error

    @property
    def expected(self) -> "AbstractLoss":
        """The expectation of a loss that samples noise; by default the loss itself."""
        return self

    def check(self, target: Any) -> None:
        """Refuse a target that has an infinite loss; by default none."""

    def reference(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The evaluation that a record keeps; by default `evaluate`."""
        return self.evaluate(network, target, key)

    def estimate(
        self,
        network: Any,
        target: Any,
        key: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> Estimate:
        """The evaluation that a step of learning takes.

        Args:
            network: the student.
            target: the target.
            key: as in `__call__`.
            first: the `attempt` of an earlier estimate, to start with, () int32; or `SKIP` for a
                network that does not learn, whose evaluation may be anything.
        """
        if first is not None:
            network = where_wanted(network, first != SKIP)
        return only_way(network, self.evaluate(network, target, key))

    def steps_are_stable(self, network: Any, target: Any) -> jax.Array:
        """Whether the loss's time steps, if it has any, follow both networks, () bool."""
        return jnp.ones((), bool)
