"""Training a batch of networks from record to record: to be watched, saved on the way, and gone on
with.
"""

import dataclasses
import os
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.learning import Learner, State, StopReason
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.config.recording import RESPONSES, SPECTRA
from rnn_dynamics.sweep.engine import programs
from rnn_dynamics.sweep.plan.memory import OutOfMemoryError

Records = dict[str, np.ndarray]
NETWORK = ("W", "u", "v")
RESPONSES_OF = ("impulse_initial", "impulse_final", "impulse_target")


@dataclasses.dataclass(frozen=True)
class Progress:
    """A training after some of its records, (B, …).

    Attributes:
        num_records: how many have been made, R'.
        leaves: the state, leaf by leaf.
        columns: what was recorded, by name, (B, R', …).
        networks: saved W, u and v, (B, K', …), if there are any yet.
    """

    num_records: int
    leaves: list[np.ndarray]
    columns: Records
    networks: Records

    def arrays(self) -> Records:
        """For a file."""
        named = {"num_records": np.asarray(self.num_records)}
        named |= {f"leaf/{i:04d}": leaf for i, leaf in enumerate(self.leaves)}
        named |= {f"column/{name}": value for name, value in self.columns.items()}
        return named | {f"network/{name}": value for name, value in self.networks.items()}

    @classmethod
    def of(cls, arrays: Records) -> "Progress":
        """From a file."""

        def under(prefix: str) -> Records:
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        leaves = [value for _, value in sorted(under("leaf/").items())]
        number = int(arrays["num_records"])
        return cls(number, leaves, under("column/"), under("network/"))


Watch = Callable[[Callable[[], Progress] | None], None]


def unwatched(_: Callable[[], Progress] | None) -> None:
    """Nobody looks, nothing is saved."""


def train(
    learner: Learner,
    state: State,
    targets: LinearRNN,
    ticks: np.ndarray,
    times: np.ndarray,
    watch: Watch = unwatched,
    keeps: Callable[[str], bool] = lambda _: True,
    grid: np.ndarray | None = None,
    weights_at: Container[int] = (),
    progress: Progress | None = None,
    most_bytes: int | None = None,
) -> Records:
    """Train a batch of networks and record them at the ticks; a tick is a step or a learning time.

    Args:
        learner, state, targets: batches of B; the state is used up.
        ticks: (R,).
        times: learning times of the members' records, (B, R).
        watch: called after each record with a function that tells the progress; may raise to stop.
        keeps: whether an observable of this name is wanted; spectra that are not wanted are not
            computed.
        grid: uniform network times from 0, (T,), on which to record the impulse responses of
            initial, final and target networks if they are wanted; a simulation always has one, for
            they are of its program.
        weights_at: the K indices of the records at which W, u and v are wanted.
        progress: from where to go on; not used if its state is not of this kind, as an earlier
            release may have left it.
        most_bytes: what a segment may need.

    Returns:
        Arrays with leading axes (B, R), (B, K) for W, u and v, or (B,) for the status and impulse
        responses.

    Raises:
        OutOfMemoryError: if the compiled segment needs more.
    """
    dtype = state.rnn.dtype
    ticks = ticks if ticks.dtype.kind == "i" else ticks.astype(dtype)
    step = None if grid is None else np.zeros((), dtype)
    columns: list[Records] = []
    spectra: list[Future[None]] = []  # of the last record, under way
    networks: list[Records] = []
    if progress is not None and _fits(state, progress.leaves):
        state = _with_leaves(state, progress.leaves)
        columns = _unstacked(progress.columns)
        networks = _unstacked(progress.networks)
    for index in range(len(columns), len(ticks)):
        if index == 0 or _learns(state).any():
            # arrays, and of NumPy: its scalars, and zeros of JAX, would make programs of their own
            previous = np.asarray(ticks[index - 1] if index else 0, ticks.dtype)
            at = (previous, np.asarray(ticks[index]), times[:, index].astype(dtype), step)
            if most_bytes is not None:
                _check_memory(most_bytes, learner, state, targets, *at)
                most_bytes = None
            # memory of the state before is used again: what is kept of a state is a copy
            state, seen, _ = programs.advance(learner, state, targets, *at)
            column = {name: np.asarray(value) for name, value in vars(seen).items()}
            _wait(spectra)
            if any(keeps(name) for name in SPECTRA):
                spectra = _begin_spectra(state, column)
        else:  # every member has failed or come to rest
            seen_last = columns[-1].items()
            column = {k: np.full_like(x, np.nan) for k, x in seen_last if k != "num_gradients"}
        failed = np.isnan(column["loss"])
        column |= {"num_gradients": np.array(state.num_gradients)}
        columns.append({name: value for name, value in column.items() if keeps(name)})
        if index in weights_at:
            # the last network is also that of a member that has come to rest before and records
            # nothing more
            lost = np.asarray(state.status) != Status.ok if index == len(ticks) - 1 else failed
            network = {name: np.array(getattr(state.rnn, name)) for name in NETWORK}
            for values in network.values():
                values[lost] = np.nan
            networks.append(network)
        watch(_teller(state, columns, networks, spectra))
    _wait(spectra)
    records = _stacked(columns) | _stacked(networks)
    reason = np.array(state.rest.reason)
    records |= {"status": np.array(state.status), "stop_reason": reason}
    records["stop_record"] = np.where(reason, np.asarray(state.rest.records) - 1, -1)
    if grid is not None and keeps(RESPONSES):
        # where they are, networks learn nothing more
        end = np.asarray(ticks[-1])
        at = (end, end, times[:, -1].astype(dtype), np.asarray(grid[1] - grid[0], dtype))
        # who watches may still ask for the state
        copied = jax.tree.map(np.array, state)
        responses = np.asarray(programs.advance(learner, copied, targets, *at)[-1])
        records |= dict(zip(RESPONSES_OF, responses, strict=True))
    return records


