"""A recurrent network with nonlinear units, simulated in Euler steps."""

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.model import simulation
from rnn_dynamics.model.arguments import numbers, real_scalar, require, show
from rnn_dynamics.model.linear_rnn import LinearRNN, Weights

# where activations are tried, at last at 0
TRIAL = np.array([[-1.7, -0.6, -0.1, -0.02], [0.2, 0.8, 2.3, 0.0]])


class NonlinearRNN(Weights):
    """A recurrent network with leak 1 whose units have a nonlinear activation φ.

        h'(t) = -h + W φ(h) + u x(t),    y = v · φ(h)

    With a `gain` g, φ(g h)/g takes the place of φ(h). It moves the network from a linear one, which
    g = 0 is exactly, to a saturated one. The gain is an array, so that one compiled program serves
    all gains, and it is never trained: its gradient is 0.

    Attributes:
        W: recurrent weights, (N, N).
        u: input weights, (N,), or (N, m) for m inputs.
        v: read-out weights, (N,), or (N, p) for p outputs.
        gain: g, (), positive or 0; None is 1.
        activation: φ, an elementwise function that JAX differentiates. It is part of the compiled
            program: pass the same function, never a new lambda, where programs are to be reused.

    Raises:
        TypeError: if an array is complex or integer, if arrays differ in dtype, or if the
            activation is no function that JAX can differentiate.
        ValueError: if a shape is wrong, a number is not finite, the gain is negative, or the
            activation is not elementwise, is a step function, or is not 0 at 0 beside a gain.

    Example:
        >>> rnn = rd.random_rnn(jax.random.key(0), 64, 0.5)
        >>> network = rd.NonlinearRNN(rnn.W, rnn.u, rnn.v, jnp.tanh, gain=0.5)
        >>> loss = rd.SampledLoss(horizon=25.0, time_step=0.1, batch_size=32)
        >>> rd.gradient_descent(
        ...     network, target, loss=loss, learning_rate=0.05, num_steps=500, key=jax.random.key(1)
        ... )

        What else is recorded, the spectrum of the linearised network and the standard error of the
        loss on held-out noise:

        >>> x = loss.noise(jax.random.key(2))
        >>> observe = {
        ...     "linearised": lambda network, target: network.linearised(x, 0.1).eigenvalues(),
        ...     "error": lambda network, target: loss.reference(network, target).value_error,
        ... }

    Source: section 10 of docs/theory.md.
    """

    gain: jax.Array | None
    activation: Callable[[jax.Array], jax.Array] = eqx.field(static=True)

    frozen: ClassVar[tuple[str, ...]] = ("gain",)

    def __init__(
        self,
        W: Any,
        u: Any,
        v: Any,
        activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
        gain: ArrayLike | None = None,
    ) -> None:
        linear = LinearRNN(W, u, v)
        self.W, self.u, self.v = linear.W, linear.u, linear.v
        if not (callable(activation) and isinstance(activation, Hashable)):
            raise TypeError(f"Argument `activation` must be a function, but is {show(activation)}.")
        at_zero = _try(activation, self.dtype)
        if gain is not None:
            require(at_zero == 0, "activation", "be 0 at 0 beside a `gain`", f"{at_zero:.6g}")
            gain = real_scalar("gain", gain, minimum=0).astype(self.dtype)
        self.gain, self.activation = gain, activation

    @property
    def weights(self) -> LinearRNN:
        """The linear network with these W, u and v."""
        return LinearRNN(self.W, self.u, self.v)

    def rates(self, h: jax.Array) -> jax.Array:
        """φ(h), or φ(g h)/g with a gain, of states of any shape."""
        if self.gain is None:
            return self.activation(h)
        gain = jax.lax.stop_gradient(self.gain)
        is_linear = gain < math.sqrt(jnp.finfo(h.dtype).tiny)
        some = jnp.where(is_linear, jnp.ones_like(gain), gain)
        slope = jax.grad(self.activation)(jnp.zeros((), h.dtype))
        return jnp.where(is_linear, slope * h, self.activation(some * h) / some)

    def simulate(self, x: ArrayLike, time_step: ArrayLike) -> jax.Array:
        """The outputs after every Euler step, from rest.

            h ← h + dt (W φ(h) - h + u x_n),    y_n = v · φ(h)

        It can be differentiated in reverse mode, in the network and the inputs. That keeps one
        state in √T and computes the others once more.

        Args:
            x: inputs, (..., T), or (..., T, m) where `u` is (N, m).
            time_step: dt in leak time constants.

        Returns:
            The outputs, (..., T), or (..., T, p) where `v` is (N, p).

        Raises:
            TypeError: if the inputs are not real numbers.
            ValueError: if they have the wrong shape or the time step is not positive.
        """
        y = simulation.outputs(*self._arguments(x, time_step))
        lead = np.shape(x)[: np.ndim(x) - self.u.ndim]
        return jnp.moveaxis(y, 0, 1).reshape(*lead, len(y), *self.v.shape[1:])

    def linearised(self, x: ArrayLike, time_step: ArrayLike) -> LinearRNN:
        """The linear network (W D, u, D v), D = diag⟨φ'(h)⟩, averaged over the activity that inputs
        drive.

        Its `eigenvalues()` beside those of W say what saturation does to the modes.

        Args:
            x: inputs as in `simulate`; the average is over all of them and over all times.
            time_step: dt in leak time constants.

        Raises:
            TypeError, ValueError: as `simulate`.
        """
        mean = simulation.mean_slopes(*self._arguments(x, time_step))
        D = mean.reshape(-1, *(1,) * (self.v.ndim - 1))
        return LinearRNN(self.W * mean[None, :], self.u, D * self.v)

    def _arguments(self, x: Any, time_step: Any) -> tuple["NonlinearRNN", jax.Array, jax.Array]:
        """The network with u (N, m) and v (N, p), inputs (T, B, m) and the time step."""
        dt = real_scalar("time_step", time_step, positive=True).astype(self.dtype)
        x, channels = jnp.asarray(numbers("x", x), self.dtype), self.u.shape[1:]
        fits = x.ndim >= self.u.ndim and x.shape[x.ndim - len(channels) :] == channels
        shape = f"(..., T, {channels[0]})" if channels else "(..., T)"
        require(fits, "x", f"have shape {shape}", f"of shape {x.shape}")
        columns = tuple(weights.reshape(self.num_units, -1) for weights in (self.u, self.v))
        x = x.reshape(-1, x.shape[x.ndim - self.u.ndim], columns[0].shape[1])
        return eqx.tree_at(lambda r: (r.u, r.v), self, columns), jnp.moveaxis(x, 1, 0), dt


