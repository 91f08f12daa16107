"""What a user would write instead: cost per member and step of gradient descent, beside the engine
as a sweep runs it.

Random networks of weight scale 0.5 learn a leaky integrator of decay 0.2 by plain gradient descent
on W, u and v. All peers take turns in one process; a `ratio` is to the engine in float64 in the
same turn, `ratio_like` to the engine in the peer's own precision. A peer is written as its best
users would write it, in the precision that they would choose: float32 for backpropagation through
time, float64 elsewhere. A loop over networks is timed on four of them, being linear in their
number, and batches of backpropagation and of diffrax on at most 64 (32 of 128 units; on
accelerators 1,024 of 64 units): `timed_members`.

`error` is the gradient's relative error against SciPy's Lyapunov solver at the start, the largest
of three members; of a peer that samples noise it is that of one minibatch, and `error_of_mean` what
remains of it in expectation: Euler steps and a finite horizon. `compile_s` is what the first call
took beyond a later one, 0 for eager code; a program that another number of members has compiled
already keeps its value. BLAS has one thread, as in the engine's command line, and torch one or as
many as there are cores, whichever is faster: `threads`.

    python benchmarks/peers.py [--units 32 64 128] [--members 1 16 64 256] [--repeats 5] [--devices
    2] [--jax-only] [--quick]
"""

import argparse
import importlib.util
import os
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import harness
import jax
import numpy as np
import peers_jax
from peers_problem import (
    NUM_STEPS,
    NUM_TRIALS,
    TARGET,
    TIME_STEP,
    Networks,
    Peer,
    exact_gradients,
    first,
    largest_error,
    scipy_loop,
)

import rnn_dynamics as rd

# Units, all members' together, of a batch with a history in time: beyond, a user cuts it into
# pieces. On accelerators, what keeps one busy.
MOST_MEMBERS, MOST_UNITS, MOST_UNITS_ELSEWHERE = 64, 4096, 2**16
BARS = {"a": 1000, "c": 100, "d": 30, "e": 100, "f": 10, "g": 3}  # times the engine's cost
# seconds at least: what the peer before has left in caches and spinning threads should not count
TURN = 0.3
BARS_AT = {"units": 64, "members": 64}
# largest relative error of the gradient; a horizon and a solver's tolerance are chosen, the rest is
# exact
LARGEST_ERRORS = {"float32": 1e-4, "d": 1e-4}
EXACT = 1e-6

compiled: dict[Any, float] = {}


