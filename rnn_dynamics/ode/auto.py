"""An explicit pair where it is accurate for as long as it is stable, else an exponential method."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from rnn_dynamics.ode.batching import any_member, put, row
from rnn_dynamics.ode.erk import TSIT5, ExplicitMethod, combine
from rnn_dynamics.ode.exponential import EXPONENTIAL, ExponentialMethod, error_estimate
from rnn_dynamics.ode.power_iteration import MARGIN, Spectrum, iterate, product
from rnn_dynamics.ode.solver import AbstractSolver, Context, Field, Step

# Step times spectral radius at which the pair is near its limit, about 3.5, and below which it
# needs less evaluations than the exponential method.
_STIFF, _NOT_STIFF = 2.0, 1.0
# Attempts of the pair after the problem ceased to be stiff, and after it was found to be stiff in
# too many directions, before the exponential method may have a try.
_PATIENCE, _LONG_PATIENCE = 25, 100
# Directions that are followed for the exponential method, which takes all but the last. That must
# be so many times slower than the fastest, and keeps what is left stable, below 2.78, at steps of 2
# over its rate.
_NUM_DIRECTIONS, _SEPARATION, _LARGEST_REACH = 6, 10.0, 2.0
# Step times rate from which on a direction is followed.
_LEAST_REACH = 0.5
# Passes over all directions after which they are taken as they are.
_MOST_PASSES = 3


class AutoState(eqx.Module):
    """State of `AutoMethod`.

    Attributes:
        spectrum: of the Jacobian.
        exponential: whether the exponential method steps, () bool.
        width: how many directions were followed in the last attempt, () int32.
        passes: attempts one after another that followed all directions undecided, () int32.
        patience: attempts left to the pair, () int32.
    """

    spectrum: Spectrum
    exponential: Array
    width: Array
    passes: Array
    patience: Array


@dataclasses.dataclass(frozen=True, eq=False)
class AutoMethod(AbstractSolver):
    """An explicit pair, and an exponential method where stability would limit the pair and the
    Jacobian is stiff in a few directions, in which it is symmetric, as that of a gradient flow near
    a solution is.

    Which of them takes a step is decided for each step, and for each member of a batch, by the
    natural step and the spectrum of the Jacobian. Both have as many stages. Compared and hashed by
    identity.
    """

    name: str
    pair: ExplicitMethod
    exponential: ExponentialMethod

    # Those of the pair: less damped than where it is alone, as it does not stay at its stability
    # limit.
    gains: ClassVar[tuple[float, float]] = (0.8, 0.2)

    @property
    def embedded_order(self) -> int:  # type: ignore[override]
        """Of the pair, which begins."""
        return self.pair.embedded_order

    @property
    def interpolates(self) -> bool:
        """Steps of the pair have a middle."""
        return True

    def init(self, dy: Array) -> AutoState:
        """Not stiff, as far as is known."""
        no, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
        return AutoState(Spectrum.initial(dy, _NUM_DIRECTIONS), no, zero, zero, zero)

    def prepare(
        self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: AutoState, rejected: Array
    ) -> Context:
        """Improve the estimate of the spectrum, and decide which method steps.

        The pair follows one direction now and then, and all at its stability limit, before the
        exponential method may begin. That follows those that matter at every step, and all after a
        rejection. An attempt makes one pass at most: members of a batch wait for each other.
        """
        old, exponential = state.spectrum, state.exponential
        at_limit = ~exponential & (state.patience <= 0) & (h * old.radius > _STIFF)
        passes = jnp.where(at_limit, state.passes + 1, 0)
        fast = jnp.sum(jnp.abs(h * old.rates) > _LEAST_REACH, dtype=jnp.int32)
        width = (rejected | (old.life <= 0)).astype(jnp.int32)
        width = jnp.where(exponential, jnp.clip(fast + 1, 2, _NUM_DIRECTIONS), width)
        width = jnp.where(at_limit | (exponential & rejected), _NUM_DIRECTIONS, width)
        spectrum, converged = iterate(f, t, y, dy, h, old, width, at_limit & (passes <= 1))

        enough = exponential | ((passes > 1) & (converged | (passes > _MOST_PASSES)))
        decided = (width == _NUM_DIRECTIONS) & enough
        separated = _SEPARATION * jnp.abs(spectrum.rates[-1]) <= spectrum.radius
        suited = spectrum.symmetric & jnp.where(decided, separated, exponential)
        reach = h * spectrum.radius
        now = suited & (reach > jnp.where(exponential, _NOT_STIFF, _STIFF))
        patience = jnp.where(decided & ~now, _LONG_PATIENCE, jnp.maximum(state.patience - 1, 0))
        patience = jnp.where(exponential & ~now, jnp.int32(_PATIENCE), patience)
        passes = jnp.where(decided, 0, passes)

        smallest = jnp.asarray(1e6 * float(jnp.finfo(h.dtype).tiny), h.dtype)
        rest = jnp.maximum(MARGIN * jnp.abs(spectrum.rates[width - 1]), smallest)

        def choose(own: float, of_pair: float) -> Array:
            return jnp.where(now, jnp.asarray(own, h.dtype), jnp.asarray(of_pair, h.dtype))

        methods = self.exponential, self
        return Context(
            state=AutoState(spectrum, now, width, passes, patience),
            num_evaluations=width,
            largest=jnp.where(now, _LARGEST_REACH / rest, jnp.asarray(jnp.inf, h.dtype)),
            order=choose(*(method.embedded_order + 1.0 for method in methods)),
            gains=(
                choose(*(method.gains[0] for method in methods)),
                choose(*(method.gains[1] for method in methods)),
            ),
            dense=~now,
        )

    def step(self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: AutoState) -> Step:
        """One step by the method that `state` says.

        One loop evaluates the stages of either, k_i of the pair or k_0 and D_i of the exponential
        method, (7, N), so that members of a batch do not wait for those of the other method.
        """
        dtype, exponential = y.dtype, state.exponential
        any_exponential = any_member(exponential)
        num_stages, weights = len(self.pair.c), jnp.asarray(self.exponential.stages, dtype)
        a = jnp.where(exponential, weights[:num_stages], jnp.asarray(self.pair.a, dtype))
        nodes = (jnp.asarray(x[:num_stages], dtype) for x in (self.exponential.c, self.pair.c))
        c = jnp.where(exponential, *nodes)
        directions = state.spectrum.directions
        followed = jnp.arange(_NUM_DIRECTIONS, dtype=jnp.int32) < jnp.minimum(
            state.width, _NUM_DIRECTIONS - 1
        )
        rates = jnp.where(exponential & followed, state.spectrum.rates, 0.0)
        shape = (len(weights), num_stages, _NUM_DIRECTIONS)
        corrections = jax.lax.cond(
            any_exponential,
            lambda: self.exponential.corrections(h * rates),
            lambda: jnp.zeros(shape, dtype),
        )

        def add(i: Array, slope: Array, moved: Array, stages: Array, amounts: Array) -> Any:
            """Store stage i, of a slope at y + moved, and find what the next is moved by; `amounts`
            are the components of stages along the directions, (7, p).
            """

            def by_directions() -> tuple[Array, Array, Array]:
                linear = dy + combine(rates * product(directions, moved), directions)
                linear = jnp.where(exponential & (i > 0), linear, 0.0)
                own = put(amounts, product(directions, slope - linear), i)
                along = h * jnp.sum(row(corrections, i + 1) * own, axis=0)
                return linear, combine(along, directions), own

            def without() -> tuple[Array, Array, Array]:
                return jnp.zeros_like(y), jnp.zeros_like(y), amounts

            linear, along, amounts = jax.lax.cond(any_exponential, by_directions, without)
            stages = put(stages, slope - linear, i)
            return h * combine(row(a, i + 1), stages) + along, stages, amounts

        def evaluate(i: Array, carry: Any) -> Any:
            _, _, moved, stages, amounts = carry
            slope = f(t + row(c, i) * h, y + moved)
            return moved, slope, *add(i, slope, moved, stages, amounts)

        stages = jnp.zeros((num_stages, y.size), dtype)
        amounts = jnp.zeros((num_stages, _NUM_DIRECTIONS), dtype)
        first = add(jnp.int32(0), dy, jnp.zeros_like(y), stages, amounts)
        moved, slope, _, stages, amounts = jax.lax.fori_loop(
            jnp.int32(1), num_stages, evaluate, (jnp.zeros_like(y), dy, *first)
        )
        error, middle = self.pair.outputs(h, stages)

        def from_stage(i: int) -> Array:
            """y1 - U_i of the exponential method."""
            along = jnp.sum((corrections[6] - corrections[i]) * amounts, axis=0)
            return h * (combine(weights[6] - weights[i], stages) + combine(along, directions))

        own = jax.lax.cond(
            any_exponential, lambda: error_estimate(from_stage(7), from_stage(3)), lambda: error
        )
        error = jnp.where(exponential, own, error)
        return Step(y + moved, slope, error, self.pair.num_evaluations, middle)

    def __repr__(self) -> str:
        return f"<automatic method {self.name}>"


AUTO = AutoMethod("AUTO", TSIT5, EXPONENTIAL)
