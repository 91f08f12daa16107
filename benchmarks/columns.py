"""Accuracy of the gradient: its true error on a grid of networks, and the error that it reports on
random ones.

grid    every number of units, weight scale, decay, target (integrator, oscillator of frequency 1)
        at the start and after training by the engine itself: relative error of `value_and_grad`
        against SciPy's Lyapunov solver, of all parameters together and of W alone, the largest over
        decays; networks that are unstable by their eigenvalues are counted and left out. Where the
        loss is so small that SciPy's gradient has cancelled, against one in 60 digits:
        `error_of_scipy` is the distance of SciPy's own from it
random  members of random weight scale, decay, target and training: the error reported by `estimate`
        against the distance from the doubling gradient, by the size that was used (0 is doubling,
        its own reference); what `gradient_and_error` reports is four times this distance, and so
        large enough by construction

Training is by normalised gradient steps, which grow by a tenth as long as the loss falls, and are
halved and taken back otherwise.

Without the kernel, as by RNN_DYNAMICS_NATIVE=0, results have names of their own: what other
accelerators do, and a GPU near a solution.

    python benchmarks/columns.py [--seeds 4] [--members 1000] [--units 2 3 16 33 64 128] [--quick]
"""

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import harness
import jax
import jax.numpy as jnp
import numpy as np
from references import by_scipy, in_digits

import rnn_dynamics as rd
from rnn_dynamics.learning.learner import where
from rnn_dynamics.loss import ANEW
from rnn_dynamics.loss.gramian import doubling
from rnn_dynamics.loss.krylov import dispatch, kernel
from rnn_dynamics.sweep.engine.compiling import Program

LOSS = rd.PopulationLoss()
WEIGHT_SCALES, DECAYS, FREQUENCY = (0.0, 0.1, 0.5, 0.9), (1.0, 0.1, 0.01), 1.0
GRID_STEPS = (0, 300)
STEPS = (0, 20, 200, 400)
WIDTH, WIDTH_ON_ACCELERATORS = 12, 128  # networks of one call
FIRST_LENGTH = 0.02
# Units of random members: how often each is drawn, of 100.
UNITS = {64: 82, 40: 12, 128: 6}
TARGETS = ("integrator", "oscillator")
# SciPy's gradients have errors of about 1e-14 / sqrt(loss); one in digits takes three seconds for
# 128 units.
SMALL_LOSS = 1e-10


class Case(NamedTuple):
    """One network and what trains it."""

    units: int
    weight_scale: float
    decay: float
    target: str
    steps: int
    seed: int


class Found(NamedTuple):
    """A trained network, its target, and the engine's loss, gradient, reported error and
    attempt.
    """

    rnn: rd.LinearRNN
    target: rd.LinearRNN
    value: jax.Array
    gradient: rd.LinearRNN
    reported: jax.Array
    attempt: jax.Array


def make(case: Case) -> tuple[rd.LinearRNN, rd.LinearRNN]:
    """Network and target of a case, on the host."""
    draw = np.random.default_rng(case.seed)
    N = case.units
    parts = draw.normal(size=(N, N)) * case.weight_scale, draw.normal(size=N), draw.normal(size=N)
    rnn = rd.LinearRNN(*(part / np.sqrt(N) for part in parts))
    s, w = 1 - case.decay, FREQUENCY
    if case.target == "integrator":
        W, ends = [[s]], [1.0]
    else:
        W, ends = [[s, w], [-w, s]], [1.0, 0.0]
    return rnn, rd.LinearRNN(*(np.array(x) for x in (W, ends, ends)))


@Program
def train(rnns: rd.LinearRNN, targets: rd.LinearRNN, steps: jax.Array) -> Found:
    """Train each of a batch by its own number of gradient steps, and take the engine's gradient."""

    def one(rnn: rd.LinearRNN, target: rd.LinearRNN, own: jax.Array) -> Found:
        def step(index: jax.Array, carry: Any) -> Any:
            kept, (value, gradient, _, _), length = carry
            share = length / jnp.maximum(doubling.norm(gradient), 1e-30)
            moved = jax.tree.map(lambda x, g: x - share * g, kept, gradient)
            new = LOSS.estimate(moved, target)
            found = (new.value, new.gradient, new.gradient_error, new.attempt)
            better = (found[0] < value) & (index <= own)  # never of an unstable one
            picked = where(better, (moved, found), carry[:2])
            return (*picked, length * jnp.where(better, 1.1, 0.5))

        zeros = jax.tree.map(jnp.zeros_like, rnn)
        nothing = jnp.asarray(jnp.inf), zeros, jnp.zeros(()), jnp.int32(ANEW)
        start = (rnn, nothing, jnp.asarray(FIRST_LENGTH))
        rnn, found, _ = jax.lax.fori_loop(0, jnp.max(steps) + 1, step, start)
        # learning takes gradients as they are, `evaluate` refines those that have cancelled
        best = LOSS.evaluate(rnn, target)
        return Found(rnn, target, best.value, best.gradient, best.gradient_error, found[3])

    return jax.vmap(one)(rnns, targets, steps)


