"""Training a batch of networks from record to record: to be watched, saved on the way, and gone on with."""

import dataclasses
from collections.abc import Callable, Container
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.learning import Learner, State
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep import program
from rnn_dynamics.sweep.memory import OutOfMemoryError
from rnn_dynamics.sweep.recording import SPECTRA

Records = dict[str, np.ndarray]
NETWORK = ("W", "u", "v")


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
    rnns: LinearRNN,
    targets: LinearRNN,
    ticks: np.ndarray,
    times: np.ndarray,
    watch: Watch = unwatched,
    keeps: Callable[[str], bool] = lambda _: True,
    weights_at: Container[int] = (),
    progress: Progress | None = None,
    most_bytes: int | None = None,
) -> tuple[Records, LinearRNN]:
    """Train a batch of networks and record them at the ticks; a tick is a step or a learning time.

    Args:
        learner, rnns, targets: batches of B.
        ticks: (R,).
        times: learning times of the members' records, (B, R).
        watch: called after each record with a function that tells the progress; may raise to stop.
        keeps: whether an observable of this name is wanted; spectra that are not wanted are not computed.
        weights_at: the K indices of the records at which W, u and v are wanted.
        progress: from where to go on.
        most_bytes: what a segment may need.

    Returns:
        Arrays with leading axes (B, R), (B, K) for W, u and v, or (B,) for the status, and the final networks.

    Raises:
        OutOfMemoryError: if the compiled segment needs more.
    """
    dtype = ticks.dtype if ticks.dtype.kind == "i" else rnns.dtype
    state = program.start(learner, rnns, targets)
    columns: list[Records] = []
    networks: list[Records] = []
    if progress is not None:
        state = _with_leaves(state, progress.leaves)
        columns = _unstacked(progress.columns)
        networks = _unstacked(progress.networks)
    for index in range(len(columns), len(ticks)):
        if index == 0 or np.any(state.learns):
            # scalars of NumPy would make a program of their own
            previous, following = (jnp.asarray(t, dtype) for t in (ticks[index - 1], ticks[index]))
            previous = previous if index else jnp.zeros_like(previous)
            at = (previous, following, jnp.asarray(times[:, index], rnns.dtype))
            if most_bytes is not None:
                _check_memory(most_bytes, learner, state, targets, *at)
                most_bytes = None
            state, seen = program.advance(learner, state, targets, *at)
            column = _column(state, seen, keeps)
        else:  # every member has failed or come to rest
            seen_last = columns[-1].items()
            column = {k: np.full_like(x, np.nan) for k, x in seen_last if k != "num_gradients"}
        failed = np.isnan(column["loss"])
        column |= {"num_gradients": np.asarray(state.num_gradients)}
        columns.append({name: value for name, value in column.items() if keeps(name)})
        if index in weights_at:
            # the last network is also that of a member that has come to rest before and records nothing more
            lost = np.asarray(state.status) != Status.ok if index == len(ticks) - 1 else failed
            network = {name: np.array(getattr(state.rnn, name)) for name in NETWORK}
            for values in network.values():
                values[lost] = np.nan
            networks.append(network)
        watch(_teller(state, columns, networks))
    records = _stacked(columns) | _stacked(networks)
    reason = np.asarray(state.rest.reason)
    records |= {"status": np.asarray(state.status), "stop_reason": reason}
    records["stop_record"] = np.where(reason, np.asarray(state.rest.records) - 1, -1)
    return records, state.rnn


def _column(state: State, seen: Any, keeps: Callable[[str], bool]) -> Records:
    """What one record holds."""
    column = {name: np.asarray(value) for name, value in vars(seen).items()}
    if any(keeps(name) for name in SPECTRA):
        for name, values in zip(SPECTRA, program.spectra(state.rnn), strict=True):
            values[np.isnan(column["loss"])] = np.nan
            column[name] = values
    return column


def _teller(
    state: State, columns: list[Records], networks: list[Records]
) -> Callable[[], Progress]:
    count, saved = len(columns), len(networks)

    def progress() -> Progress:
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
        return Progress(count, leaves, _stacked(columns[:count]), _stacked(networks[:saved]))

    return progress


def _with_leaves(state: State, leaves: list[np.ndarray]) -> State:
    return jax.tree.unflatten(jax.tree.structure(state), [jnp.asarray(leaf) for leaf in leaves])


def _stacked(rows: list[Records]) -> Records:
    return {name: np.stack([row[name] for row in rows], axis=1) for name in (rows or [{}])[0]}


def _unstacked(records: Records) -> list[Records]:
    count = next((value.shape[1] for value in records.values()), 0)
    return [{name: value[:, i] for name, value in records.items()} for i in range(count)]


def _check_memory(most: int, *arguments: Any) -> None:
    """Compile the segment, which is needed anyway, and ask what it needs."""
    needs = program.advance.lower(*arguments).compile().memory_analysis()
    if needs is not None:
        total = needs.argument_size_in_bytes + needs.output_size_in_bytes + needs.temp_size_in_bytes
        if total > most:
            raise OutOfMemoryError(f"a compiled segment needs {total:.3g} of {most:.3g} bytes")
