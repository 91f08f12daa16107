"""Networks of any kind as what is trained of them: real arrays, which solvers and optimisers take.

A `LinearRNN` is trained as it is. Of another network every array of real or complex numbers is
trained, but for those of the fields that its class calls `frozen`; complex ones as their real and
imaginary parts.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from rnn_dynamics.loss import AbstractLoss, Estimate, Evaluation
from rnn_dynamics.model import LinearRNN, NonlinearRNN
from rnn_dynamics.model.arguments import show
from rnn_dynamics.model.linear_rnn import require_rnns, system_of


class Complex(NamedTuple):
    """The parts of a complex array, real and of one shape."""

    real: Any
    imag: Any


def check_network(network: Any) -> None:
    """Refuse what cannot be trained.

    Raises:
        TypeError: if it is no `eqx.Module` with arrays, or these have several dtypes.
        ValueError: if it is a batch of networks.
    """
    if isinstance(network, LinearRNN):
        return require_rnns(network=network)
    if not isinstance(network, eqx.Module) or not jax.tree.leaves(split(network)[0]):
        raise TypeError(
            "Argument `network` must be a LinearRNN or another eqx.Module with arrays to train, "
            f"but is {show(network)}."
        )
    if hasattr(network, "system"):
        system_of("network", network)
    dtypes = sorted({str(x.dtype) for x in jax.tree.leaves(split(network)[0])})
    if len(dtypes) > 1:
        raise TypeError(f"Argument `network` must have one dtype, but has {' and '.join(dtypes)}.")
    return None


def split(network: Any) -> tuple[Any, Any]:
    """What is trained of a network, of its structure, and the rest, which has None for it."""
    if isinstance(network, LinearRNN):
        return network, None
    frozen = getattr(network, "frozen", ())

    def is_trained(path: Any, leaf: Any) -> bool:
        return eqx.is_inexact_array(leaf) and getattr(path[0], "name", "") not in frozen

    arrays, rest = eqx.partition(network, jax.tree_util.tree_map_with_path(is_trained, network))
    return jax.tree.map(
        lambda x: Complex(x.real, x.imag) if jnp.iscomplexobj(x) else x, arrays
    ), rest


def join(trained: Any, rest: Any) -> Any:
    """The network of its parts."""
    return trained if rest is None else eqx.combine(_arrays(trained), rest)


def _arrays(trained: Any) -> Any:
    def whole(x: Any) -> Any:
        return jax.lax.complex(*x) if isinstance(x, Complex) else x

    return jax.tree.map(whole, trained, is_leaf=lambda x: isinstance(x, Complex))


def network_of(loss: AbstractLoss, trained: Any) -> Any:
    """The network that a loss of it gets, where that of `trained` is `loss`."""
    return join(trained, loss.rest) if isinstance(loss, LossOfParts) else trained


def linear_system(network: Any) -> LinearRNN | None:
    """The `LinearRNN` that a network stands for, if it does; that of a nonlinear one's weights."""
    if hasattr(network, "system"):
        return network.system()
    return network.weights if isinstance(network, NonlinearRNN) else None


class LossOfParts(AbstractLoss):
    """A loss of what is trained of a network: the gradient has the structure of `split`.

    Attributes:
        loss: of the network.
        rest: what is not trained of it.
    """

    loss: AbstractLoss
    rest: Any

    @property
    def expected(self) -> AbstractLoss:
        """The expectation of a loss that samples noise."""
        return LossOfParts(self.loss.expected, self.rest)

    def check(self, target: Any) -> None:
        """Refuse a target that has an infinite loss."""
        self.loss.check(target)

    def evaluate(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The loss and its gradient in what is trained."""
        return self._of(self.loss.evaluate, network, target, key)

    def reference(self, network: Any, target: Any, key: jax.Array | None = None) -> Evaluation:
        """The evaluation that a record keeps."""
        return self._of(self.loss.reference, network, target, key)

    def estimate(
        self,
        network: Any,
        target: Any,
        key: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> Estimate:
        """The evaluation that a step of learning takes."""
        return self._of(self.loss.estimate, network, target, key, first)

    def steps_are_stable(self, network: Any, target: Any) -> jax.Array:
        """Whether the loss's time steps follow both networks."""
        return self.loss.steps_are_stable(join(network, self.rest), target)

    def _of(self, evaluate: Callable[..., Any], trained: Any, *arguments: Any) -> Any:
        arrays, pull = jax.vjp(_arrays, trained)
        found = evaluate(join(trained, self.rest), *arguments)
        own = jax.tree.map(
            lambda x, g: None if x is None else g,
            arrays,
            found.gradient,
            is_leaf=lambda x: x is None,
        )
        return found._replace(gradient=pull(own)[0])
