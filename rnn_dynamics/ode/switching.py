"""One step of an explicit pair where it is accurate for as long as it is stable, else of a method
for what is stiff.
"""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from rnn_dynamics.ode import explicit, stabilised
from rnn_dynamics.ode import spectrum as spectra
from rnn_dynamics.ode.batch import any_member, put, row
from rnn_dynamics.ode.explicit import ExplicitMethod, combine
from rnn_dynamics.ode.exponential import SHARE_OF_LOW, ExponentialMethod, coefficients
from rnn_dynamics.ode.solver import AbstractSolver, Context, Field, Step
from rnn_dynamics.ode.spectrum import MARGIN, Spectrum
from rnn_dynamics.ode.stabilised import StabilisedSolver, Stage, Sums

# Step times spectral radius at which the pair is near its limit, about 3.5, and below which it
# needs less evaluations than what is for stiff problems.
_STIFF, _NOT_STIFF = 2.0, 1.0
# Attempts of the pair before another method may have a try, and of the stabilised method before the
# directions that are stiff are counted again.
_PATIENCE, _LONG_PATIENCE = 25, 100
# Directions that are followed for the exponential method, which takes all but the last. That must
# be so many times slower than the fastest, and keeps what is left stable, below 2.78, at steps of 2
# over its rate: where those are so many times too short, the stabilised method is better.
_NUM_DIRECTIONS, _FEW, _REST, _TOO_SHORT = 6, 10.0, 2.0, 3.0
# Step times rate from which on a direction is worth to be followed.
_WORTH = 0.5
# Passes over all directions after which they are taken as they are.
_MOST_PASSES = 3


@dataclasses.dataclass(frozen=True, eq=False)
class SwitchingMethod(AbstractSolver):
    """An explicit pair, and two methods for where stability would limit the pair: an exponential
    one for a Jacobian that is stiff in a few directions, in which it is symmetric, as that of a
    gradient flow near a solution is, and a stabilised one for others.

    Which of them takes a step is decided for each step, and for each member of a batch, by the
    natural step and the spectrum of the Jacobian. `tight`, if not None, is the same method but for
    its pair, which has a higher order. Compared and hashed by identity.
    """

    name: str
    explicit: ExplicitMethod
    exponential: ExponentialMethod
    stabilised: StabilisedSolver
    tight: "SwitchingMethod | None"

    # Those of the pair: less damped than where it is alone, as it does not stay at its stability
    # limit. Undamped, DOP853 takes as many evaluations, and the errors of oscillators are ten times
    # as large.
    gains: ClassVar[tuple[float, float]] = (0.8, 0.2)

    @property
    def embedded_order(self) -> int:  # type: ignore[override]
        """Of the method that begins."""
        return self.explicit.embedded_order

    @property
    def interpolates(self) -> bool:
        """Whether steps of the pair have a middle."""
        return self.explicit.interpolates

    def init(self, dy: Array) -> "Memory":
        """Not stiff, as far as is known."""
        return start(dy)

    def prepare(
        self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: "Memory", rejected: Array
    ) -> Context:
        """Decide which method steps."""
        state, spent = look(f, t, y, dy, h, state, rejected)
        dense = ~state.stiff if self.interpolates else False
        return Context(state, spent, largest_step(self, state), *control_of(self, state), dense)

    def step(self, f: Field, t: Array, y: Array, dy: Array, h: Array, state: "Memory") -> Step:
        """One step by the method that the state says."""
        return Step(*step(f, self, t, y, dy, h, state))

    def __repr__(self) -> str:
        return f"<switching method {self.name}>"


class Memory(eqx.Module):
    """What the method remembers: the spectrum; whether the problem is stiff now, and if so, in a
    few directions only, boolean; how many directions were looked at, in how many attempts one after
    another all of them without being sure, and for how many attempts more the same method is to be
    used, integer.
    """

    spectrum: Spectrum
    stiff: Array
    few: Array
    width: Array
    passes: Array
    patience: Array

    @property
    def exponential(self) -> Array:
        """Whether the exponential method is in use."""
        return self.stiff & self.few


def start(dy: Array) -> Memory:
    """Not stiff, as far as is known; `dy` is (N,)."""
    no, zero = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    return Memory(spectra.start(dy, _NUM_DIRECTIONS), no, no, zero, zero, zero)