@Program
def dissect(found: Found) -> tuple[rd.LinearRNN, jax.Array]:
    """The gradients of a batch by doubling, and the sizes that the engine used."""

    def one(found: Found) -> Any:
        sizes = jnp.asarray([*dispatch.sizes(found.rnn, found.target), 0], jnp.int32)
        return doubling.gradient(found.rnn, found.target)[1], sizes[found.attempt]

    return jax.vmap(one)(found)


def batches(cases: Iterable[Case], dissected: bool = False) -> Iterator[tuple[Any, ...]]:
    """Trained networks, a full batch at a time, on the host, and what is found by `dissect`;
    compiled side by side.
    """
    groups: dict[Any, list[Case]] = {}
    for case in cases:
        groups.setdefault((case.units, case.target), []).append(case)

    width = WIDTH if jax.default_backend() == "cpu" else WIDTH_ON_ACCELERATORS

    def work(group: list[Case]) -> list[tuple[Any, ...]]:
        # a batch waits for its longest training and its largest size
        group = sorted(group, key=lambda case: (case.steps, case.weight_scale))
        done = []
        for low in range(0, len(group), width):
            some = group[low : low + width]
            padded = [some[i % len(some)] for i in range(width)]
            made = zip(*map(make, padded), strict=True)
            rnns, targets = (jax.tree.map(lambda *x: np.stack(x), *part) for part in made)
            found = train(rnns, targets, np.array([case.steps for case in padded]))
            more = dissect(found) if dissected else None
            done.append((some, jax.device_get(found), jax.device_get(more)))
        return done

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        longest_first = sorted(groups.values(), key=lambda group: -group[0].units)
        for done in pool.map(work, longest_first):
            yield from done


def distance(found: Any, exact: Any) -> float:
    """Norm of the difference of some parameters over the norm of the latter."""
    gaps = [np.asarray(a, float) - b for a, b in zip(found, exact, strict=True)]
    squares = [sum(np.sum(np.square(part)) for part in parts) for parts in (gaps, exact)]
    return float(np.sqrt(squares[0] / squares[1]))