@functools.lru_cache(maxsize=256)
def _try(activation: Any, dtype: Any) -> float:
    """Refuse what is not an elementwise differentiable function, by a small trial; φ(0).

    Raises:
        TypeError, ValueError: as `NonlinearRNN`.
    """
    name = getattr(activation, "__name__", show(activation))

    def trial(points: jax.Array) -> Any:
        alone = [jnp.ravel(activation(x))[0] for x in points.reshape(-1, 1, 1)]
        return activation(points), jnp.stack(alone), jax.jacrev(activation)(points)

    points = TRIAL.astype(dtype)
    try:
        # compiled, it runs with numbers inside of any transformation too
        values, alone, slopes = jax.jit(trial).lower(points).compile()(points)
    except Exception as error:
        raise TypeError(
            "Argument `activation` must be an elementwise function that JAX can differentiate, "
            f"but {name} raised {type(error).__name__}."
        ) from error
    keeps = values.shape == points.shape and values.dtype == dtype
    require(keeps, "activation", "keep shape and dtype", name)
    values, alone, slopes = (
        np.asarray(x).reshape(points.size, -1) for x in (values, alone, slopes)
    )
    own = np.diag(slopes)
    finite = np.all(np.isfinite(values)) and np.all(np.isfinite(own))
    require(bool(finite), "activation", "be finite with its derivative everywhere", name)
    elementwise = np.all(slopes == np.diag(own)) and np.allclose(values, alone, 1e-4, 1e-6)
    require(bool(elementwise), "activation", "be elementwise", name)
    require(bool(np.any(own != 0)), "activation", "have a derivative that is not 0", name)
    return float(values[-1, 0])
