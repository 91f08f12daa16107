"""Steps of stabilised explicit methods."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from rnn_dynamics.ode import spectrum as spectra
from rnn_dynamics.ode.batch import any_member
from rnn_dynamics.ode.gegenbauer import AtStage, StabilisedMethod
from rnn_dynamics.ode.solver import AbstractSolver, Context, Field, Step
from rnn_dynamics.ode.spectrum import Spectrum


class Stage(NamedTuple):
    """The argument of the next stage less y, and that of the one before; and the last f_j. All are
    (N,).
    """

    moved: Array
    before: Array
    slope: Array


class Sums(NamedTuple):
    """The sums so far of b_j f_j and of d_j f_j, each (N,)."""

    gain: Array
    error: Array


def largest_step(method: StabilisedMethod, spectrum: Spectrum) -> Array:
    """Step that takes the largest degree."""
    radius = spectrum.radius
    smallest = jnp.asarray(1e6 * float(jnp.finfo(radius.dtype).tiny), radius.dtype)
    return float(method.tables.bound[-1]) / jnp.maximum(radius, smallest)


class StabilisedSolver(StabilisedMethod, AbstractSolver):
    """A `StabilisedMethod`, by steps of the least degree that is stable for the spectral radius."""

    def init(self, dy: Array) -> Spectrum:
        """Nothing known of the spectrum."""
        return spectra.start(dy)

    def prepare(
        self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: Spectrum, rejected: Array
    ) -> Context:
        """Look at the spectrum, if it is due."""
        state, spent = spectra.look(f, t, y, dy, h, state, due=rejected)
        order = self.embedded_order + 1
        return Context(state, spent, largest_step(self, state), order, self.gains, False)

    def step(self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: Spectrum) -> Step:
        """One step; the equation is in `StabilisedMethod`."""
        degree, member = least_degree(self, h * state.radius)

        def evaluate(carry: tuple[Array, Stage, Sums]) -> tuple[Array, Stage, Sums]:
            i, stage, sums = carry
            at = coefficients(self, member, i, y.dtype)
            slope = f(t + at.c * h, y + stage.moved)
            moved, sums = recur(at, i >= degree - 1, dy, h, slope, stage, sums)
            return i + 1, following(i <= degree, stage, moved, slope), sums

        # One loop over all stages, for the reasons given in `ExplicitMethod.step`.
        stage, sums = nothing(dy)
        at = coefficients(self, member, jnp.int32(0), y.dtype)
        moved, sums = recur(at, jnp.zeros((), bool), dy, h, dy, stage, sums)
        _, stage, sums = jax.lax.while_loop(
            lambda carry: any_member(carry[0] <= degree),
            evaluate,
            (jnp.int32(1), stage._replace(moved=moved), sums),
        )
        return Step(y + stage.before, stage.slope, h * sums.error, degree)


def least_degree(method: StabilisedMethod, reach: Array) -> tuple[Array, Array]:
    """The least degree that is stable up to h times spectral radius = `reach`, if any is, and its
    index.
    """
    too_small = jnp.asarray(method.tables.bound[:-1], reach.dtype) < reach
    member = jnp.sum(too_small, dtype=jnp.int32)
    return jnp.asarray(method.tables.degree)[member], member


def coefficients(method: StabilisedMethod, member: Array, i: Array, dtype: DTypeLike) -> AtStage:
    """Those of stage i of the degree of that index."""
    return AtStage(*jnp.asarray(method.stages, dtype)[member, i])


def nothing(dy: Array) -> tuple[Stage, Sums]:
    """What is known before the first stage, whose slope is `dy`, (N,)."""
    none = jnp.zeros_like(dy)
    return Stage(none, none, dy), Sums(none, none)


def recur(
    at: AtStage, last: Array, dy: Array, h: Array, slope: Array, stage: Stage, sums: Sums
) -> tuple[Array, Sums]:
    """The argument, less y, of the stage that follows one of this `slope`, and the sums with that;
    `last` is true where only f(y1) follows.
    """
    sums = Sums(sums.gain + at.b * slope, sums.error + at.d * slope)
    recurred = at.mu * stage.moved + at.nu * stage.before
    recurred = recurred + h * (at.now * slope + at.first * dy)
    # after f(y1) nothing is made
    return jnp.where(last, h * sums.gain, recurred), sums


def following(going: Array, stage: Stage, moved: Array, slope: Array) -> Stage:
    """The next stage, or the last one where a member of a batch has no more: the number of stages
    is a member's own, and the loop that of all, which so carries no selected copies of anything
    else.
    """
    after = Stage(moved, stage.moved, slope)
    return Stage(*(jnp.where(going, new, old) for new, old in zip(after, stage, strict=True)))
