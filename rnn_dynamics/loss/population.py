"""The population loss: the expected squared error on white noise, without sampling."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rnn_dynamics.loss import columns, doubling
from rnn_dynamics.loss.doubling import difference, norm, student
from rnn_dynamics.loss.energy import energy
from rnn_dynamics.loss.estimate import ANEW, Estimate, Step, only_way, where_wanted
from rnn_dynamics.loss.finite import finite_energy, finite_energy_and_gradient
from rnn_dynamics.loss.timing import check_timing, check_weighting, steps_are_stable
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced
from rnn_dynamics.model.linear_rnn import require_rnns

OTHER_PANEL = 0.7  # relative length of the panels of the second gradient
# Of the distance of two gradients as the error of one: both round. 2 was too small for 1 % of random networks, to extended precision.
SAFETY = 4.0


class PopulationLoss(eqx.Module):
    """Expected squared error on white noise.

        L = ½ ∫₀^T m(t) (k(t) - k*(t))² dt

    k and k* are the impulse responses of student and target; m(t) = 1, the error at the last time of a sequence of length T, or
    m(t) = 1 - t/T, the error averaged over the sequence. L is the energy of one network, the student in parallel with the target of
    reversed sign, so its gradient is exact: no noise is drawn and no time grid is chosen. Any `LinearRNN` can be the target; it is
    cast to the student's dtype.

    Gradients of networks of 24 units and more (on accelerators without a kernel 129) over an infinite horizon in continuous time are found in Krylov bases
    (`loss.projected`), with as many vectors as each network needs for a relative error of 1e-8, in float32 4e-6; other gradients, those of
    targets of more than 8 units among them, and the loss itself when it is called, are exact to rounding, before student and target cancel. In float64
    gradients over an infinite horizon in continuous time that this would leave with an error above 2e-9, in bases 5e-9, are refined, at any loss, to
    rounding or to what bases leave out (`loss.refined`, `loss.refined_bases`, and on CPUs `native/refined.h`). Else, and on TPUs, the error near a solution is about eps over
    the root of the loss, and is reported.

    Over an infinite horizon both networks must be stable. An unstable student has an infinite loss and a NaN gradient: neither is
    ever a plausible wrong number. A finite horizon needs no stability; a loss that overflows, or a horizon of more than 2²⁰ panels of
    about a leak time constant, is infinite.

    With a `time_step` dt both networks are simulated by the Euler scheme, h ← h + dt (W h - h + u x) with noise of variance 1/dt, and

        L = ½ dt Σ_{n < T/dt} m(n dt) (k_n - k*_n)²,    k_n = vᵀ (I - dt A)ⁿ u,

    which is what sampled training averages to.

    Attributes:
        horizon: T in leak time constants, by default infinite.
        weighting: "uniform" or "time_averaged".
        time_step: dt, or None for continuous time.

    Raises:
        ValueError: if the horizon or the time step is not positive, the horizon not a whole number of steps, the weighting unknown,
            or "time_averaged" over an infinite horizon.

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
            check_timing(1.0, None if time_step is None else time_step, whole=False)
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

    @property
    def expected(self) -> "PopulationLoss":
        """The loss itself: nothing is sampled."""
        return self

    def __call__(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> jax.Array:
        """The loss, (). It can be differentiated by `jax.grad` (reverse mode) in both networks, not in the horizon.

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

    def value_and_grad(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN]:
        """The loss, (), and its exact gradient in the student, a `LinearRNN`.

        In Krylov bases an instability is found if input or read-out excite it; `gradient_and_error` and every record of a training
        prove stability.

        Raises:
            ValueError: if the horizon is infinite and the target unstable.
        """
        return self.estimate(rnn, target)[:2]

    def check(self, target: LinearRNN) -> None:
        """Refuse a target that has an infinite loss; one that is being traced is passed over.

        Raises:
            ValueError: if the horizon is infinite and an eigenvalue of `target.W` has a real part of 1 or more, or grows under the
                Euler scheme of the time step.
        """
        require_rnns(target=target)
        if not self.is_infinite or is_traced(target.W) or is_traced(self.time_step):
            return
        eigenvalues = np.linalg.eigvals(np.asarray(target.W))
        largest = float(np.max(eigenvalues.real))
        if largest >= 1:
            raise ValueError(
                "Argument `target` must be stable for an infinite horizon (every eigenvalue of W with a real part below "
                f"1), but has one at {largest:.6g}."
            )
        if self.time_step is not None:
            factor = float(np.max(np.abs(1 + float(self.time_step) * (eigenvalues - 1))))
            if factor >= 1:
                raise ValueError(
                    "Argument `target` must be stable in steps of `time_step` for an infinite horizon, but grows by a factor "
                    f"of {factor:.6g} per step."
                )

    def gradient_and_error(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN, jax.Array]:
        """The loss, its gradient, and an estimate of the gradient's relative error, ().

        Two gradients are compared. From panels of different length they share no quadrature node and round differently (over a finite
        horizon the second is that of the transposed network too). Where gradients are found in Krylov bases the other one is by doubling, and
        it is returned. The error is four times the norm of their difference, relative to the norm of the gradient.
        """
        require_rnns(rnn=rnn)
        self.check(target)
        return _gradient_and_error(self, rnn, target)

    def estimate(
        self,
        rnn: LinearRNN,
        target: LinearRNN,
        key: jax.Array | None = None,
        wanted: jax.Array | None = None,
        attempt: jax.Array | None = None,
    ) -> Estimate:
        """As `value_and_grad`, with what is known of the gradient: what learning uses.

        What is not `wanted`, () bool, may be anything, and no batch waits for it. A gradient that is like an earlier one is found at once
        where that one was: `attempt`, () int32, of its estimate, or `ANEW`.
        """
        require_rnns(rnn=rnn)
        self.check(target)
        wanted = jnp.ones((), bool) if wanted is None else wanted
        attempt = jnp.int32(ANEW) if attempt is None else attempt
        return _estimate(self, rnn, target, jnp.zeros((), bool), wanted, attempt)

    def steps(self, rnn: LinearRNN, target: LinearRNN) -> bool:
        """Whether `step` is there for networks of this shape."""
        return self.by_columns(rnn, target) and columns.steps(rnn, target)

    def step(
        self,
        rnn: LinearRNN,
        target: LinearRNN,
        rates: tuple[jax.Array, ...],
        wanted: jax.Array,
        attempt: jax.Array,
    ) -> Step:
        """A step of gradient descent by `estimate` at once, with rates of W, u and v, each (); where it is there it is cheaper."""
        require_rnns(rnn=rnn)
        self.check(target)
        return columns.step(rnn, target.astype(rnn.dtype), rates, wanted, attempt)

    def reference(
        self, rnn: LinearRNN, target: LinearRNN, key: jax.Array | None = None
    ) -> tuple[jax.Array, LinearRNN, jax.Array]:
        """The loss and its gradient by the way that proves stability, and its error, (): what is recorded."""
        require_rnns(rnn=rnn)
        self.check(target)
        if self.by_columns(rnn, target):
            return _by_doubling(rnn, target)[:3]
        return _gradient_and_error(self, rnn, target)

    def by_columns(self, rnn: LinearRNN, target: LinearRNN) -> bool:
        """Whether gradients of networks of this shape are found in Krylov bases, and by doubling only where these do not do."""
        continuous = self.is_infinite and self.time_step is None
        return continuous and bool(columns.sizes(rnn, target))

    def steps_are_stable(self, rnn: LinearRNN, target: LinearRNN) -> jax.Array:
        """Whether the Euler scheme of the time step follows both networks, () bool: it may grow no faster than they do."""
        return steps_are_stable(difference(rnn, target).W, self.time_step)


def transposed(rnn: LinearRNN) -> LinearRNN:
    """The network (Wᵀ, v, u), which has the same impulse response."""
    return eqx.tree_at(lambda r: (r.W, r.u, r.v), rnn, (rnn.W.T, rnn.v, rnn.u))


@jax.jit
def _value(loss: PopulationLoss, rnn: LinearRNN, target: LinearRNN) -> jax.Array:
    both = difference(rnn, target)
    if loss.is_infinite:
        return energy(both, loss.time_step)
    averaged = loss.weighting == "time_averaged"
    return finite_energy(both, jnp.asarray(loss._horizon, rnn.dtype), averaged, loss.time_step)


@jax.jit
def _estimate(
    loss: PopulationLoss,
    rnn: LinearRNN,
    target: LinearRNN,
    other: jax.Array,
    wanted: jax.Array,
    attempt: jax.Array,
) -> Estimate:
    """The loss and its gradient; by other panels if `other`, a bool (): those by columns have none."""
    dt = loss.time_step
    if loss.is_infinite:
        target = target.astype(rnn.dtype)
        if loss.by_columns(rnn, target):
            return columns.gradient(rnn, target, wanted, attempt)
        rnn, panel_scale = where_wanted(rnn, wanted), jnp.where(other, OTHER_PANEL, 1.0)
        return only_way(rnn, *doubling.gradient(rnn, target, panel_scale, dt))
    rnn = where_wanted(rnn, wanted)
    both = difference(rnn, target)
    one = jax.tree.map(lambda a, b: jnp.where(other, a, b), transposed(both), both)
    horizon, averaged = jnp.asarray(loss._horizon, rnn.dtype), loss.weighting != "uniform"
    value, found = finite_energy_and_gradient(one, horizon, averaged, dt, other)
    gradient = jax.tree.map(lambda a, b: jnp.where(other, a, b), transposed(found), found)
    return only_way(rnn, value, student(gradient, rnn), jnp.zeros_like(value))


@jax.jit
def _gradient_and_error(
    loss: PopulationLoss, rnn: LinearRNN, target: LinearRNN
) -> tuple[jax.Array, LinearRNN, jax.Array]:
    no, yes, anew = jnp.zeros((), bool), jnp.ones((), bool), jnp.int32(ANEW)
    if loss.by_columns(rnn, target):
        ways = _estimate(loss, rnn, target, no, yes, anew)[:3], _by_doubling(rnn, target)[:3]
        found = jax.tree.map(lambda *xs: jnp.stack(xs), *ways)
    else:
        found = jax.lax.map(
            lambda other: _estimate(loss, rnn, target, other, yes, anew)[:3], jnp.stack([no, yes])
        )
    values, gradients, _ = found
    # doubling is the last, which alone says that a network is unstable
    value, gradient = jax.tree.map(lambda x: x[1], (values, gradients))
    gap = jax.tree.map(lambda x: x[1] - x[0], gradients)
    return value, gradient, SAFETY * norm(gap) / norm(gradient)


def _by_doubling(rnn: LinearRNN, target: LinearRNN) -> Estimate:
    return only_way(rnn, *doubling.gradient(rnn, target, jnp.ones((), rnn.dtype)))
