"""Which implementation computes a loss over an infinite horizon and its gradient: Krylov bases as
large as a network needs, or doubling.

Each network starts with the basis size that a random W of its weight scale needs, and goes on to
larger ones until the estimated error is small enough; the last resort is doubling. On CPUs a kernel
in C does all of it, on GPUs of NVIDIA one in CUDA the bases (`kernel`). In JAX alone each size is a
loop of at most one pass, so that a batch skips what none of its members needs. Members never affect
each other.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.loss.estimate import ANEW, DENSE, SKIP, Estimate, only_way, where_wanted
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.gramian.doubling import energy
from rnn_dynamics.loss.krylov import kernel
from rnn_dynamics.loss.krylov.kernel import MOST_TARGET_UNITS
from rnn_dynamics.loss.krylov.projected import (
    LARGEST_RESIDUAL,
    LARGEST_VALUE_ERROR,
    MOST_INVERTED,
    probe,
    projected_gradient,
)
from rnn_dynamics.model import LinearRNN

# Dimensions of the small problems, the target's units included, in bases of an inverse and of W:
# multiples of what a core adds at once. For JAX each is a program of its own, for the kernel it is
# a number, and bases go on from one to the next.
INVERTED_SIZES = (12, 20, 32)
SIZES = (16, 24, 40, 72, 128)
KERNEL_INVERTED_SIZES = (8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128)
KERNEL_SIZES = (12, 16, 20, 24, 32, 40, 56, 72, 96, 128)
MOST_INVERTED_SHARE, MOST_SHARE = 0.85, 0.5  # of N: beyond, doubling is cheaper
# Fewest units for which bases pay in JAX alone: measured on CPUs, counted for accelerators.
LEAST_UNITS = {"cpu": 24}
LEAST_UNITS_ELSEWHERE = 129
WHOLE_UNITS = 24  # below, bases of the kernel for CPUs may span all there is
# In bases of an inverse a random W of unit weight scale costs this factor of the error per vector,
# about.
PER_VECTOR = 0.4


def tolerance(dtype: np.dtype) -> float:
    """Largest estimate of the gradient's relative error: 3e-9 in float64, as one in 200 is too
    small, by a factor of up to two, and 4e-6 in float32.
    """
    return max(3e-9, 30 * float(jnp.finfo(dtype).eps))


def sizes(rnn: LinearRNN, target: LinearRNN) -> tuple[int, ...]:
    """The sizes to be tried for networks of this shape; none if they are better off with
    doubling.
    """
    found = kernel.find(rnn.dtype, rnn.num_units, target.num_units)
    if found is None:
        return fewer_sizes(rnn, target)
    fitting = _fitting(
        rnn, target, KERNEL_INVERTED_SIZES if found.inverted else KERNEL_SIZES, found.inverted
    )
    fitting = tuple(size for size in fitting if size <= found.largest)
    whole = rnn.num_units + target.num_units
    if (
        found.loaded is None
        and rnn.num_units < WHOLE_UNITS
        and target.num_units <= MOST_TARGET_UNITS
    ):
        return (*(size for size in fitting if size < whole), whole)
    return fitting


def fewer_sizes(rnn: LinearRNN, target: LinearRNN) -> tuple[int, ...]:
    """Those that are tried by JAX alone."""
    if rnn.num_units < LEAST_UNITS.get(jax.default_backend(), LEAST_UNITS_ELSEWHERE):
        return ()
    inverted = rnn.num_units <= MOST_INVERTED
    return _fitting(rnn, target, INVERTED_SIZES if inverted else SIZES, inverted)


def _fitting(
    rnn: LinearRNN, target: LinearRNN, every: tuple[int, ...], inverted: bool
) -> tuple[int, ...]:
    if target.num_units > MOST_TARGET_UNITS:
        return ()
    least = target.num_units + 4
    most = (MOST_INVERTED_SHARE if inverted else MOST_SHARE) * rnn.num_units
    return tuple(size for size in every if least <= size <= most)


def gradient(
    rnn: LinearRNN, target: LinearRNN, first: jax.Array, refines: bool = False
) -> Estimate:
    """The loss over an infinite horizon and its gradient.

    Args:
        rnn: the student.
        target: the target.
        first: which attempt to begin with, () int32; `ANEW` for that of the weight scale, `SKIP`
            for none, of which all is NaN, and `DENSE` for doubling, which proves stability.
        refines: whether a gradient that has cancelled is found with more digits, where a kernel
            can.
    """
    found = kernel.find(rnn.dtype, rnn.num_units, target.num_units)
    tried = sizes(rnn, target)
    if found is None or (found.loaded is not None and not tried):
        return by_jax(rnn, target, first)
    largest = [
        math.inf
        if size == rnn.num_units + target.num_units
        else largest_scale(rnn, target, size, found.inverted)
        for size in tried
    ]
    plan = kernel.Plan(tolerance(rnn.dtype), largest, tried)

    def by_kernel(rnn: LinearRNN, target: LinearRNN, first: jax.Array) -> Estimate:
        if found.loaded is None:
            return kernel.evaluate(rnn, target, first, found, plan, refines)
        return _or_by_doubling(
            rnn, target, kernel.attempts(rnn, target, first, found, plan), len(tried)
        )

    def otherwise(rnn: LinearRNN, target: LinearRNN, first: jax.Array) -> Estimate:
        # attempts are numbered otherwise there
        return by_jax(
            rnn, target, jnp.where(first < len(tried), jnp.minimum(first, ANEW), jnp.int32(DENSE))
        )

    @jax.custom_jvp
    def call(rnn: LinearRNN, target: LinearRNN, first: jax.Array) -> Estimate:
        if found.loaded is None:
            return by_kernel(rnn, target, first)
        # a machine with a GPU can be told to compute on its CPU
        return jax.lax.platform_dependent(rnn, target, first, cuda=by_kernel, default=otherwise)

    @call.defjvp
    def derivative(primals: Any, tangents: Any) -> Any:
        rnn, target, first = primals
        way = partial(otherwise, first=first)
        return call(*primals), jax.jvp(way, (rnn, target), tangents[:2])[1]

    return call(rnn, target, first)


def value(rnn: LinearRNN, target: LinearRNN) -> jax.Array:
    """The loss over an infinite horizon, (), for reverse mode in both networks."""
    found = kernel.find(rnn.dtype, rnn.num_units, target.num_units)
    if found is None or found.loaded is not None:
        return energy(doubling.difference(rnn, target))
    return _value(rnn, target)


@jax.custom_vjp
def _value(rnn: LinearRNN, target: LinearRNN) -> jax.Array:
    return gradient(rnn, target, jnp.int32(DENSE), refines=True).value


def _value_forward(rnn: LinearRNN, target: LinearRNN) -> Any:
    found = gradient(rnn, target, jnp.int32(DENSE), refines=True)
    return found.value, (rnn, target, found.gradient)


def _value_backward(kept: Any, cotangent: jax.Array) -> Any:
    rnn, target, own = kept
    # the loss is symmetric in the two networks
    other = gradient(target, rnn, jnp.int32(DENSE), refines=True).gradient
    return jax.tree.map(lambda g: cotangent * g, (own, other))


_value.defvjp(_value_forward, _value_backward)


def by_jax(rnn: LinearRNN, target: LinearRNN, first: jax.Array) -> Estimate:
    """The same in JAX alone, where `first` is of `fewer_sizes`."""
    last = len(fewer_sizes(rnn, target))
    if not last:
        return _by_doubling(rnn, target, first)
    return _or_by_doubling(rnn, target, attempts_by_jax(rnn, target, first), last)


def _by_doubling(rnn: LinearRNN, target: LinearRNN, first: jax.Array) -> Estimate:
    wanted = first != SKIP
    found = only_way(rnn, doubling.gradient(where_wanted(rnn, wanted), target))
    nan = jnp.asarray(jnp.nan, rnn.dtype)
    value, g, *errors = jax.tree.map(lambda x: jnp.where(wanted, x, nan), found[:4])
    return Estimate(value, g, errors[0], errors[1], jnp.where(wanted, jnp.int32(0), first))


def _or_by_doubling(rnn: LinearRNN, target: LinearRNN, carry: Any, last: int) -> Estimate:
    """What was found, by doubling if all attempts, of which there were `last`, were not enough."""

    def double(carry: Any) -> Any:
        own = _tied(rnn, carry[0])
        return jnp.int32(SKIP), only_way(own, doubling.gradient(own, target))._replace(
            attempt=jnp.int32(last)
        )

    with jax.default_matmul_precision("highest"):
        return jax.lax.while_loop(lambda carry: carry[0] >= last, double, carry)[1]


def attempts_by_jax(
    rnn: LinearRNN, target: LinearRNN, first: jax.Array
) -> tuple[jax.Array, Estimate]:
    """The attempts of `fewer_sizes` in JAX alone: the index of the next one, and what was found;
    products of a batch are made together.
    """
    tried = fewer_sizes(rnn, target)
    inverted = rnn.num_units <= MOST_INVERTED
    with jax.default_matmul_precision("highest"):
        probed = probe(rnn)
    good = probed.residual <= LARGEST_RESIDUAL * float(jnp.finfo(rnn.dtype).eps)
    first = jnp.where((first >= ANEW) & ~good, jnp.int32(len(tried)), first)
    first = jnp.where(probed.finite, first, jnp.int32(SKIP))

    def guess(carry: Any) -> Any:
        each = [largest_scale(rnn, target, size, inverted) for size in tried]
        limits = jnp.asarray(each, rnn.dtype)
        return (jnp.sum(weight_scale(_tied(rnn, carry[0])) > limits, dtype=jnp.int32),)

    (first,) = jax.lax.while_loop(partial(_is_at, ANEW), guess, (first,))
    nan = jnp.asarray(jnp.nan, rnn.dtype)
    nothing = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), rnn)
    carry: Any = first, Estimate(nan, nothing, nan, nan, jnp.int32(ANEW))

    def try_size(index: int, size: int) -> Any:
        def once(carry: Any) -> Any:
            small = projected_gradient(_tied(rnn, carry[0]), target, size, probed)
            tolerances = jnp.asarray([LARGEST_VALUE_ERROR, tolerance(rnn.dtype)], rnn.dtype)
            enough = jnp.all(small.truncation <= jnp.maximum(tolerances, small.rounding))
            following = jnp.where(small.reliable & enough, jnp.int32(SKIP), jnp.int32(index + 1))
            value_error, error = small.truncation + small.rounding
            found = small.value, small.gradient, value_error, error
            return following, Estimate(*found, jnp.int32(index))

        return once

    with jax.default_matmul_precision("highest"):
        for index, size in enumerate(tried):
            carry = jax.lax.while_loop(partial(_is_at, index), try_size(index, size), carry)
    return carry


def weight_scale(rnn: LinearRNN) -> jax.Array:
    """Of a random W of the same norm, ()."""
    return jnp.sqrt(jnp.sum(rnn.W**2) / rnn.num_units)


def _is_at(index: int, carry: Any) -> jax.Array:
    return carry[0] == index


def _tied(rnn: LinearRNN, first: jax.Array) -> LinearRNN:
    """The network, made to depend on the loop: else the compiler takes what it needs out of the
    loop, and computes it always.
    """
    return jax.lax.optimization_barrier((rnn, first))[0]


def largest_scale(rnn: LinearRNN, target: LinearRNN, size: int, inverted: bool) -> float:
    """The weight scale of random networks of this shape for which a size is tried first, in bases
    of an inverse or of W.

    The latter couple by H_{j+1,j} ≈ weight_scale √(1 - j/N), and what is left out is about the
    product of all.
    """
    N, count, aim = rnn.num_units, size - target.num_units, 10 * tolerance(rnn.dtype)
    if inverted:
        return aim ** (1 / count) / PER_VECTOR
    capacity = sum(math.log1p(-j / N) for j in range(count)) / 2
    return math.exp((math.log(aim) - capacity) / count)
