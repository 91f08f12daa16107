"""A recurrent network with nonlinear units, simulated in Euler steps."""

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.model.arguments import numbers, real_array, real_scalar, require, show
from rnn_dynamics.model.linear_rnn import LinearRNN

TRIAL = np.array([[-1.7, -0.6, -0.1], [0.2, 0.8, 2.3]])  # where activations are tried


class NonlinearRNN(eqx.Module):
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

    Source: section 10 of the theory note.
    """

    W: jax.Array
    u: jax.Array
    v: jax.Array
    gain: jax.Array | None
    activation: Callable[[jax.Array], jax.Array] = eqx.field(static=True)

    def __init__(
        self,
        W: Any,
        u: Any,
        v: Any,
        activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
        gain: ArrayLike | None = None,
    ) -> None:
        W = real_array("W", W, ("N", "N"))
        require(W.shape[0] == W.shape[1] > 0, "W", "be square", f"of shape {W.shape}")
        many = ("channels",)
        self.W, N = W, W.shape[0]
        self.u = real_array("u", u, (N, *many[: np.ndim(u) - 1]))
        self.v = real_array("v", v, (N, *many[: np.ndim(v) - 1]))
        if not self.W.dtype == self.u.dtype == self.v.dtype:
            raise TypeError(
                "Arguments `W`, `u` and `v` must have one dtype, but have "
                f"{self.W.dtype}, {self.u.dtype} and {self.v.dtype}."
            )
        at_zero = _try(activation, self.dtype)
        if gain is not None:
            require(at_zero == 0, "activation", "be 0 at 0 beside a `gain`", f"{at_zero:.6g}")
            gain = real_scalar("gain", gain, minimum=0).astype(self.dtype)
        self.gain, self.activation = gain, activation

    @property
    def num_units(self) -> int:
        """The number of units N."""
        return int(self.W.shape[-1])

    @property
    def dtype(self) -> np.dtype:
        """The dtype of all parameters."""
        return self.W.dtype

    def astype(self, dtype: Any) -> "NonlinearRNN":
        """The same network with its parameters in another floating-point dtype."""
        return jax.tree.map(lambda x: x.astype(dtype), self)

    def eigenvalues(self) -> jax.Array:
        """The eigenvalues of `W`, (N,) complex, in no particular order, by LAPACK."""
        return jnp.linalg.eigvals(self.W)

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

        It can be differentiated in both modes. In reverse mode it keeps one state in √T, and
        computes the others once more.

        Args:
            x: inputs, (..., T), or (..., T, m) where `u` is (N, m).
            time_step: dt in leak time constants.

        Returns:
            The outputs, (..., T), or (..., T, p) where `v` is (N, p).

        Raises:
            TypeError: if the inputs are not real numbers.
            ValueError: if they have the wrong shape or the time step is not positive.
        """
        dt = real_scalar("time_step", time_step, positive=True).astype(self.dtype)
        return _outputs(self, self._checked(x), dt)

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
        dt = real_scalar("time_step", time_step, positive=True).astype(self.dtype)
        return _linearised(self, self._checked(x), dt)

    def _checked(self, x: Any) -> jax.Array:
        x = jnp.asarray(numbers("x", x), self.dtype)
        channels = self.u.shape[1:]
        fits = x.ndim > len(channels) and x.shape[x.ndim - len(channels) :] == channels
        shape = f"(..., T, {channels[0]})" if channels else "(..., T)"
        require(fits, "x", f"have shape {shape}", f"of shape {x.shape}")
        return x


@jax.jit
def _outputs(rnn: NonlinearRNN, x: jax.Array, dt: jax.Array) -> jax.Array:
    num, channels = x.shape[x.ndim - rnn.u.ndim], rnn.v.shape[1:]
    lead = x.shape[: x.ndim - rnn.u.ndim]
    y = _simulate(*_in_columns(rnn, x), dt)
    return jnp.moveaxis(y, 0, 1).reshape(*lead, num, *channels)


@jax.jit
def _linearised(rnn: NonlinearRNN, x: jax.Array, dt: jax.Array) -> LinearRNN:
    many, x = _in_columns(rnn, x)

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h, _ = _advance(many, dt, h, x)
        return h, jnp.mean(_with_slopes(rnn, h)[1], axis=0)

    with jax.default_matmul_precision("highest"):
        mean = jnp.mean(jax.lax.scan(step, _at_rest(many, x), x)[1], axis=0)
    D = mean.reshape(-1, *(1,) * (rnn.v.ndim - 1))
    return LinearRNN(rnn.W * mean[None, :], rnn.u, D * rnn.v)


def _in_columns(rnn: NonlinearRNN, x: jax.Array) -> tuple[NonlinearRNN, jax.Array]:
    """The network with u (N, m) and v (N, p), and its inputs (T, B, m), B trials of any axes."""
    N, num = rnn.num_units, x.shape[x.ndim - rnn.u.ndim]
    columns = tuple(weights.reshape(N, -1) for weights in (rnn.u, rnn.v))
    many = eqx.tree_at(lambda r: (r.u, r.v), rnn, columns)
    return many, jnp.moveaxis(x.reshape(-1, num, columns[0].shape[1]), 1, 0)


def _at_rest(rnn: NonlinearRNN, x: jax.Array) -> jax.Array:
    return jnp.zeros((x.shape[1], rnn.num_units), x.dtype)


