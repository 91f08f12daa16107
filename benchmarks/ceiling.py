"""The gradient beside the matrix products that it is made of in JAX, and what was tried to get
below them.

The products of one gradient are timed alone, as XLA makes them, batched and in cache, and
multiplied by their counts; engine and products take turns in one process. For gradients by JAX
alone the counts are a floor: one pass of Gram-Schmidt, one size, no estimate of the error. The
compiled kernel may be below it, with a `fraction` above 1: it solves with factors in place of an
inverse, reads these or W once for both sides, and leaves nothing for batches to wait for. `kernel`
says whether there was one.

gemv    B x and z B, one of each per vector (of W in large networks); both products of Gram-Schmidt
        with all m + 1 vectors
gemm    of the inverse, four of half the size of W; of the reduced problem, n × n, with as many
        doublings as the slowest of the batch needs; U Vᵀ and Uᵀ C V

`engine_us` is per member and step, of K = 20 steps of descent in one compiled call, as a sweep
takes them; a `fraction` is (gemm + gemv) / engine in the same turn, its bar 0.75 from 64 units on.
`sizes` says what the batch went through: a second size, or doubling (0), for any of its members, is
work of the engine that the floor does not have.

Rows of another variant than "engine" are attempts (ceiling_variants.py), each beside the engine at
weight scale 0.5 in turns: one pass over W for both products; bases of the step before, as they are
or refreshed by one block product; Laguerre columns at a shift of 0.8 as they are; bases of W
instead of the resolvent.

    python benchmarks/ceiling.py [--units 64 128 256] [--repeats 9] [--dtypes float64]
    [--no-variants] [--quick]
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import ceiling_variants
import harness
import jax
import jax.numpy as jnp
import numpy as np
import peers_jax
from peers_problem import TARGET

import rnn_dynamics as rd
from rnn_dynamics.loss.krylov import dispatch, kernel, projected
from rnn_dynamics.sweep.engine.compiling import Program

WEIGHT_SCALES = (0.1, 0.4)
BAR, LEAST_UNITS = 0.75, 64
# Of all W of a batch: in cache, and what keeps an accelerator busy.
BATCH_BYTES, BATCH_BYTES_ELSEWHERE = 2**20, 2**29
MOST_MEMBERS, MOST_MEMBERS_ELSEWHERE = 64, 4096
LOOPED = 20  # products of one compiled call
NUM_NODES = 8
GEMMS = ("inverse", "reduced", "overlap", "expand")

Call = Callable[[], Any]


def orthogonal(count: int, rows: int, columns_: int, dtype: str) -> jax.Array:
    """Matrices that neither shrink nor blow up what they are applied to, (count, rows, columns)."""
    draw = np.random.default_rng(0).normal(size=(count, max(rows, columns_), min(rows, columns_)))
    Q = np.linalg.qr(draw)[0]
    return jnp.asarray(Q if rows >= columns_ else np.swapaxes(Q, 1, 2), dtype)


def looped(step: Callable[..., Any], *operands: jax.Array) -> Call:
    """A compiled call of LOOPED steps, batched over members; a step takes and returns the last
    operand.
    """

    @jax.jit
    def call(*operands: jax.Array) -> jax.Array:
        def one(*operands: jax.Array) -> jax.Array:
            *fixed, start = operands
            return jax.lax.fori_loop(0, LOOPED, lambda _, x: step(*fixed, x), start)

        with jax.default_matmul_precision("highest"):
            return jax.vmap(one)(*operands)

    return lambda: call(*operands)


def products(units: int, size: int, count: int, dtype: str) -> dict[str, Call]:
    """The products of a gradient, each a compiled loop."""
    m = size - 1
    make = partial(orthogonal, count, dtype=dtype)
    W, V, small = make(units, units), make(m + 1, units), make(size, size)
    half = make(units // 2, units // 2)
    pair = jnp.stack([W[:, 0], W[:, 1]], axis=1)
    both = jnp.stack([V, V], axis=1)

    def gram_schmidt(vectors: jax.Array, x: jax.Array) -> jax.Array:
        h = jnp.einsum("kij,kj->ki", vectors, x)
        return jnp.einsum("kij,ki->kj", vectors, h)

    def expand(U: jax.Array, V: jax.Array, grown: jax.Array) -> jax.Array:
        return (U.T @ grown[:m, :m]) @ V

    return {
        "inverse": looped(jnp.matmul, half, half),
        "gemv": looped(lambda W, x: jnp.stack([W @ x[0], x[1] @ W]), W, pair),
        "gram_schmidt": looped(gram_schmidt, both, pair),
        "reduced": looped(jnp.matmul, small, small),
        "overlap": looped(lambda V, x: (x @ V.T) @ V, V[:, :m], V[:, :m]),
        "expand": looped(expand, V[:, :m], V[:, :m], W),
    }


def counts(size: int, doublings: int, inverted: bool) -> dict[str, float]:
    """How often each product occurs in one gradient."""
    m = size - 1
    columns_ = 2 * 2**projected.NUM_DOUBLED  # doubled, and multiplied with each other
    gramian = projected.NUM_DOUBLED + columns_ / size + 3 * (doublings - projected.NUM_DOUBLED)
    return {
        "inverse": 4 if inverted else 0,  # each as large as a half of W
        "gemv": m + 1,  # one more for the residual of the inverse
        "gram_schmidt": m,
        "reduced": 2 * gramian + 2,
        "overlap": 0.5,  # two products as large as U Vᵀ are timed
        "expand": 1,
    }


@partial(Program, static_argnames="size")
def doublings_of(rnns: rd.LinearRNN, target: rd.LinearRNN, size: int) -> jax.Array:
    """How often the slowest member of a batch doubles, ()."""

    def one(rnn: rd.LinearRNN) -> jax.Array:
        found = projected.probe(rnn)
        return projected.projected_gradient(rnn, target, size, found).doublings

    return jnp.max(jax.vmap(one)(rnns))


def sizes_of(rnns: rd.LinearRNN, target: rd.LinearRNN) -> list[int]:
    """The sizes that are enough for the members of a batch; 0 is doubling. Only the first step
    tries others.
    """
    tried = [*dispatch.sizes(jax.tree.map(lambda x: x[0], rnns), target), 0]
    found = Program(jax.vmap(lambda rnn: rd.PopulationLoss().estimate(rnn, target)))(rnns)
    return [tried[attempt] for attempt in np.unique(found.attempt)]


def networks(units: int, scale: float, count: int) -> tuple[np.ndarray, ...]:
    """Random networks, (count, ...)."""
    draw = np.random.default_rng(units).normal
    W = draw(size=(count, units, units)) * scale / np.sqrt(units)
    return W, *(draw(size=(2, count, units)) / np.sqrt(units))


def batch_of(units: int, dtype: str) -> int:
    """Members of a batch."""
    each = units**2 * np.dtype(dtype).itemsize
    if jax.default_backend() == "cpu":
        return max(2, min(MOST_MEMBERS, BATCH_BYTES // each))
    return max(2, min(MOST_MEMBERS_ELSEWHERE, BATCH_BYTES_ELSEWHERE // each))


def measure(units: int, scale: float, dtype: str, chosen: argparse.Namespace) -> dict[str, Any]:
    """The row of one number of units and weight scale."""
    count = batch_of(units, dtype)
    chunk = peers_jax.chunk_of(networks(units, scale, count), np.arange(count), dtype)
    rnns, target = chunk[1].rnn, rd.leaky_integrator(TARGET).astype(dtype)
    sizes = sizes_of(rnns, target)
    size, found = sizes[0] or 16, kernel.find(np.dtype(dtype), units, 1)
    inverted = found.inverted if found else units <= projected.MOST_INVERTED
    doublings = int(doublings_of(rnns, target, size))
    steps = jnp.asarray(peers_jax.ENGINE_STEPS, jnp.int32)
    calls: dict[str, Call] = {"engine": lambda: peers_jax.advance(*chunk, steps).rnn.W}
    calls |= products(units, size, count, dtype)
    timed = harness.interleaved(calls, chosen.repeats, chosen.least_seconds)
    engine = timed.pop("engine") / (count * peers_jax.ENGINE_STEPS) * 1e6
    times = counts(size, doublings, inverted)
    parts = {k: seconds * times[k] / (count * LOOPED) * 1e6 for k, seconds in timed.items()}
    gemm = sum(parts[name] for name in GEMMS)
    gemv = sum(part for name, part in parts.items() if name not in GEMMS)
    fraction = (gemm + gemv) / engine
    middle = float(np.median(fraction))
    return {
        "variant": "engine",
        "units": units,
        "weight_scale": scale,
        "trained": False,
        "dtype": dtype,
        "members": count,
        "kernel": found is not None,
        "sizes": "-".join(map(str, sizes)),
        "doublings": doublings,
        "engine_us": float(np.median(engine)),
        "gemm_us": float(np.median(gemm)),
        "gemv_us": float(np.median(gemv)),
        "fraction": middle,
        **{f"fraction_{k}": v for k, v in harness.summary(fraction).items() if k != "median"},
        **{f"{k}_part_us": float(np.median(part)) for k, part in parts.items()},
        "bar": BAR if units >= LEAST_UNITS else None,
        "met": bool(middle >= BAR) if units >= LEAST_UNITS else None,
        "repeats": chosen.repeats,
    }


def main() -> None:
    """Measure, write `ceiling_<platform>.jsonl` and say whether the bar is met."""
    options = harness.parser(__doc__ or "")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--units", type=int, nargs="+", default=[64, 128, 256])
    dtypes = ("float64", "float32")
    options.add_argument("--dtypes", nargs="+", choices=dtypes, default=["float64"])
    options.add_argument("--no-variants", action="store_true", help="leave the attempts out")
    options.add_argument("--quick", action="store_true", help="64 units, 3 turns")
    chosen = options.parse_args()
    chosen.dtype = chosen.dtypes[0]  # of the attempts
    chosen.variant_units, chosen.least_seconds = [32, 64, 128], 0.05
    if chosen.quick:
        chosen.units, chosen.variant_units, chosen.repeats = [64], [64], 3
        chosen.least_seconds = 0.02
    jax.config.update("jax_enable_x64", True)
    rows = []
    for units in chosen.units:
        every = [(scale, dtype) for dtype in chosen.dtypes for scale in WEIGHT_SCALES]
        for scale, dtype in every:
            rows.append(measure(units, scale, dtype, chosen))
            harness.keep("ceiling", rows, chosen.out)
        print(f"{units} units: done", flush=True)
    variants = [] if chosen.no_variants else ceiling_variants.measure(chosen)
    keys = dict.fromkeys(key for row in [*rows, *variants] for key in row)
    filled = [{key: row.get(key) for key in keys} for row in [*rows, *variants]]
    harness.write("ceiling", filled, chosen.out)
    for row in (row for row in rows if row["bar"] is not None):
        spread = f"{row['fraction_least']:.0%} to {row['fraction_largest']:.0%}"
        verdict = "met" if row["met"] else "NOT met"
        print(
            f"{row['units']} units, {row['dtype']}, weight scale {row['weight_scale']}: products "
            f"take {row['fraction']:.0%} of the engine's time "
            f"({spread}), bar {BAR:.0%}: {verdict}"
        )
    if variants:
        ceiling_variants.tell(variants)


if __name__ == "__main__":
    main()
