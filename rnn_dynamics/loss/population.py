"""The population loss: the expected squared error on noise, without sampling."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rnn_dynamics.loss.estimate import Estimate, norm, relative
from rnn_dynamics.loss.gramian.doubling import as_matrices, difference
from rnn_dynamics.loss.input import checked_input, fit_channels, in_series, stationary_root
from rnn_dynamics.loss.krylov import dispatch, kernel
from rnn_dynamics.loss.system import SystemLoss
from rnn_dynamics.loss.timing import check_stable
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced
from rnn_dynamics.model.linear_rnn import system_of

# Pairs of an input and a read-out, up to which a kernel for each costs less than doubling at once.
MOST_PAIRS = 8


class PopulationLoss(SystemLoss):
    """Expected squared error on noise, by default white.

        L = ½ ∫₀^T m(t) |k(t) - k*(t)|² dt

    k and k* are the impulse responses of student and target, (p, m) of p read-outs and m inputs,
    and |k|² is the sum of all squares; m(t) = 1, the error at the last time of a sequence of length
    T, or m(t) = 1 - t/T, the error averaged over the sequence. L is the energy of one network, the
    student in parallel with the target of reversed sign, so its gradient is exact: no noise is
    drawn and no time grid is chosen. Student and target may be any `LinearRNN`, or any module with
    a method `.system()` that returns one; the gradient is in the module's own parameters. The
    target is cast to the student's dtype.

    Over an infinite horizon in continuous time the gradient of a `LinearRNN` comes from Krylov
    bases (`loss.krylov`), of as many vectors as a relative error of 1e-8 takes, in float32 4e-6;
    several channels are pairs of an input and a read-out. Where bases do not do, and for other
    networks, coloured input and many channels, it comes from doubling (`loss.gramian`), exact to
    rounding. Near a solution, where what both networks share cancels, rounding makes an
    error of about eps over the slowest rate and the root of the relative loss. On CPUs `evaluate`,
    `value_and_grad`, `gradient_and_error` and records refine such gradients of a `LinearRNN` in
    float64, to 1e-8 at 1e-14 of the target's energy; learning takes them as they are. `evaluate`
    returns estimates of the errors of value and gradient.

    Over an infinite horizon both networks must be stable. An unstable student has an infinite loss
    and a NaN gradient; one that is neither proven stable nor shown to be unstable has a loss of NaN
    and an infinite error. A finite horizon needs no stability; a loss that overflows, or a horizon
    of more than 2²⁰ panels of about a leak time constant, is infinite.

    With a `time_step` dt both networks are simulated by the Euler scheme, h ← h + dt (W h - h + u
    x) with noise of variance 1/dt, and

        L = ½ dt Σ_{n < T/dt} m(n dt) |k_n - k*_n|²,    k_n = vᵀ (I - dt A)ⁿ u,

    which is what sampled training averages to.

    With an `input` the noise that drives both networks has the spectrum S_x of a filter, and L =
    (1/4π) ∫ |K(iω) - K*(iω)|² S_x(ω) dω over an infinite horizon. Over a finite one both networks
    start at rest and the filter in its stationary state.

    Attributes:
        horizon: T in leak time constants, by default infinite.
        weighting: "uniform" or "time_averaged".
        time_step: dt, or None for continuous time.
        input: None for white noise, `rd.ornstein_uhlenbeck(rate)` or `rd.filtered_noise(rnn)`.

    Raises:
        ValueError: if the horizon or the time step is not positive, the horizon not a whole number
            of steps, the weighting unknown or "time_averaged" over an infinite horizon, or the
            input's filter unstable in steps of `time_step`.

    Source: sections 1, 2 and 8 of docs/theory.md.
    """

    input: Any

    def __init__(
        self,
        horizon: ArrayLike = math.inf,
        weighting: str = "uniform",
        time_step: Any = None,
        input: Any = None,
    ) -> None:
        super().__init__(horizon, weighting, time_step)
        self.input = checked_input(input, time_step)

    def assemble(self, network: Any, target: Any) -> LinearRNN:
        """The student in parallel with the target of reversed sign, driven by the input's filter if
        there is one.
        """
        both = difference(system_of("network", network), system_of("target", target))
        return both if self.input is None else in_series(self.input, both)

    def start(self, network: Any, system: LinearRNN) -> Any:
        """Both networks start at rest, and the input's filter in its stationary state."""
        if self.input is None:
            return None
        num_inputs = system_of("network", network).num_inputs
        root = stationary_root(self.input.for_inputs(num_inputs, system.dtype)[0], self.time_step)
        return jnp.zeros((system.num_units, len(root)), root.dtype).at[-len(root) :].set(root)

    def fit(self, network: Any, target: Any) -> None:
        """Refuse networks whose channels do not fit each other, and what `check` refuses.

        Raises:
            TypeError: if one is no network.
            ValueError: if their impulse responses, or the input, have other shapes.
        """
        fit_channels(network, target, self.input)
        self.check(target)

    def check(self, target: LinearRNN) -> None:
        """Refuse a target that has an infinite loss; one that is being traced is passed over.

        Raises:
            ValueError: if the horizon is infinite and an eigenvalue of `target.W` has a real part
                of 1 or more, or grows under the Euler scheme of the time step.
        """
        target = system_of("target", target)
        if not self.is_infinite or is_traced(target.W) or is_traced(self.time_step):
            return
        check_stable("target", target, self.time_step, "an infinite horizon")

    def over_infinite_horizon(
        self, network: Any, target: Any, first: jax.Array, refines: bool
    ) -> Estimate:
        """As `estimate`: of few channels and white noise by what `dispatch` chooses."""
        if self._is_plain(network, target):
            target = system_of("target", target).astype(network.dtype)
            return dispatch.gradient(network, target, first, refines)
        if self.time_step is None and self.input is None and isinstance(network, LinearRNN):
            target = system_of("target", target).astype(network.dtype)
            found = kernel.find(network.dtype, network.num_units, target.num_units)
            pays = network.num_inputs * network.num_outputs <= MOST_PAIRS
            if pays and found is not None and found.loaded is None:
                return _by_pairs(network, target, first, refines)
        return super().over_infinite_horizon(network, target, first, refines)

    def value_over_infinite_horizon(self, network: Any, target: Any) -> jax.Array:
        """The loss, (), for reverse mode in both networks."""
        if not self._is_plain(network, target):
            return super().value_over_infinite_horizon(network, target)
        return dispatch.value(network, system_of("target", target).astype(network.dtype))

    def _is_plain(self, network: Any, target: Any) -> bool:
        """Whether all is continuous, white and of one channel: kernels know nothing else."""
        return (
            self.time_step is None
            and self.input is None
            and isinstance(network, LinearRNN)
            and network.u.ndim == network.v.ndim == 1
            and system_of("target", target).u.ndim == system_of("target", target).v.ndim == 1
        )