def peers_of(networks: Networks, jax_only: bool) -> dict[str, Peer]:
    """The engine and its peers by letter."""
    on_cpu, units = jax.default_backend() == "cpu", networks[1].shape[1]
    most = min(MOST_MEMBERS, MOST_UNITS // units) if on_cpu else MOST_UNITS_ELSEWHERE // units
    found = {
        "float64": peers_jax.engine(networks, "float64"),
        "float32": peers_jax.engine(networks, "float32"),
        "c": peers_jax.backpropagation(networks, most),
        "e": scipy_loop(networks),
        "f": peers_jax.smith_loop(networks),
    }
    if not jax_only:
        import peers_diffrax
        import peers_torch
        import torch

        on_gpu = jax.default_backend() == "gpu" and torch.cuda.is_available()
        device = "cuda" if on_gpu else "cpu"
        found |= {
            "a": peers_torch.backpropagation_loop(networks, device),
            "b": peers_torch.backpropagation_vmap(networks, device, most),
            "d": peers_diffrax.impulse_response(networks, most),
            "g": peers_torch.columns_batched(networks, device),
        }
    return found


def mean_error(networks: Networks, exact: Networks) -> float:
    """Relative error of the expectation of backpropagation's gradient."""
    loss = rd.SampledLoss(NUM_STEPS * TIME_STEP, TIME_STEP, NUM_TRIALS).expected
    target = rd.leaky_integrator(TARGET)
    rnns = jax.vmap(rd.LinearRNN)(*first(networks, len(exact[0])))
    found = jax.jit(jax.vmap(lambda rnn: loss.value_and_grad(rnn, target)[1]))(rnns)
    return largest_error(peers_jax.numpy((found.W, found.u, found.v)), exact)


def measure(units: int, members: int, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of all peers at one size."""
    networks = peers_jax.random_networks(units, members)
    exact = exact_gradients(first(networks, 3))
    peers = peers_of(networks, chosen.jax_only)
    firsts = {letter: harness.first_call(peer.call) for letter, peer in peers.items()}
    timed = harness.interleaved({k: p.call for k, p in peers.items()}, chosen.repeats, TURN)
    each = {k: timed[k] / (p.steps * p.timed_members) for k, p in peers.items()}
    expected = mean_error(networks, exact)
    rows = []
    for letter, peer in sorted(peers.items(), key=lambda item: (len(item[0]) == 1, item[0])):
        error = largest_error(peer.gradient(), exact)
        if peer.noise == "none":
            most = LARGEST_ERRORS.get(letter, EXACT)
            assert error <= most, f"{peer.name}: gradient error {error:.2g} above {most:g}"
        compiling = 0.0
        if peer.program is not None:
            beyond = max(0.0, firsts[letter] - float(np.median(timed[letter])))
            compiling = compiled.setdefault(peer.program, beyond)
        ratios, like = each[letter] / each["float64"], each[letter] / each[peer.dtype]
        bar = BARS.get(letter) if {"units": units, "members": members} == BARS_AT else None
        rows.append(
            {
                "peer": peer.name if len(letter) > 1 else f"({letter}) {peer.name}",
                "units": units,
                "members": members,
                "timed_members": peer.timed_members,
                "dtype": peer.dtype,
                **_named("us_per_member_step", harness.summary(each[letter], 1e6)),
                **_named("ratio", harness.summary(ratios)),
                **_named("ratio_like", harness.summary(like)),
                "compile_s": compiling,
                "error": error,
                "error_of_mean": error if peer.noise == "none" else expected,
                "noise": peer.noise,
                "bar": bar,
                "met": None if bar is None else bool(np.median(ratios) >= bar),
                "repeats": chosen.repeats,
                "devices": peer.devices,
                "threads": peer.threads,
            }
        )
        print(f"{units} units, {members} members, {_short(rows[-1])}", flush=True)
    return rows


def _named(prefix: str, numbers: dict[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in numbers.items()}


def _short(row: dict[str, Any]) -> str:
    spread = f"{row['ratio_least']:.3g} to {row['ratio_largest']:.3g}"
    cost = f"{row['us_per_member_step_median']:.3g} us"
    like = (
        f"; {row['ratio_like_median']:.3g} in {row['dtype']}" if row["dtype"] != "float64" else ""
    )
    return f"{row['peer']}: {cost}, {row['ratio_median']:.3g} times the engine ({spread}){like}"


def options() -> argparse.Namespace:
    """What is asked for.

    Raises:
        SystemExit: if a peer's package is missing.
    """
    parser = harness.parser(__doc__ or "")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--units", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--members", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--devices", type=int, help="simulated devices of a CPU, for the engine")
    parser.add_argument("--jax-only", action="store_true", help="leave torch and diffrax out")
    parser.add_argument("--quick", action="store_true", help="32 units, 16 members, 2 repeats")
    parser.set_defaults(repeats=5)
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.units, chosen.members, chosen.repeats = [32], [16], 2
    missing = [name for name in ("torch", "diffrax") if importlib.util.find_spec(name) is None]
    if missing and not chosen.jax_only:
        parser.exit(
            2,
            f"The peers need {' and '.join(missing)}: pip install '.[bench]', or leave them out "
            "by --jax-only.\n",
        )
    return chosen


def main() -> None:
    """Measure all sizes and write `peers_<platform>.jsonl`."""
    chosen = options()
    jax.config.update("jax_enable_x64", True)
    if chosen.devices is not None:
        jax.config.update("jax_num_cpu_devices", chosen.devices)
    rows = []
    for units in chosen.units:
        for members in chosen.members:
            rows += measure(units, members, chosen)
            harness.keep("peers", rows, chosen.out)
    harness.write("peers", rows, chosen.out)
    if chosen.jax_only:
        print("without torch and diffrax: (a), (b), (d) and (g) are left out, by --jax-only")
    for row in rows:
        if row["bar"] is not None:
            verdict = "met" if row["met"] else "NOT met"
            print(f"64 units, 64 members, {_short(row)}; bar {row['bar']}: {verdict}")


if __name__ == "__main__":
    main()
