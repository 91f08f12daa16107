"""The learning curve of one network, and what makes it record by record."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.learning.learner import Learner, look
from rnn_dynamics.learning.observables import Observables
from rnn_dynamics.learning.rates import Rates
from rnn_dynamics.learning.stopping import Stop, StopReason
from rnn_dynamics.loss import AbstractLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.model.arguments import is_traced, require_type
from rnn_dynamics.ode import Status


class Words(NamedTuple):
    """What a printed trajectory calls its parts.

    Attributes:
        clock: what `train_time` counts.
        remedy: what may help against a loss or a gradient that is not finite.
        error: what `gradient_error` is.
    """

    clock: str = "learning time"
    remedy: str = "a smaller learning rate"
    error: str = "relative error"


class Trajectory(eqx.Module):
    """A network's learning curve at R records.

    Attributes:
        train_time: learning time τ of each record, (R,); of a descent without a learning rate its
            number of steps.
        observables: all recorded scalars, each (R,); `loss` and the others are attributes of the
            trajectory too.
        eigenvalues: eigenvalues of W, (R, N) complex, in no particular order (`track_eigenvalues`
            orders them).
        num_gradients: gradients evaluated up to each record, (R,) int32.
        rnn: the final network; after a failure that of the last record.
        status: a `Status`, () int32.
        stop_reason: a `StopReason`, () int32.
        num_records: records that were made, () int32: the others, after a failure or a stop, are
            NaN.
        words: what it is called in print.
    """

    train_time: jax.Array
    observables: Observables
    eigenvalues: jax.Array
    num_gradients: jax.Array
    rnn: LinearRNN
    status: jax.Array
    stop_reason: jax.Array
    num_records: jax.Array
    words: Words = eqx.field(static=True, default=Words())

    def __getattr__(self, name: str) -> Any:
        if name in Observables.__dataclass_fields__:
            return getattr(self.observables, name)
        raise AttributeError(f"Trajectory has no attribute {name!r}.")

    def __str__(self) -> str:
        shape = self.status.shape
        if is_traced(self.status):
            return f"Trajectory of shape {(*shape, *self.train_time.shape[len(shape) :])}"
        if shape:
            return self._summary_of_many()
        last = max(int(self.num_records) - 1, 0)
        lines = [f"Trajectory of {self.rnn.num_units} units, {self._ending()}"]
        if not int(self.num_records):
            return lines[0]
        loss, top = np.asarray(self.loss), np.asarray(self.eigenvalues[last])
        lead = top[np.argmax(np.nan_to_num(top.real, nan=-np.inf))]
        lines += [
            f"  loss             {loss[0]:.6g}" + (f" -> {loss[last]:.6g}" if last else ""),
            f"  top eigenvalue   {lead:.6g}",
            f"  change of W      {float(self.relative_change[last]):.3g} (relative)",
            f"  gradients        {int(self.num_gradients[-1])}, "
            f"{self.words.error} {float(self.gradient_error[last]):.1e}",
        ]
        return "\n".join(lines)

    def _ending(self) -> str:
        """How many records there are, and how the last one ended."""
        times, made = np.asarray(self.train_time), int(self.num_records)
        clock, status = self.words.clock, Status(int(self.status))
        name = status.words
        if status == Status.ok:
            reason = StopReason(int(self.stop_reason))
            stopped = f", stopped by {reason.name} at record {made - 1}" if reason else ""
            return f"{len(times)} records to {clock} {times[-1]:g}: {name}{stopped}"
        if not made and times[0] == 0:
            return f"{name} at the start, before record 1 of {len(times)}"
        after = (
            f"after record {made} of {len(times)}" if made else f"before record 1 of {len(times)}"
        )
        help_ = self._remedy(status)
        return f"{name} {after} (before {clock} {times[made]:g})" + (
            f": {help_} may help" if help_ else ""
        )

    def _remedy(self, status: Status) -> str:
        if status == Status.max_steps:
            return "a larger `max_steps`"
        return self.words.remedy if status in (Status.unstable, Status.diverged) else ""

    def _summary_of_many(self) -> str:
        """How many members have which status, and the range of their last losses."""
        statuses, reasons = np.asarray(self.status).ravel(), np.asarray(self.stop_reason).ravel()
        size, records = " x ".join(map(str, self.status.shape)), self.loss.shape[-1]
        counts = [
            f"{np.count_nonzero(statuses == status)} {status.words}"
            for status in Status
            if (statuses == status).any()
        ]
        counts += [
            f"{np.count_nonzero(reasons == reason)} stopped by {reason.name}"
            for reason in StopReason
            if reason and (reasons == reason).any()
        ]
        lines = [
            f"Trajectories of {size} members of {self.rnn.num_units} units, {records} records to "
            f"{self.words.clock} {_range(self.train_time[..., -1])}: {', '.join(counts)}"
        ]
        # nothing helps who fails at the start
        begun = (np.asarray(self.num_records) > 0) | (np.asarray(self.train_time)[..., 0] > 0)
        begun = np.broadcast_to(begun, self.status.shape).ravel()
        failed = [status for status in Status if status and (statuses == status)[begun].any()]
        remedies = dict.fromkeys(filter(None, map(self._remedy, failed)))
        if remedies:
            lines[0] += f"; {' or '.join(remedies)} may help"
        made = np.asarray(self.num_records)[..., None]
        last = np.take_along_axis(np.asarray(self.loss), np.maximum(made - 1, 0), axis=-1)
        if (made > 0).any():
            lines.append(f"  loss             {_range(last[made > 0])} at their last records")
        return "\n".join(lines)


def _range(values: Any) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def check_common(loss: Any, rates: Any, stop: Any) -> None:
    """Refuse what no way of training takes."""
    require_type("loss", loss, AbstractLoss, "a loss, such as `PopulationLoss()`")
    require_type("rates", rates, Rates, "Rates")
    require_type("stop", stop, Stop, "a Stop")


def record(
    learner: Learner,
    rnn: LinearRNN,
    target: LinearRNN,
    ticks: jax.Array,
    train_time: jax.Array,
    words: Words,
) -> Trajectory:
    """Train a network and record it at ticks, (R,), that are at learning times, (R,)."""
    learner.loss.check(target)
    # plain numbers would be compiled in
    learner = jax.tree.map(
        lambda x: jnp.asarray(x, rnn.dtype) if isinstance(x, int | float) else x, learner
    )
    state, seen, counts, weights = _learn(learner, rnn, target, ticks, train_time)
    good = jnp.isfinite(seen.loss)
    eigenvalues = jnp.where(good[:, None], _spectra(weights), jnp.nan)
    rest = state.rest
    ending = state.status, rest.reason, rest.records
    return Trajectory(train_time, seen, eigenvalues, counts, state.rnn, *ending, words)


@eqx.filter_jit
def _learn(
    learner: Learner, rnn: LinearRNN, target: LinearRNN, ticks: jax.Array, train_time: jax.Array
) -> Any:
    def to_next(carry: Any, at: tuple[jax.Array, jax.Array]) -> Any:
        state, tick = carry
        next_tick, time = at
        after = learner.advance(state, target, tick, next_tick)
        state, seen = look(learner, after, state.rnn, target, next_tick, time)
        return (state, next_tick), (seen, state.num_gradients, state.rnn.W)

    start = learner.start(rnn, target)
    (state, _), (seen, counts, weights) = jax.lax.scan(
        to_next, (start, jnp.zeros_like(ticks[0])), (ticks, train_time)
    )
    return state, seen, counts, weights


@jax.jit
def _spectra(weights: jax.Array) -> jax.Array:
    """Eigenvalues of matrices, (..., N, N) → (..., N) complex; NaN where a matrix is not finite."""
    return jnp.linalg.eigvals(weights)