def grid(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the grid."""
    cases = [
        Case(units, scale, decay, target, steps, seed + 1000 * turn)
        for units in chosen.units
        for target in TARGETS
        for steps in chosen.grid_steps
        for turn in range(chosen.seeds)
        for seed, (scale, decay) in enumerate((s, c) for s in WEIGHT_SCALES for c in DECAYS)
    ]
    rows: dict[Any, dict[str, Any]] = {}
    for some, found, _ in batches(cases):
        for index, case in enumerate(some):
            one = jax.tree.map(lambda x, i=index: x[i], found)
            exact = by_scipy(one.rnn, one.target)
            key = (case.target, case.units, case.weight_scale, case.steps)
            row = rows.setdefault(
                key,
                {
                    **dict(zip(("target", "units", "weight_scale", "steps"), key, strict=True)),
                    "dtype": "float64",
                    "networks": 0,
                    "unstable": 0,
                    "unstable_found": 0,
                    "loss": np.inf,
                    "error": 0.0,
                    "error_W": 0.0,
                    "error_of_scipy": None,
                    "at_decay": None,
                    "at_loss": None,
                    "reported": 0.0,
                },
            )
            row["networks"] += 1
            if exact is None:
                row["unstable"] += 1
                row["unstable_found"] += int(not np.isfinite(one.value))
                continue
            parts = (one.gradient.W, one.gradient.u, one.gradient.v)
            if one.value < SMALL_LOSS:
                scipys, exact = exact, in_digits(one.rnn, one.target)
                row["error_of_scipy"] = max(row["error_of_scipy"] or 0.0, distance(scipys, exact))
            error = distance(parts, exact)
            error_W = distance(parts[:1], exact[:1])
            if not error <= row["error"]:  # NaN is the worst
                at = {"at_decay": case.decay, "at_loss": float(one.value)}
                row |= {"error": error, **at, "reported": float(one.reported)}
            row["error_W"] = max(row["error_W"], error_W)
            row["loss"] = min(row["loss"], float(one.value))
    return list(rows.values())


def random_cases(count: int, shares: dict[int, int]) -> list[Case]:
    """Members drawn at random; the same for the same count."""
    draw = np.random.default_rng(7)
    units = draw.choice(list(shares), p=np.array(list(shares.values())) / 100, size=count)
    return [
        Case(
            int(units[index]),
            float(draw.uniform(0, 0.9)),
            float(np.exp(draw.uniform(np.log(0.01), np.log(0.5)))),
            str(draw.choice(TARGETS)),
            int(draw.choice(STEPS)),
            1000 + index,
        )
        for index in range(count)
    ]


def random_rows(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows of the random members: one of each number of units and size, and one of all that had
    columns.
    """
    seen: dict[tuple[int, int], list[tuple[float, float]]] = {}
    unstable: dict[int, int] = {}
    cases = random_cases(chosen.members, chosen.random_units)
    for some, found, (exact, used) in batches(cases, dissected=True):
        for index, case in enumerate(some):
            if not np.isfinite(found.value[index]):
                unstable[case.units] = unstable.get(case.units, 0) + 1
                continue
            pair = [(g.W[index], g.u[index], g.v[index]) for g in (found.gradient, exact)]
            errors = distance(*pair), float(found.reported[index])
            seen.setdefault((case.units, int(used[index])), []).append(errors)
    every = [errors for (_, size), group in seen.items() if size for errors in group]
    groups = [(*key, errors) for key, errors in sorted(seen.items())]
    rows = []
    for units, size, errors in [*groups, ("all", "columns", every)]:
        true, reported = np.array(errors).reshape(-1, 2).T
        rows.append(
            {
                "units": units,
                "size": size,
                "dtype": "float64",
                "members": len(true),
                "share": len(true) / sum(map(len, seen.values())),
                "unstable": unstable.get(units, 0) if units != "all" else sum(unstable.values()),
                "reported_enough": float(np.mean(reported >= true)) if len(true) else None,
                "true_largest": float(np.max(true, initial=0.0)),
                "true_median": float(np.median(true)) if len(true) else None,
                "reported_largest": float(np.max(reported, initial=0.0)),
                "too_small_by": float(np.max(true / reported, initial=0.0)),
            }
        )
    return rows


def main() -> None:
    """Measure, write `columns_grid_<platform>.jsonl` and `columns_random_<platform>.jsonl`
    (`…_jax_<platform>.jsonl`), and say what was found.
    """
    options = harness.parser(__doc__ or "")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--members", type=int, default=1000, help="random ones")
    options.add_argument("--seeds", type=int, default=4, help="networks of each kind and decay")
    options.add_argument("--units", type=int, nargs="+", default=[2, 3, 16, 33, 64, 128])
    options.add_argument("--quick", action="store_true", help="3 and 64 units, 96 members")
    chosen = options.parse_args()
    chosen.grid_steps, chosen.random_units = GRID_STEPS, UNITS
    if chosen.quick:
        chosen.units, chosen.members, chosen.seeds, chosen.grid_steps = [3, 64], 96, 1, (0, 50)
        chosen.random_units = {64: 100}
    jax.config.update("jax_enable_x64", True)
    began = time.perf_counter()
    rows = grid(chosen)
    print(f"grid: {time.perf_counter() - began:.0f} s", flush=True)
    drawn = random_rows(chosen)
    way = "" if kernel.is_there(np.dtype("float64")) else "_jax"
    harness.write(f"columns_grid{way}", rows, chosen.out)
    harness.write(f"columns_random{way}", drawn, chosen.out)
    worst = max(rows, key=lambda row: row["error"])
    count, lost = (sum(row[key] for row in rows) for key in ("networks", "unstable"))
    print(
        f"grid: {count} networks, {lost} unstable left out; largest error {worst['error']:.2g} "
        f"({worst['target']}, {worst['units']} units, weight scale {worst['weight_scale']})"
    )
    if drawn[-1]["members"]:
        print(
            f"random: {drawn[-1]['members']} of {chosen.members} by columns; reported error at "
            f"least the true one in {drawn[-1]['reported_enough']:.2%}"
        )
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
