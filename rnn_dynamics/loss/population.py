"""The population loss: the expected squared error on white noise, without sampling."""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss import dispatch, doubling
from rnn_dynamics.loss.base import AbstractLoss, transposed
from rnn_dynamics.loss.doubling import difference, student
from rnn_dynamics.loss.energy import balanced, energy
from rnn_dynamics.loss.estimate import (
    ANEW,
    DENSE,
    SKIP,
    Estimate,
    Evaluation,
    norm,
    only_way,
    relative,
    where_wanted,
)
from rnn_dynamics.loss.finite import finite_energy, finite_energy_and_gradient
from rnn_dynamics.loss.timing import (
    check_stable_target,
    check_timing,
    check_weighting,
    steps_are_stable,
)
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced
from rnn_dynamics.model.balancing import in_units
from rnn_dynamics.model.linear_rnn import require_rnns

# Of the distance of two gradients as the error of one: both round. 2 was too small for 1 % of
# random networks, to extended precision.
SAFETY = 4.0


class PopulationLoss(AbstractLoss):
    """Expected squared error on white noise.

        L = ½ ∫₀^T m(t) (k(t) - k*(t))² dt

    k and k* are the impulse responses of student and target; m(t) = 1, the error at the last time
    of a sequence of length T, or m(t) = 1 - t/T, the error averaged over the sequence. L is the
    energy of one network, the student in parallel with the target of reversed sign, so its gradient
    is exact: no noise is drawn and no time grid is chosen. Any `LinearRNN` can be the target; it is
    cast to the student's dtype.

    Over an infinite horizon in continuous time the gradient comes from Krylov bases
    (`loss.projected`), of as many vectors as a relative error of 1e-8 takes, in float32 4e-6, and
    where these do not do from doubling (`loss.doubling`), exact to rounding. Near a solution, where
    what both networks share cancels, rounding makes an error of about eps over the slowest rate and
    the root of the relative loss. On CPUs `evaluate`, `value_and_grad`, `gradient_and_error` and
    records refine such gradients in float64, to 1e-8 at 1e-14 of the target's energy; learning
    takes them as they are. `evaluate` returns estimates of the errors of value and gradient.

    Over an infinite horizon both networks must be stable. An unstable student has an infinite loss
    and a NaN gradient; one that is neither proven stable nor shown to be unstable has a loss of NaN
    and an infinite error. A finite horizon needs no stability; a loss that overflows, or a horizon
    of more than 2²⁰ panels of about a leak time constant, is infinite.

    With a `time_step` dt both networks are simulated by the Euler scheme, h ← h + dt (W h - h + u
    x) with noise of variance 1/dt, and

        L = ½ dt Σ_{n < T/dt} m(n dt) (k_n - k*_n)²,    k_n = vᵀ (I - dt A)ⁿ u,

    which is what sampled training averages to.

    Attributes:
        horizon: T in leak time constants, by default infinite.
        weighting: "uniform" or "time_averaged".
        time_step: dt, or None for continuous time.

    Raises:
        ValueError: if the horizon or the time step is not positive, the horizon not a whole number
            of steps, the weighting unknown, or "time_averaged" over an infinite horizon.

    Source: sections 1 and 2 of the theory note.
    """

    _horizon: Any  # None if infinite: the two are different programs
    weighting: str = eqx.field(static=True)
    time_step: Any

    def __init__(
        self, horizon: ArrayLike = math.inf, weighting: str = "uniform", time_step: Any = None
    ) -> None:
        infinite = isinstance(horizon, int | float | np.number) and horizon == math.inf
        self._horizon = None if infinite else check_timing(horizon, time_step)
        if infinite:
            check_timing(1.0, time_step, whole=False)
        self.weighting, self.time_step = check_weighting(weighting), time_step
        if infinite and weighting != "uniform":
            raise ValueError(
                "Argument `weighting` must be 'uniform' for an infinite horizon, but is "
                f"{weighting!r}."
            )

    @property
    def horizon(self) -> Any:
        """T in leak time constants."""
        return math.inf if self._horizon is None else self._horizon

    @property
    def is_infinite(self) -> bool:
        """Whether the horizon is infinite."""
        return self._horizon is None

    def __call__(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> jax.Array:
        """The loss, (). It can be differentiated by `jax.grad` (reverse mode) in both networks, not
        in the horizon.

        Args:
            rnn: the student, N units.
            target: the target.
            key: not used; losses that sample noise need it.

        Raises:
            ValueError: if the horizon is infinite and the target unstable.
        """
        require_rnns(rnn=rnn)
        self.check(target)
        return _value(self, rnn, target)

    def evaluate(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> Evaluation:
        """The loss, its exact gradient in the student, and estimates of the errors of both.

        A result is right within four times its estimate or 1e-8, or its error is infinite: then the
        network is neither proven to be stable nor shown to be unstable. In Krylov bases an
        instability is found if input or read-out excite it; `gradient_and_error` and every record
        of a training prove stability.

        Raises:
            ValueError: if the horizon is infinite and the target unstable.
        """
        require_rnns(rnn=rnn)
        self.check(target)
        if self.is_infinite:
            return _estimate(self, rnn, target, jnp.int32(ANEW), True).evaluation
        return _compared(self, rnn, target)

    def value_and_grad(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN]:
        """The loss, (), and its exact gradient in the student, a `LinearRNN`, of `evaluate`.

        Raises:
            ValueError: if the horizon is infinite and the target unstable.
        """
        require_rnns(rnn=rnn)
        self.check(target)
        return _estimate(self, rnn, target, jnp.int32(ANEW), True)[:2]

    def gradient_and_error(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN, jax.Array]:
        """The loss, its gradient, and an estimate of the gradient's relative error, (), by the way
        that proves stability.
        """
        return super().gradient_and_error(rnn, target, key)

    def check(self, target: LinearRNN) -> None:
        """Refuse a target that has an infinite loss; one that is being traced is passed over.

        Raises:
            ValueError: if the horizon is infinite and an eigenvalue of `target.W` has a real part
                of 1 or more, or grows under the Euler scheme of the time step.
        """
        require_rnns(target=target)
        if not self.is_infinite or is_traced(target.W) or is_traced(self.time_step):
            return
        check_stable_target(target, self.time_step)

    def estimate(
        self,
        rnn: LinearRNN,
        target: LinearRNN,
        key: jax.Array | None = None,
        first: jax.Array | None = None,
    ) -> Estimate:
        """As `value_and_grad`, with the error that rounding left: what learning uses.

        No batch waits for what is to be skipped. A gradient that is like an earlier one is found at
        once where that one was, by the `attempt` of its estimate.
        """
        require_rnns(rnn=rnn)
        self.check(target)
        return _estimate(self, rnn, target, jnp.int32(ANEW) if first is None else first, False)

    def reference(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> Evaluation:
        """The evaluation by the way that proves stability, of which records are."""
        require_rnns(rnn=rnn)
        self.check(target)
        if not self.is_infinite:
            return _compared(self, rnn, target)
        return _estimate(self, rnn, target, jnp.int32(DENSE), True).evaluation

    def steps_are_stable(self, rnn: LinearRNN, target: LinearRNN) -> jax.Array:
        """Whether the Euler scheme of the time step follows both networks, () bool: it may grow no
        faster than they do.
        """
        return steps_are_stable(difference(rnn, target).W, self.time_step)


@jax.jit
def _value(loss: PopulationLoss, rnn: LinearRNN, target: LinearRNN) -> jax.Array:
    if loss.is_infinite and loss.time_step is None:
        return dispatch.value(rnn, target.astype(rnn.dtype))
    both = difference(rnn, target)
    if loss.is_infinite:
        return energy(both, loss.time_step)
    both, _ = balanced(both)
    averaged = loss.weighting == "time_averaged"
    return finite_energy(both, jnp.asarray(loss._horizon, rnn.dtype), averaged, loss.time_step)


@partial(jax.jit, static_argnames="refines")
def _estimate(
    loss: PopulationLoss, rnn: LinearRNN, target: LinearRNN, first: jax.Array, refines: bool
) -> Estimate:
    """The loss and its gradient; of a finite horizon their errors, which take another way to be
    known, are 0.
    """
    wanted = first != SKIP
    if not loss.is_infinite:
        value, gradient = _finite(loss, where_wanted(rnn, wanted), target, jnp.zeros((), bool))
        zero = jnp.zeros_like(value)
        return only_way(rnn, Evaluation(value, gradient, zero, zero))
    target = target.astype(rnn.dtype)
    if loss.time_step is None:
        return dispatch.gradient(rnn, target, first, refines)
    rnn = where_wanted(rnn, wanted)
    return only_way(rnn, doubling.gradient(rnn, target, loss.time_step))


@jax.jit
def _compared(loss: PopulationLoss, rnn: LinearRNN, target: LinearRNN) -> Evaluation:
    """Loss and gradient over a finite horizon, and how far those of the transposed network in other
    panels are.
    """
    values, gradients = jax.lax.map(
        lambda other: _finite(loss, rnn, target, other), jnp.arange(2) == 1
    )
    value, gradient = jax.tree.map(lambda x: x[0], (values, gradients))
    gaps = jax.tree.map(lambda x: x[1] - x[0], (values, gradients))
    errors = (
        SAFETY * relative(norm(gap), norm(x))
        for gap, x in zip(gaps, (value, gradient), strict=True)
    )
    return only_way(rnn, Evaluation(value, gradient, *errors)).evaluation


def _finite(
    loss: PopulationLoss, rnn: LinearRNN, target: LinearRNN, other: jax.Array
) -> tuple[jax.Array, LinearRNN]:
    """Loss and gradient over a finite horizon; of the transposed network and in shorter panels if
    `other`, () bool.
    """
    both, d = balanced(difference(rnn, target))
    one = jax.tree.map(lambda a, b: jnp.where(other, a, b), transposed(both), both)
    horizon, averaged = jnp.asarray(loss._horizon, rnn.dtype), loss.weighting != "uniform"
    value, found = finite_energy_and_gradient(one, horizon, averaged, loss.time_step, other)
    W, u, v = (
        jnp.where(other, a, b)
        for a, b in zip(*map(jax.tree.leaves, (transposed(found), found)), strict=True)
    )
    return value, student(LinearRNN(in_units(W, d), d * u, v / d), rnn)