def _by_pairs(rnn: LinearRNN, target: LinearRNN, first: jax.Array, refines: bool) -> Estimate:
    """The loss of several channels, which is the sum of those of every pair of an input and a
    read-out, and so are their gradients.
    """
    own, goal = as_matrices(rnn), as_matrices(target)

    def pair(*given: jax.Array) -> Estimate:
        two = LinearRNN(rnn.W, *given[:2]), LinearRNN(target.W, *given[2:])
        return dispatch.gradient(*two, first, refines)

    by_input = jax.vmap(pair, (1, None, 1, None))
    found = jax.vmap(by_input, (None, 1, None, 1))(own.u, own.v, goal.u, goal.v)  # (p, m, …)
    g = found.gradient
    parts = jnp.sum(g.W, (0, 1)), jnp.sum(g.u, 0).T, jnp.sum(g.v, 1).T
    shaped = [x.reshape(y.shape) for x, y in zip(parts, jax.tree.leaves(rnn), strict=True)]
    gradient = jax.tree.unflatten(jax.tree.structure(rnn), shaped)
    infinite = jnp.full((), jnp.inf, rnn.dtype)
    value = jnp.where(jnp.any(jnp.isposinf(found.value)), infinite, jnp.sum(found.value))
    sizes = jax.vmap(jax.vmap(norm))(g)

    def error(each: jax.Array, sizes: jax.Array, size: jax.Array) -> jax.Array:
        total = relative(jnp.sum(each * sizes), size)
        return jnp.where(jnp.any(jnp.isposinf(each)), infinite, total)

    value_error = error(found.value_error, found.value, value)
    gradient_error = error(found.gradient_error, sizes, norm(gradient))
    return Estimate(value, gradient, value_error, gradient_error, jnp.max(found.attempt))
