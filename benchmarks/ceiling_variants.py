"""Attempts to get below the engine's products, for ceiling.py: each with its time and its error,
also where it gives nothing.

All are in JAX, beside what the engine does by JAX alone. The one that gave most, a fused kernel,
became the engine on CPUs.

one pass    W x and z W by reading W once: stacked operands of one dot_general, a fused multiply and
            reduce, blocks of rows in a scan
recycling   the projected gradient in the bases that the step before had: as they are, or refreshed
            by one block product
Laguerre    columns D^j B u at a shift p as they are, without bases, with B = (pI + A)⁻¹ from the
            engine's elimination
bases of W  those that the engine has for networks too large to be inverted
complex pair  bases with poles at an oscillator's instead of a real one, beside those of a real one
              of the same size
"""

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import ceiling_pairs
import harness
import jax
import jax.numpy as jnp
import numpy as np
from ceiling_bases import in_bases
from ceiling_laguerre import laguerre
from peers_problem import LEARNING_RATE, TARGET

import rnn_dynamics as rd
from rnn_dynamics.loss import ANEW
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.krylov import dispatch, projected

WEIGHT_SCALE = 0.5
BLOCK, NUM_COLUMNS = 16, (12, 16, 24)
TRAINING = 1500  # steps of gradient descent
STEPS = 10
LOOPED = 20
MEMBERS = 8

Gradient = Callable[[rd.LinearRNN], rd.LinearRNN]


# --- one pass over W


