"""Work against precision of the ODE solvers, beside diffrax and SciPy: one outlier, a conjugate
pair, and a batch of single outliers.

    outlier   decay 0.2, from (p, q, λ) = (0.1, 0.1, 0), 41 records to τ = 20
    pair      decay 0.3, frequency 1, from (p, q, r, a, b) = (0, 0, 0, 0.3, 0.1), 81 records to τ =
              80
    batch     10,000 outliers in one jit-compiled, vmapped call: decays 0.1 to 0.5, gains 0.01 to
              0.3, records of `outlier`

All solvers have the same vector field, compiled by JAX, the same records, and atol = rtol/100 in
float64; rtol means local error per step to all. diffrax takes its fastest forward form (no events,
nothing thrown, records interpolated, as ours are within steps of Tsit5) with its default controller
and a PI controller; SciPy calls the field from Python. SciPy's loop over a batch is timed on a few
members, being linear in their number, and so is its error; diffrax's implicit methods on 100, being
by far the slowest. JAX runs one call at a time here, so that handing over to its threads is not
timed. A candidate that takes more than half a second and `--patience` times as long as the fastest
of its package has one turn only, as has SciPy's loop; one that takes more than half a minute is
left out at tighter rtol.

`error` is the root mean square over members of the largest error at any record; `evaluations` are
those of a member, on average, Jacobians not counted (None where iterations are hidden). A `ratio`
is a solver's time over that of the fastest of ours at equal error: the one which ours has at this
rtol, times interpolated along each solver's line over all rtol, in log and log, turn by turn;
beyond a line's ends, its time there. At 1e-11, where there is no bar, lines go on, for ours is the
smaller error at one rtol. The bars: the fastest of diffrax takes as long at least in every problem,
and twice as long in the batch. `compile_s` is what the first call took beyond a later one; rtol is
an argument of the compiled program.

    python benchmarks/ode.py [--problems outlier pair batch] [--members 10000] [--repeats 9]
    [--quick]
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import diffrax
import harness
import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
from ode_problems import Problem, few_members, first_members, make_problem

from rnn_dynamics import ode

RTOLS = (1e-4, 1e-6, 1e-8, 1e-10, 1e-11)
LEAST_RTOL = 1e-10  # with a bar
BARS = {"outlier": 1.0, "pair": 1.0, "batch": 2.0}
# Seconds of a call for which three turns are enough, or tighter rtol are left out.
LONG, TOO_LONG = 1.0, 30.0
IMPLICIT_MEMBERS = 100  # in a batch, of diffrax's implicit methods
PI = {"pcoeff": 0.3, "icoeff": 0.4}


class Candidate(NamedTuple):
    """A call of rtol that is timed, and what reads from its result the records, (members, records,
    N), and evaluations per member.
    """

    call: Callable[[float], Any]
    read: Callable[[Any], tuple[np.ndarray, float | None]]
    timed_members: int


def compiled(problem: Problem, solve: Callable[..., Any], evaluations: int | None) -> Candidate:
    """A solver of one member, (rtol, y0, args) → (ys, number of evaluations or, if their count per
    step is given, of steps).
    """
    program = jax.jit(jax.vmap(solve, (None, 0, 0)) if problem.is_batch else solve)

    def read(found: Any) -> tuple[np.ndarray, float | None]:
        ys, count = (np.asarray(x) for x in found)
        each = None if evaluations is None else float(np.mean(count)) * evaluations
        return ys if problem.is_batch else ys[None], each

    members = len(problem.y0) if problem.is_batch else 1
    return Candidate(lambda rtol: program(rtol, problem.y0, problem.args), read, members)


def ours(problem: Problem, method: Any) -> Candidate:
    """A method of `rnn_dynamics.ode`."""

    def solve(rtol: jax.Array, y0: jax.Array, args: Any) -> Any:
        options = {"method": method, "rtol": rtol, "atol": rtol / 100}
        solution = ode.solve(problem.field, y0, problem.ts, args, **options)
        return solution.ys, solution.stats.num_evaluations

    return compiled(problem, solve, 1)


def by_diffrax(problem: Problem, solver: Any, **controller: Any) -> Candidate:
    """A method of diffrax."""
    explicit = isinstance(solver, diffrax.AbstractERK)
    stages = solver.tableau.num_stages - 1 if explicit else None  # the first is the last of before

    def solve(rtol: jax.Array, y0: jax.Array, args: Any) -> Any:
        solution = diffrax.diffeqsolve(
            *(diffrax.ODETerm(problem.field), solver),
            *(problem.ts[0], problem.ts[-1], None, y0, args),
            saveat=diffrax.SaveAt(ts=jnp.asarray(problem.ts)),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol / 100, **controller),
            max_steps=100_000,
            throw=False,
        )
        return solution.ys, solution.stats["num_steps"]

    return compiled(problem, solve, stages)


def by_scipy(problem: Problem, method: str) -> Candidate:
    """A method of SciPy, in a loop over a few members."""
    field = jax.jit(problem.field)
    members = few_members(problem)
    span = (problem.ts[0], problem.ts[-1])

    def call(rtol: float) -> Any:
        options = {"method": method, "rtol": rtol, "atol": rtol / 100, "t_eval": problem.ts}
        return [
            scipy.integrate.solve_ivp(
                lambda t, y, args=args: np.asarray(field(t, y, args)), span, y0, **options
            )
            for y0, args in members
        ]

    def read(found: Any) -> tuple[np.ndarray, float | None]:
        return np.stack([one.y.T for one in found]), float(np.mean([one.nfev for one in found]))

    return Candidate(call, read, len(members))


def candidates(problem: Problem, quick: bool) -> dict[str, Candidate]:
    """All solvers by name, or the fastest of them."""
    own = ("TSIT5", "RODAS5P") if quick else [n for n in sorted(ode.__all__) if n.isupper()]
    found = {f"ours {name}": ours(problem, getattr(ode, name)) for name in own}
    found["diffrax Tsit5"] = by_diffrax(problem, diffrax.Tsit5())
    found["diffrax Tsit5, PI"] = by_diffrax(problem, diffrax.Tsit5(), **PI)
    if not quick:
        found["diffrax Dopri8"] = by_diffrax(problem, diffrax.Dopri8())
        found["diffrax Dopri8, PI"] = by_diffrax(problem, diffrax.Dopri8(), **PI)
        some = first_members(problem, IMPLICIT_MEMBERS) if problem.is_batch else problem
        found["diffrax Kvaerno3"] = by_diffrax(some, diffrax.Kvaerno3())
        found["diffrax Kvaerno5"] = by_diffrax(some, diffrax.Kvaerno5())
    for method in ("LSODA",) if quick else ("RK45", "DOP853", "LSODA"):
        found[f"SciPy {method}"] = by_scipy(problem, method)
    return found


def reference(problem: Problem) -> np.ndarray:
    """(members, records, N), by diffrax with steps that end at records, checked against SciPy."""
    control = {"step_ts": jnp.asarray(problem.ts)}
    tight = by_diffrax(problem, diffrax.Dopri8(), **control)
    exact, _ = tight.read(tight.call(1e-13))
    field = jax.jit(problem.field)
    for i, (y, args) in enumerate(few_members(problem)):
        for n in range(1, len(problem.ts)):  # SciPy too would interpolate
            span, call = problem.ts[n - 1 : n + 1], lambda t, y, a=args: np.asarray(field(t, y, a))
            found = scipy.integrate.solve_ivp(call, span, y, "DOP853", rtol=1e-13, atol=1e-15)
            y = found.y[:, -1]
            assert np.max(abs(y - exact[i, n])) < 2e-11, (i, n, abs(y - exact[i, n]))
    return exact


def measure(problem: Problem, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows without ratios, with the seconds of all turns under `seconds`."""
    exact, rows, found = reference(problem), [], candidates(problem, chosen.quick)
    first = {n: harness.first_call(partial(c.call, chosen.rtols[0])) for n, c in found.items()}
    compiling: dict[str, float] = {}
    for rtol in chosen.rtols:
        calls = {name: partial(one.call, rtol) for name, one in found.items()}
        again, results = {}, {}
        for name, call in calls.items():
            began = time.perf_counter()
            results[name] = jax.block_until_ready(call())
            again[name] = time.perf_counter() - began
        compiling = compiling or {name: max(first[name] - again[name], 0.0) for name in found}
        slow = {name for name in found if name.startswith("SciPy") and problem.is_batch}
        for package in ("ours", "diffrax", "SciPy"):
            own = {name: again[name] for name in found if name.startswith(package)}
            most = max(0.5, chosen.patience * min(own.values()))
            slow |= {name for name, seconds in own.items() if seconds > most}
        fast = {name: call for name, call in calls.items() if name not in slow}
        long = max(again[name] for name in fast) > LONG
        repeats = min(chosen.repeats, 3) if long else chosen.repeats
        turns = harness.interleaved(fast, repeats, 0.1)
        for name, one in found.items():
            seconds = turns.get(name, np.array([again[name]])) / one.timed_members
            ys, evaluations = one.read(results[name])
            largest = np.max(abs(ys - exact[: len(ys)]), axis=(1, 2))
            rows.append(
                {
                    "peer": name,
                    "rtol": rtol,
                    "members": len(exact),
                    "timed_members": one.timed_members,
                    "error": float(np.sqrt(np.mean(largest**2))),
                    "evaluations": evaluations,
                    **{f"us_per_member_{k}": v for k, v in harness.summary(seconds, 1e6).items()},
                    "compile_s": compiling[name],
                    "turns": len(seconds),
                    "seconds": np.resize(seconds, chosen.repeats),
                }
            )
            print(f"  {name}, rtol {rtol:g}: {rows[-1]['us_per_member_median']:.4g} us", flush=True)
        found = {name: one for name, one in found.items() if again[name] < TOO_LONG}
    return rows


