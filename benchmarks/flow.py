"""Gradient flows towards long memories: gradients and time of the default method beside those of
the explicit pair alone.

A network of 6 units (weight scale 0.1, |u| = |v| = 0.3) learns a leaky integrator until τ = 40.
`gradients` counts evaluations of the gradient, `error` is the distance of the last parameters from
those at rtol 1e-11, relative to their norm. A ratio is the pair's over ours: at a decay of 0.2 at
least 4, at 0.05 at least 40. At 0.02 and 0.01 the pair would take millions of gradients: it is left
out.

Rows of kind "batch" say what members of unlike stiffness cost each other: 8 of decay 0.2, 8 of
0.05, and both as one batch of 16, beside the time of the two batches apart.

    python benchmarks/flow.py [--repeats 3] [--quick]
"""

import argparse
from functools import partial
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np

import rnn_dynamics as rd

NUM_UNITS, WEIGHT_SCALE, LENGTH, END = 6, 0.1, 0.3, 40.0
METHODS = {"AUTO": rd.ode.AUTO, "TSIT5": rd.ode.TSIT5}
PAIR = "TSIT5"
BARS = {0.2: 4.0, 0.05: 40.0}
ALONE = (0.02, 0.01)  # decays that the pair is not tried at
RTOLS = (1e-3, 1e-5, 1e-8)
SHORT = 10_000  # gradients of the pair
EXACT = 1e-11
MIXED, HALF = (0.2, 0.05), 8


def networks(count: int) -> rd.LinearRNN:
    """Random networks of given lengths of u and v, a batch."""

    def one(key: jax.Array) -> rd.LinearRNN:
        rnn = rd.random_rnn(key, NUM_UNITS, WEIGHT_SCALE)
        u, v = (LENGTH * x / jnp.linalg.norm(x) for x in (rnn.u, rnn.v))
        return rd.LinearRNN(rnn.W, u, v)

    return jax.vmap(one)(jax.random.split(jax.random.key(0), count))


@partial(jax.jit, static_argnames=("rtol", "method"))
def flow(rnns: rd.LinearRNN, decays: jax.Array, rtol: float, method: str) -> Any:
    """The last networks of a batch, and their numbers of gradients."""

    def one(rnn: rd.LinearRNN, decay: jax.Array) -> Any:
        target, times = rd.leaky_integrator(decay), jnp.array([0.0, END])
        options = {"rtol": rtol, "atol": rtol / 100, "method": METHODS[method]}
        got = rd.gradient_flow(rnn, target, times, **options, max_steps=10_000_000)
        return got.rnn, got.num_gradients[-1]

    return jax.vmap(one)(rnns, decays)


def numbers(rnns: rd.LinearRNN) -> np.ndarray:
    """All parameters of a batch as one vector."""
    return np.concatenate([np.ravel(x) for x in (rnns.W, rnns.u, rnns.v)])


def alone(decay: float, rtols: tuple[float, ...], repeats: int) -> list[dict[str, Any]]:
    """Rows of one network and decay."""
    rnns, decays = networks(1), jnp.array([decay])
    exact = numbers(flow(rnns, decays, EXACT, "AUTO")[0])
    methods = [name for name in METHODS if name != PAIR or decay not in ALONE]
    rows = []
    for rtol in rtols:
        calls = {name: partial(flow, rnns, decays, rtol, name) for name in methods}
        found = {name: call() for name, call in calls.items()}
        # what takes milliseconds has more and shorter turns: neighbours on the machine spoil few of
        # them
        short = decay not in ALONE and found[PAIR][1][0] < SHORT
        turns, least_seconds = (5 * repeats, 0.1) if short else (repeats, 0.5)
        timed = harness.interleaved(calls, turns, least_seconds=least_seconds)
        counts = {name: int(got[1][0]) for name, got in found.items()}
        for name in methods:
            error = np.linalg.norm(numbers(found[name][0]) - exact) / np.linalg.norm(exact)
            ratio = counts[PAIR] / counts[name] if PAIR in methods else None
            bar = BARS.get(decay) if name == "AUTO" else None
            faster = timed[PAIR] / timed[name] if PAIR in methods else None
            rows.append(
                _row("alone", 1, decay, rtol, name, timed[name])
                | {"gradients": counts[name], "error": float(error), "ratio": ratio}
                | _ratio("time_ratio", faster)
                | {"bar": bar, "met": None if bar is None or ratio is None else ratio >= bar}
            )
    return rows


def together(rtol: float, repeats: int) -> list[dict[str, Any]]:
    """Rows of batches of like and of unlike members."""
    rnns = networks(2 * HALF)
    halves = [jax.tree.map(lambda x: x[:HALF], rnns), jax.tree.map(lambda x: x[HALF:], rnns)]
    full = [jnp.full(HALF, decay) for decay in MIXED]
    pairs = zip(MIXED, halves, full, strict=True)
    calls = {str(decay): partial(flow, half, own, rtol, "AUTO") for decay, half, own in pairs}
    calls["both"] = partial(flow, rnns, jnp.concatenate(full), rtol, "AUTO")
    for call in calls.values():  # compiles
        call()
    timed = harness.interleaved(calls, repeats, least_seconds=0.5)
    apart = sum(timed[str(decay)] for decay in MIXED)
    rows = []
    for name, call in calls.items():
        both = name == "both"
        row = _row(
            "batch",
            2 * HALF if both else HALF,
            None if both else float(name),
            rtol,
            "AUTO",
            timed[name],
        )
        row |= {"gradients": int(call()[1].sum()), "error": None, "ratio": None}
        row |= _ratio("time_ratio", timed["both"] / apart if both else None)
        rows.append(row | {"bar": None, "met": None})
    return rows


def _ratio(name: str, ratios: np.ndarray | None) -> dict[str, float | None]:
    """Median, least and largest of ratios, if there are any."""
    if ratios is None:
        return dict.fromkeys((name, f"{name}_least", f"{name}_largest"))
    found = harness.summary(ratios)
    return {
        name: found["median"],
        f"{name}_least": found["least"],
        f"{name}_largest": found["largest"],
    }


def _row(
    kind: str, members: int, decay: float | None, rtol: float, method: str, seconds: np.ndarray
) -> dict[str, Any]:
    times = {f"seconds_{k}": v for k, v in harness.summary(seconds).items()}
    row = {"kind": kind, "members": members, "decay": decay, "rtol": rtol, "method": method}
    return row | times | {"repeats": len(seconds)}


def main() -> None:
    """Measure and write `flow_<platform>.jsonl`."""
    options = harness.parser(__doc__ or "")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.set_defaults(repeats=3)
    options.add_argument("--quick", action="store_true", help="one tolerance, one turn")
    chosen = options.parse_args()
    jax.config.update("jax_enable_x64", True)
    rtols, repeats = ((1e-3,), 1) if chosen.quick else (RTOLS, chosen.repeats)
    rows = []
    for decay in (*BARS, *ALONE):
        rows += alone(decay, rtols, repeats)
        print(f"decay {decay}: done", flush=True)
    rows += together(1e-5, repeats)
    harness.write("flow", rows, chosen.out)
    for row in (row for row in rows if row["bar"] is not None):
        verdict = "met" if row["met"] else "NOT met"
        print(
            f"decay {row['decay']}, rtol {row['rtol']:.0e}: {row['ratio']:.1f} times fewer "
            "gradients, "
            f"{row['time_ratio']:.1f} times faster; bar {row['bar']:g}: {verdict}"
        )


if __name__ == "__main__":
    main()