def stacked(W: jax.Array, x: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """W and its transpose, one batch of one dot_general."""
    both = jnp.einsum("kij,kj->ki", jnp.stack([W, W.T]), jnp.stack([x, z]))
    return both[0], both[1]


def fused(W: jax.Array, x: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Elementwise products and sums, for the compiler to fuse."""
    return jnp.sum(W * x, axis=1), jnp.sum(W * z[:, None], axis=0)


def blocks(W: jax.Array, x: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Blocks of rows, both products of each while it is in the first cache."""
    rows = W.reshape(-1, BLOCK, W.shape[1])

    def block(total: jax.Array, operands: Any) -> Any:
        rows, z = operands
        return total + z @ rows, rows @ x

    total, y = jax.lax.scan(block, jnp.zeros_like(x), (rows, z.reshape(-1, BLOCK)))
    return y.reshape(-1), total


PASSES = {
    "separate": lambda W, x, z: (W @ x, z @ W),
    "stacked": stacked,
    "fused": fused,
    "blocks": blocks,
}


@partial(jax.jit, static_argnames="name")
def passes(name: str, W: jax.Array, x: jax.Array) -> jax.Array:
    """LOOPED pairs of products of each member."""

    def one(W: jax.Array, x: jax.Array) -> jax.Array:
        step = lambda _, x: jnp.stack(PASSES[name](W, x[0], x[1]))  # noqa: E731
        return jax.lax.fori_loop(0, LOOPED, step, x)

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(W, x)


def one_pass(units: int, count: int, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the ways to take both products."""
    Q = np.linalg.qr(np.random.default_rng(0).normal(size=(count, units, units)))[0]
    W, x = jnp.asarray(Q, chosen.dtype), jnp.asarray(Q[:, :2], chosen.dtype)
    calls = {name: partial(passes, name, W, x) for name in PASSES}
    timed = harness.interleaved(calls, chosen.repeats, chosen.least_seconds)
    exact = calls["separate"]()
    rows = []
    for name, seconds in timed.items():
        gap = float(jnp.linalg.norm(calls[name]() - exact) / jnp.linalg.norm(exact))
        ratio, us = seconds / timed["separate"], seconds / (count * LOOPED) * 1e6
        rows.append(_row(f"one pass: {name}", units, False, chosen.dtype, us, ratio, gap))
    return rows


# --- bases of the step before


def bases_of(rnn: rd.LinearRNN, size: int) -> jax.Array:
    """The engine's bases, (2, m, N)."""
    return projected.krylov_bases(rnn, size - 1, projected.probe(rnn).B).vectors[:, :-1]


def recycled(rnn: rd.LinearRNN, before: rd.LinearRNN, size: int, refresh: bool) -> rd.LinearRNN:
    """The gradient in the bases of the network before, of one product more if refreshed."""
    bases = bases_of(before, size)
    if refresh:
        products = jnp.stack([bases[0] @ rnn.W.T, bases[1] @ rnn.W])[:, :-1]
        spans = jnp.concatenate([jnp.stack([rnn.u, rnn.v])[:, None], products], axis=1)
        bases = jnp.swapaxes(jnp.linalg.qr(jnp.swapaxes(spans, 1, 2))[0], 1, 2)
    return in_bases(rnn, *bases, rd.leaky_integrator(TARGET))


@jax.jit
def given(rnns: rd.LinearRNN, bases: jax.Array) -> rd.LinearRNN:
    """The gradients of a batch in given bases."""
    target = rd.leaky_integrator(TARGET)
    return jax.vmap(lambda rnn, both: in_bases(rnn, *both, target))(rnns, bases)


def fresh(rnn: rd.LinearRNN, size: int) -> rd.LinearRNN:
    """The gradient in bases of its own, as the engine has it at one size."""
    target = rd.leaky_integrator(TARGET).astype(rnn.dtype)
    return projected.projected_gradient(rnn, target, size, projected.probe(rnn)).gradient


FRESH: dict[int, Gradient] = {}  # a program for each size


def recycling(
    units: int, trained: bool, rnns: rd.LinearRNN, chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of recycled bases; a time is of the gradient in given bases alone, without their
    refreshment.
    """
    size, count = dispatch.fewer_sizes(_first(rnns), rd.leaky_integrator(TARGET))[-1], len(rnns.u)
    after = descend(rnns, reference, jnp.int32(1))
    exact = gradients(after, reference)
    bases = jax.jit(jax.vmap(partial(bases_of, size=size)))(rnns)
    whole = partial(gradients, gradient=FRESH.setdefault(size, partial(fresh, size=size)))
    calls = {"engine": lambda: whole(after), "recycled": lambda: given(after, bases)}
    timed = harness.interleaved(calls, chosen.repeats, chosen.least_seconds)
    us, ratio = timed["recycled"] / count * 1e6, timed["recycled"] / timed["engine"]
    engine = timed["engine"] / count * 1e6
    rows = []
    for name, refresh in (("as they are", False), ("refreshed", True)):
        found = jax.jit(jax.vmap(partial(recycled, size=size, refresh=refresh)))(after, rnns)
        error = largest_error(found, exact)
        row = _row(f"recycling: {name}", units, trained, chosen.dtype, us, ratio, error)
        own = largest_error(whole(after), exact)
        row |= {"engine_us": float(np.median(engine)), "engine_error": own}
        rows.append(row | {"sizes": str(size)})
    return rows


# --- other columns


@partial(jax.jit, static_argnames="gradient")
def descend(rnns: rd.LinearRNN, gradient: Gradient, steps: jax.Array) -> rd.LinearRNN:
    """Plain gradient descent of a batch."""

    def step(_: jax.Array, rnn: rd.LinearRNN) -> rd.LinearRNN:
        return jax.tree.map(lambda x, g: x - LEARNING_RATE * g, rnn, gradient(rnn))

    with jax.default_matmul_precision("highest"):
        return jax.vmap(lambda rnn: jax.lax.fori_loop(0, steps, step, rnn))(rnns)


def engine(rnn: rd.LinearRNN) -> rd.LinearRNN:
    """The engine's gradient by JAX alone, as the attempts are made; doubling is not needed here."""
    target = rd.leaky_integrator(TARGET).astype(rnn.dtype)
    return dispatch.attempts_by_jax(rnn, target, jnp.int32(ANEW))[1].gradient


def reference(rnn: rd.LinearRNN) -> rd.LinearRNN:
    """The gradient by doubling."""
    target = rd.leaky_integrator(TARGET).astype(rnn.dtype)
    return doubling.gradient(rnn, target)[1]


def of_weights(rnn: rd.LinearRNN, size: int) -> rd.LinearRNN:
    """The gradient in Krylov bases of W."""
    target = rd.leaky_integrator(TARGET).astype(rnn.dtype)
    zero = jnp.zeros((), rnn.dtype)
    seen = projected.Probe(None, zero, jnp.ones((), bool))
    return projected.projected_gradient(rnn, target, size, seen).gradient


WAYS: dict[str, Gradient] = {f"Laguerre: {k}": partial(laguerre, count=k) for k in NUM_COLUMNS}
WAYS |= {f"bases of W: {k}": partial(of_weights, size=k) for k in (16, 24)}
WAYS["engine"] = engine


@partial(jax.jit, static_argnames="gradient")
def gradients(rnns: rd.LinearRNN, gradient: Gradient) -> rd.LinearRNN:
    """Of a batch."""
    with jax.default_matmul_precision("highest"):
        return jax.vmap(gradient)(rnns)


def largest_error(found: rd.LinearRNN, exact: rd.LinearRNN) -> float:
    """Relative error of a batch of gradients, the largest."""
    gap = jax.tree.map(jnp.subtract, found, exact)
    return float(jnp.max(jax.vmap(doubling.norm)(gap) / jax.vmap(doubling.norm)(exact)))


def shifted(
    units: int, trained: bool, rnns: rd.LinearRNN, chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of other columns, steps of descent as the engine takes them."""
    calls = {name: partial(descend, rnns, way, jnp.int32(STEPS)) for name, way in WAYS.items()}
    timed = harness.interleaved(calls, chosen.repeats, chosen.least_seconds)
    exact = gradients(rnns, reference)
    errors = {k: largest_error(gradients(rnns, way), exact) for k, way in WAYS.items()}
    scale = 1e6 / (len(rnns.u) * STEPS)
    rows = []
    for name in (name for name in WAYS if name != "engine"):
        us, ratio = timed[name] * scale, timed[name] / timed["engine"]
        row = _row(name, units, trained, chosen.dtype, us, ratio, errors[name])
        engine_us = float(np.median(timed["engine"] * scale))
        rows.append(row | {"engine_us": engine_us, "engine_error": errors["engine"]})
    return rows


def complex_pairs(
    units: int, trained: bool, rnns: rd.LinearRNN, chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """Rows of bases with a complex pair of poles, beside bases of a real one of the same size."""
    exact, rows = gradients(rnns, ceiling_pairs.exact), []
    for size in (size for size in ceiling_pairs.SIZES if size < units):
        ways = {"pair": ceiling_pairs.PAIRS[size], "real": ceiling_pairs.REALS[size]}
        calls = {name: partial(descend, rnns, way, jnp.int32(STEPS)) for name, way in ways.items()}
        timed = harness.interleaved(calls, chosen.repeats, chosen.least_seconds)
        errors = {k: largest_error(gradients(rnns, way), exact) for k, way in ways.items()}
        us, ratio = timed["pair"] * 1e6 / (len(rnns.u) * STEPS), timed["pair"] / timed["real"]
        row = _row(f"complex pair: {size}", units, trained, chosen.dtype, us, ratio, errors["pair"])
        engine_us = float(np.median(timed["real"])) * 1e6 / (len(rnns.u) * STEPS)
        rows.append(row | {"engine_us": engine_us, "engine_error": errors["real"]})
    return rows


def measure(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all variants."""
    rows = []
    for units in chosen.variant_units:
        rows += one_pass(units, MEMBERS, chosen)
        draw = np.random.default_rng(units).normal
        W = draw(size=(MEMBERS, units, units)) * WEIGHT_SCALE / np.sqrt(units)
        ends = draw(size=(2, MEMBERS, units)) / np.sqrt(units)
        start = jax.vmap(rd.LinearRNN)(*(jnp.asarray(x, chosen.dtype) for x in (W, *ends)))
        steps = jnp.int32(TRAINING // 5 if chosen.quick else TRAINING)
        for trained, rnns in ((False, start), (True, descend(start, engine, steps))):
            if dispatch.fewer_sizes(_first(rnns), rd.leaky_integrator(TARGET)):
                rows += recycling(units, trained, rnns, chosen)
            rows += shifted(units, trained, rnns, chosen)
        for trained, rnns in ((False, start), (True, descend(start, ceiling_pairs.learn, steps))):
            rows += complex_pairs(units, trained, rnns, chosen)
        print(f"variants, {units} units: done", flush=True)
    return rows


def tell(rows: list[dict[str, Any]]) -> None:
    """Print each variant's time and error in words."""
    for row in rows:
        what = "both products" if row["variant"].startswith("one pass") else "the engine"
        print(
            f"{row['variant']}, {row['units']} units, {'trained' if row['trained'] else 'start'}: "
            f"{row['ratio']:.2f} of the time of {what} ({row['ratio_least']:.2f} to "
            f"{row['ratio_largest']:.2f}), error {row['error']:.1e}"
        )


def _row(
    variant: str,
    units: int,
    trained: bool,
    dtype: str,
    us: np.ndarray,
    ratio: np.ndarray,
    error: float,
) -> dict[str, Any]:
    return {
        "variant": variant,
        "units": units,
        "weight_scale": WEIGHT_SCALE,
        "trained": trained,
        "dtype": dtype,
        "members": MEMBERS,
        "us": float(np.median(us)),
        "error": error,
        **{
            ("ratio" if k == "median" else f"ratio_{k}"): v
            for k, v in harness.summary(ratio).items()
        },
        "repeats": len(us),
    }


def _first(rnns: rd.LinearRNN) -> rd.LinearRNN:
    return jax.tree.map(lambda x: x[0], rnns)