def _learns(state: State) -> np.ndarray:
    """Which members neither failed nor came to rest, (B,)."""
    going = np.asarray(state.rest.reason) == StopReason.none
    return going & (np.asarray(state.status) == Status.ok)


def _begin_spectra(state: State, column: Records) -> list[Future[None]]:
    """Add spectra to a record, which threads fill in while the device goes on."""
    W, u, v = (np.array(getattr(state.rnn, name)) for name in NETWORK)
    good = np.flatnonzero(np.isfinite(column["loss"]))
    for name in SPECTRA:
        column[name] = np.full(u.shape, np.nan, np.result_type(W, np.complex64))

    def fill(members: np.ndarray) -> None:
        for i in members.tolist():
            found = _modes(W[i], u[i], v[i])
            for name, values in zip(SPECTRA, found, strict=True):
                column[name][i] = values

    return [_threads().submit(fill, members) for members in np.array_split(good, _cores())]


def _modes(W: np.ndarray, u: np.ndarray, v: np.ndarray) -> tuple[Any, Any]:
    """Eigenvalues of W and their residues, (N,); what LAPACK does not find is NaN, as residues
    where W cannot be diagonalised.
    """
    eigenvalues: Any = np.nan
    try:
        eigenvalues, right = np.linalg.eig(W)
        return eigenvalues, (v @ right) * np.linalg.solve(right, u.astype(right.dtype))
    except np.linalg.LinAlgError:
        return eigenvalues, np.nan


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_cores(), "spectra")


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _wait(spectra: list[Future[None]]) -> None:
    for one in spectra:
        one.result()


def _teller(
    state: State, columns: list[Records], networks: list[Records], spectra: list[Future[None]]
) -> Callable[[], Progress]:
    count, saved = len(columns), len(networks)

    def progress() -> Progress:
        _wait(spectra)
        leaves = [np.array(leaf) for leaf in jax.tree.leaves(state)]
        return Progress(count, leaves, _stacked(columns[:count]), _stacked(networks[:saved]))

    return progress


def _fits(state: State, leaves: list[np.ndarray]) -> bool:
    own = [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
    return own == [(x.shape, x.dtype) for x in leaves]


def _with_leaves(state: State, leaves: list[np.ndarray]) -> State:
    return jax.tree.unflatten(jax.tree.structure(state), [jnp.array(leaf) for leaf in leaves])


def _stacked(rows: list[Records]) -> Records:
    return {name: np.stack([row[name] for row in rows], axis=1) for name in (rows or [{}])[0]}


def _unstacked(records: Records) -> list[Records]:
    count = next((value.shape[1] for value in records.values()), 0)
    return [{name: value[:, i] for name, value in records.items()} for i in range(count)]


def _check_memory(most: int, *arguments: Any) -> None:
    """Compile the segment, which is needed anyway, and ask what it needs."""
    needs = programs.advance.lower(*arguments).compile().memory_analysis()
    if needs is not None:
        # what a state becomes takes its memory
        made = needs.output_size_in_bytes - needs.alias_size_in_bytes
        total = needs.argument_size_in_bytes + made + needs.temp_size_in_bytes
        if total > most:
            raise OutOfMemoryError(f"a compiled segment needs {total:.3g} of {most:.3g} bytes")