def _advance(
    rnn: NonlinearRNN, dt: jax.Array, h: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The states (B, N) after one Euler step, and the rates before it."""
    f = rnn.rates(h)
    return (1 - dt) * h + dt * (f @ rnn.W.T + x @ rnn.u.T), f


def _with_slopes(rnn: NonlinearRNN, h: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rates and their derivatives."""
    return jax.jvp(rnn.rates, (h,), (jnp.ones_like(h),))


def _segments(x: jax.Array, num: int) -> jax.Array:
    """A sequence (T, ...) as (K, S, ...) with zeros after it, at least `num` of all together: K
    checkpoints and three arrays of S states are least memory at S = √(T/3).
    """
    size = max(1, round(math.sqrt(num / 3)))
    count = -(-num // size)
    more = jnp.zeros((count * size - len(x), *x.shape[1:]), x.dtype)
    return jnp.concatenate([x, more]).reshape(count, size, *x.shape[1:])


@jax.custom_vjp
def _simulate(rnn: NonlinearRNN, x: jax.Array, dt: jax.Array) -> jax.Array:
    return _forward(rnn, x, dt)[0]


def _forward(rnn: NonlinearRNN, x: jax.Array, dt: jax.Array) -> Any:
    """The outputs (T, B, p), and what the gradient needs: states of one step in √T."""

    def step(h: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        h, f = _advance(rnn, dt, h, x)
        return h, f @ rnn.v

    def segment(h: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        after, y = jax.lax.scan(step, h, x)
        return after, (h, y)

    with jax.default_matmul_precision("highest"):
        _, (starts, y) = jax.lax.scan(segment, _at_rest(rnn, x), _segments(x, len(x) + 1))
    y = y.reshape(-1, *y.shape[2:])[1 : len(x) + 1]  # the first is at rest
    return y, (rnn, x, dt, starts)


def _backward(kept: Any, cotangent: jax.Array) -> Any:
    """Segments from last to first, each computed once more; products of a whole segment at once."""
    rnn, x, dt, starts = kept

    def once_more(h: jax.Array, x: jax.Array) -> tuple[jax.Array, Any]:
        return _advance(rnn, dt, h, x)[0], _with_slopes(rnn, h)

    def back(later: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        slope, by_output = at
        now = (1 - dt) * later + slope * (dt * (later @ rnn.W) + by_output @ rnn.v.T)
        return now, later

    def segment(carry: Any, at: Any) -> tuple[Any, jax.Array]:
        later, gradient = carry
        start, x, by_output = at
        _, (f, slopes) = jax.lax.scan(once_more, start, x)
        later, all_later = jax.lax.scan(back, later, (slopes, by_output), reverse=True)
        pairs = (all_later, f), (all_later, x), (f, by_output)
        parts = (jnp.einsum("tbi,tbj->ij", *pair) for pair in pairs)
        gradient = tuple(g + part for g, part in zip(gradient, parts, strict=True))
        return (later, gradient), dt * (all_later @ rnn.u)

    start = _at_rest(rnn, x), jax.tree.map(jnp.zeros_like, (rnn.W, rnn.u, rnn.v))
    by_output = jnp.concatenate([jnp.zeros_like(cotangent[:1]), cotangent])
    parts = (_segments(each, len(x) + 1) for each in (x, by_output))
    with jax.default_matmul_precision("highest"):
        (_, (W, u, v)), by_input = jax.lax.scan(segment, start, (starts, *parts), reverse=True)
    zeros = jax.tree.map(jnp.zeros_like, rnn)
    gradient = eqx.tree_at(lambda r: (r.W, r.u, r.v), zeros, (dt * W, dt * u, v))
    by_input = by_input.reshape(-1, *by_input.shape[2:])[: len(x)]
    return gradient, by_input, jnp.zeros_like(dt)


_simulate.defvjp(_forward, _backward)


@functools.lru_cache(maxsize=256)
def _try(activation: Any, dtype: Any) -> float:
    """Refuse what is not an elementwise differentiable function, by a small trial; φ(0).

    Raises:
        TypeError, ValueError: as `NonlinearRNN`.
    """
    if not callable(activation):
        raise TypeError(f"Argument `activation` must be a function, but is {show(activation)}.")
    name = getattr(activation, "__name__", show(activation))
    points = jnp.asarray(TRIAL, dtype)
    with jax.ensure_compile_time_eval():
        try:
            values = activation(points)
            alone = [float(activation(point)) for point in points.ravel()]
            slopes = jax.jacrev(activation)(points).reshape(points.size, -1)
            at_zero = float(activation(jnp.zeros((), dtype)))
        except Exception as error:
            raise TypeError(
                "Argument `activation` must be an elementwise function that JAX can differentiate, "
                f"but {name} raised {type(error).__name__}."
            ) from error
        require(
            values.shape == points.shape and values.dtype == dtype,
            "activation",
            "keep shape and dtype",
            f"{name}, which makes {values.dtype}{values.shape} of {dtype}{points.shape}",
        )
        own = np.diag(np.asarray(slopes))
        finite = np.all(np.isfinite([*alone, *own, at_zero]))
        require(bool(finite), "activation", "be finite with its derivative everywhere", name)
        others = np.max(np.abs(np.asarray(slopes) - np.diag(own)))
        close = np.allclose(np.ravel(values), alone, rtol=1e-4, atol=1e-6)
        require(bool(others == 0 and close), "activation", "be elementwise", name)
        require(bool(np.any(own != 0)), "activation", "have a derivative that is not 0", name)
    return at_zero