def look(
    f: Field, t: Array, y: Array, dy: Array, h: Array, memory: Memory, rejected: Array
) -> tuple[Memory, Array]:
    """Improve the estimate of the spectrum, and decide how to step by `h`.

    One direction is followed by the pair and by the stabilised method, all before the exponential
    method may begin and after it failed, and as it goes on, at every step, those that matter. An
    attempt makes one pass at most, and others are left to the next ones: members of a batch wait
    for each other, so that at every attempt all would wait for one that is in doubt.

    **Returns:** the memory, and how often `f` was evaluated.
    """
    known, exponential = memory.spectrum, memory.exponential
    tired = memory.patience <= 0
    suspect = ~exponential & tired & (memory.stiff | (h * known.radius > _STIFF))
    wide = suspect | (exponential & rejected)
    worth = jnp.sum(jnp.abs(h * known.rates) > _WORTH, dtype=jnp.int32)
    width = (rejected | (known.life <= 0)).astype(jnp.int32)
    width = jnp.where(exponential, jnp.clip(worth + 1, 2, _NUM_DIRECTIONS), width)
    width = jnp.where(wide, _NUM_DIRECTIONS, width)
    passes = jnp.where(suspect, memory.passes + 1, 0)
    spectrum, settled = spectra.improve(
        f, t, y, dy, h, known, width, revive=suspect & (passes <= 1)
    )
    all_looked_at = width == _NUM_DIRECTIONS
    enough = (passes > 1) & (settled | (passes > _MOST_PASSES))
    sure = all_looked_at & (exponential | enough)
    slowest, reach = jnp.abs(spectrum.rates[-1]), h * spectrum.radius
    few = (_FEW * slowest <= spectrum.radius) & (h * slowest <= _TOO_SHORT * _REST)
    few = jnp.where(sure, few, memory.few) & spectrum.all_followed & spectrum.symmetric
    stiff = jnp.where(memory.stiff, reach > _NOT_STIFF, sure & (reach > _STIFF))
    left = jnp.maximum(memory.patience - 1, 0)
    patience = jnp.where(sure & stiff & ~few, jnp.int32(_LONG_PATIENCE), left)
    patience = jnp.where(memory.stiff & ~stiff, jnp.int32(_PATIENCE), patience)
    passes = jnp.where(sure, 0, passes)
    return Memory(spectrum, stiff, few, width, passes, patience), width


def largest_step(method: SwitchingMethod, memory: Memory) -> Array:
    """Step that takes the largest degree, or that is stable; no limit to the explicit pair."""
    spectrum = memory.spectrum
    limit = stabilised.largest_step(method.stabilised, spectrum)
    smallest = jnp.asarray(1e6 * float(jnp.finfo(limit.dtype).tiny), limit.dtype)
    rest = jnp.abs(spectrum.rates[memory.width - 1])
    limit = jnp.where(memory.few, _REST / jnp.maximum(MARGIN * rest, smallest), limit)
    return jnp.where(memory.stiff, limit, jnp.asarray(jnp.inf, limit.dtype))


def control_of(method: SwitchingMethod, memory: Memory) -> tuple[Array, tuple[Array, Array]]:
    """Order of the error estimate and gains of the method in use, scalars."""
    dtype = memory.spectrum.radius.dtype

    def choose(*values: float) -> Array:
        pair, few, many = (jnp.asarray(value, dtype) for value in values)
        return jnp.where(memory.stiff, jnp.where(memory.few, few, many), pair)

    methods = method, method.exponential, method.stabilised
    order = choose(*(one.embedded_order + 1.0 for one in methods))
    integral, proportional = zip(*(one.gains for one in methods), strict=True)
    return order, (choose(*integral), choose(*proportional))