def time_at(rows: list[dict[str, Any]], peer: str, error: float) -> np.ndarray:
    """Seconds of each turn in which a solver has some error, along its line; at its ends beyond
    them.
    """
    mine = [row for row in rows if row["peer"] == peer and np.isfinite(row["error"])]
    line = sorted((row["error"], tuple(row["seconds"])) for row in mine)
    if not line:  # it failed at every rtol
        return np.full(len(rows[0]["seconds"]), np.inf)
    errors, seconds = np.log([e for e, _ in line]), np.log([s for _, s in line])
    return np.exp([np.interp(np.log(error), errors, turn) for turn in seconds.T])


def compare(rows: list[dict[str, Any]], bar: float) -> list[dict[str, Any]]:
    """The rows with ratios, bars and whether these are met."""
    peers = list(dict.fromkeys(row["peer"] for row in rows))
    own = [peer for peer in peers if peer.startswith("ours")]
    for rtol in dict.fromkeys(row["rtol"] for row in rows):
        level = [row for row in rows if row["rtol"] == rtol]
        mine = (row for row in level if row["peer"] in own)
        error = min(mine, key=lambda row: row["us_per_member_median"])["error"]
        at = {peer: time_at(rows, peer, error) for peer in peers}
        best = min((at[peer] for peer in own), key=np.median)
        fastest = min((p for p in peers if p.startswith("diffrax")), key=lambda p: np.median(at[p]))
        for row in level:
            ratios = at[row["peer"]] / best
            row |= {f"ratio_{k}": v for k, v in harness.summary(ratios).items()}
            row |= {"at_error": error, "bar": None, "met": None}
            if row["peer"] == fastest and rtol >= LEAST_RTOL:
                row |= {"bar": bar, "met": bool(np.median(ratios) >= bar)}
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def main() -> None:
    """Measure all problems, write `ode_<platform>.jsonl` and say which bars are met."""
    options = harness.parser(__doc__ or "")
    options.formatter_class = argparse.RawDescriptionHelpFormatter
    options.add_argument("--problems", nargs="+", choices=list(BARS), default=list(BARS))
    options.add_argument("--members", type=int, default=10_000, help="of the batch")
    options.add_argument("--rtols", type=float, nargs="+", default=RTOLS)
    options.add_argument("--patience", type=float, default=2.5, help="see above")
    options.add_argument("--quick", action="store_true", help="3 turns, 500 members, less else")
    chosen = options.parse_args()
    if chosen.quick:
        chosen.repeats, chosen.members, chosen.rtols = 3, min(chosen.members, 500), (1e-4, 1e-6)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    rows = []
    for name in chosen.problems:
        print(name, flush=True)
        measured = compare(measure(make_problem(name, chosen.members), chosen), BARS[name])
        rows += [{"problem": name, "dtype": "float64", **row} for row in measured]
    harness.write("ode", rows, chosen.out)
    for row in (row for row in rows if row["bar"] is not None):
        spread = f"{row['ratio_least']:.3g} to {row['ratio_largest']:.3g}"
        verdict = "met" if row["met"] else "NOT MET"
        print(
            f"{row['problem']}, rtol {row['rtol']:g}: the fastest of diffrax, {row['peer']}, takes "
            f"{row['ratio_median']:.3g} times as long ({spread}), bar {row['bar']:g}: {verdict}"
        )


if __name__ == "__main__":
    main()