def step(
    f: Field, method: SwitchingMethod, t: Array, y: Array, dy: Array, h: Array, memory: Memory
) -> tuple[Array, Array, Array, Array, Array | None]:
    """One step from (t, y) of size h, by the method that `memory` says.

    One loop evaluates the stages of any, so that the members of a batch that are not stiff wait
    for those that are, but cost nothing beside.

    **Arguments:** as in `AbstractSolver.step`.

    **Returns:** the parts of a `Step`; the middle of the explicit pair only."""
    dtype, spectrum, exponential = y.dtype, memory.spectrum, memory.exponential
    many = memory.stiff & ~memory.few
    any_few, any_many = any_member(exponential), any_member(many)
    way = any_few.astype(jnp.int32) + 2 * any_many.astype(jnp.int32)
    pair, last = method.explicit, method.exponential.num_evaluations
    stages = method.exponential.stages
    num = max(len(pair.c), last + 1)

    def choose(few: np.ndarray, pair: np.ndarray, i: Array) -> Array:
        """Row i of one table or the other."""
        chosen = (np.pad(table, [(0, num - n) for n in table.shape]) for table in (few, pair))
        return jnp.where(exponential, *(row(jnp.asarray(table, dtype), i) for table in chosen))

    def a(i: Array) -> Array:
        return choose(stages[: last + 1], pair.a, i)

    def c(i: Array) -> Array:
        of_many = stabilised.coefficients(method.stabilised, member, i, dtype).c
        return jnp.where(many, of_many, choose(method.exponential.c[: last + 1], pair.c, i))

    directions = spectrum.directions
    taken = jnp.minimum(memory.width, _NUM_DIRECTIONS - 1)
    followed = exponential & (jnp.arange(_NUM_DIRECTIONS, dtype=jnp.int32) < taken)
    rates = jnp.where(followed, spectrum.rates, 0.0)

    def of_directions() -> Array:
        return jnp.where(followed[None, None], coefficients(method.exponential, h * rates), 0.0)

    shape = len(stages), last + 1, _NUM_DIRECTIONS
    more = jax.lax.cond(any_few, of_directions, lambda: jnp.zeros(shape, dtype))
    most, member = stabilised.least_degree(method.stabilised, h * spectrum.radius)
    count = jnp.where(exponential, last, jnp.int32(pair.num_evaluations))
    count = jnp.where(many, most, count)

    # Of the stages so far: k_j of the pair, or k_0 and D_j of the exponential method, (s + 1, N),
    # and what these have along the directions, (s + 1, p); the last row takes what comes after. No
    # branch returns the former, which would be copied.
    def along(i: Array, amounts: Array) -> Array:
        """What U_i - y has of the directions but for what is that of all others, (p,)."""
        return h * jnp.sum(row(more, jnp.minimum(i, last)) * amounts[: last + 1], axis=0)

    def add(i: Array, slope: Array, carried: tuple[Stage, Sums, Array, Array]) -> Any:
        """What is known after stage i of a `slope`, and of the next stage."""
        stage, sums, vectors, amounts = carried
        here, none = jnp.minimum(i, num), jnp.zeros_like(slope)

        def of_few() -> tuple[Array, Array, Array]:
            own = row(jnp.asarray(stages[: last + 1], dtype), here)[:, None]
            whole = row(more, jnp.minimum(i, last)) + own
            moved = h * jnp.sum(whole * amounts[: last + 1], axis=0)
            linear = jnp.where(exponential & (i > 0), dy + combine(rates * moved, directions), 0.0)
            amount = jnp.matmul(directions, slope - linear, precision=jax.lax.Precision.HIGHEST)
            return linear, combine(along(i + 1, put(amounts, amount, here)), directions), amount

        def of_many() -> tuple[Array, Array, Array]:
            at = stabilised.coefficients(method.stabilised, member, i, dtype)
            moved, after = stabilised.recur(at, i >= most - 1, dy, h, slope, stage, sums)
            return moved, *after

        # of these: L (U_i - y), what there is of U_{i+1} - y beside the k_j, the sums, what k_i or
        # D_i has along directions
        def of_none() -> tuple[Array, Array]:
            return jnp.stack((none, none, none, none)), jnp.zeros_like(amounts[0])

        def only_few() -> tuple[Array, Array]:
            linear, moved, amount = of_few()
            return jnp.stack((linear, moved, none, none)), amount

        def only_many() -> tuple[Array, Array]:
            return jnp.stack((none, *of_many())), jnp.zeros_like(amounts[0])

        def of_both() -> tuple[Array, Array]:
            (linear, moved, amount), (recurred, *after) = of_few(), of_many()
            return jnp.stack((linear, jnp.where(many, recurred, moved), *after)), amount

        ways = of_none, only_few, only_many, of_both
        (linear, moved, *after), amount = jax.lax.switch(way, ways)
        vectors, amounts = put(vectors, slope - linear, here), put(amounts, amount, here)
        moved = moved + jnp.where(many, 0.0, h * combine(a(i + 1), vectors[:num]))
        return moved, (Sums(*after), vectors, amounts)

    def evaluate(carry: tuple[Array, Any]) -> tuple[Array, Any]:
        i, (stage, *carried) = carry
        slope = f(t + c(i) * h, y + stage.moved)
        moved, carried = add(i, slope, (stage, *carried))
        return i + 1, (stabilised.following(i <= count, stage, moved, slope), *carried)

    stage, sums = stabilised.nothing(dy)
    empty = jnp.zeros((num + 1, y.size), dtype), jnp.zeros((num + 1, _NUM_DIRECTIONS), dtype)
    moved, carried = add(jnp.int32(0), dy, (stage, sums, *empty))
    _, (stage, sums, *slopes) = jax.lax.while_loop(
        lambda carry: any_member(carry[0] <= count),
        evaluate,
        (jnp.int32(1), (stage._replace(moved=moved), *carried)),
    )
    vectors, amounts = (values[: last + 1] for values in slopes)

    def from_stage(i: int) -> Array:
        """y1 - U_i of the exponential method."""
        plain = combine(jnp.asarray(stages[last] - stages[i], dtype), vectors)
        return plain + combine(jnp.sum((more[last] - more[i]) * amounts, axis=0), directions)

    of_pair = slopes[0][: len(pair.c)]
    error = explicit.error(pair, of_pair)
    few_error = jax.lax.cond(
        any_few,
        lambda: explicit.estimate(from_stage(7), from_stage(3), SHARE_OF_LOW),
        lambda: error,
    )
    error = jnp.where(exponential, few_error, jnp.where(many, sums.error, error))
    return y + stage.before, stage.slope, h * error, count, explicit.middle(pair, h, of_pair)
