"""The learning curve of one network, and what makes it record by record."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from rnn_dynamics.learning.learner import Learner, dtype_of, look
from rnn_dynamics.learning.observables import Observables
from rnn_dynamics.learning.parts import (
    LossOfParts,
    check_network,
    linear_system,
    network_of,
    split,
)
from rnn_dynamics.learning.stopping import Stop, StopReason
from rnn_dynamics.loss import AbstractLoss
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
        eigenvalues: eigenvalues of W of `network.system()` or of a `NonlinearRNN`, (R, N) complex,
            in no particular order (`track_eigenvalues` orders them); (R, 0) of other networks.
        num_gradients: gradients evaluated up to each record, (R,) int32.
        network: the final network; after a failure that of the last record. `rnn` is the same.
        status: a `Status`, () int32.
        stop_reason: a `StopReason`, () int32.
        num_records: records that were made, () int32: the others, after a failure or a stop, are
            NaN.
        words: what it is called in print.
        observed: what `observe` asked for, by name, (R, ...) each.
        weights: the networks of all records, with a leading axis R, if `record_weights`.
    """

    train_time: jax.Array
    observables: Observables
    eigenvalues: jax.Array
    num_gradients: jax.Array
    network: Any
    status: jax.Array
    stop_reason: jax.Array
    num_records: jax.Array
    words: Words = eqx.field(static=True, default=Words())
    observed: dict[str, jax.Array] = eqx.field(default_factory=dict)
    weights: Any = None

    @property
    def rnn(self) -> Any:
        """The final network."""
        return self.network

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
        lines = [f"Trajectory of {self._kind()}, {self._ending()}"]
        if not int(self.num_records):
            return lines[0]
        loss, top = np.asarray(self.loss), np.asarray(self.eigenvalues[last])
        lines += [f"  loss             {loss[0]:.6g}" + (f" -> {loss[last]:.6g}" if last else "")]
        if top.size:
            lead = top[np.argmax(np.nan_to_num(top.real, nan=-np.inf))]
            lines += [
                f"  top eigenvalue   {lead:.6g}",
                f"  change of W      {float(self.relative_change[last]):.3g} (relative)",
            ]
        lines += [
            f"  gradients        {int(self.num_gradients[-1])}, "
            f"{self.words.error} {float(self.gradient_error[last]):.1e}",
        ]
        return "\n".join(lines)

    def _kind(self) -> str:
        """How many units there are, or, where that is not known, of what the network is."""
        number = self.eigenvalues.shape[-1]
        return f"{number} units" if number else f"a {type(self.network).__name__}"

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
            f"Trajectories of {size} members of {self._kind()}, {records} records to "
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


Observe = Mapping[str, Callable[[Any, Any], jax.Array]]


def check_common(network: Any, target: Any, loss: Any, stop: Any, observe: Any) -> None:
    """Refuse what no way of training takes."""
    check_network(network)
    require_type("loss", loss, AbstractLoss, "a loss, such as `PopulationLoss()`")
    require_type("stop", stop, Stop, "a Stop")
    loss.check(target)
    require_type("observe", {} if observe is None else observe, Mapping, "a dictionary")
    for name, function in (observe or {}).items():
        found = eqx.filter_eval_shape(function, network, target)
        if not isinstance(found, jax.ShapeDtypeStruct):
            raise TypeError(f"Argument `observe[{name!r}]` must return an array, but does not.")


def record(
    learner: Learner,
    network: Any,
    target: Any,
    ticks: jax.Array,
    train_time: jax.Array,
    words: Words,
    observe: Observe | None = None,
    record_weights: bool = False,
) -> Trajectory:
    """Train a network and record it at ticks, (R,), that are at learning times, (R,)."""
    trained, rest = split(network)
    # plain numbers would be compiled in
    made: Any = jax.tree.map(
        lambda x: jnp.asarray(x, dtype_of(trained)) if isinstance(x, int | float) else x, learner
    )
    if rest is not None:
        made = dataclasses.replace(made, loss=LossOfParts(made.loss, rest))
    state, seen, counts, path = _learn(made, trained, target, ticks, train_time)
    known = made.loss, path, jnp.isfinite(seen.loss)
    return Trajectory(
        *(train_time, seen, _spectra(*known), counts, network_of(made.loss, state.rnn)),
        *(state.status, state.rest.reason, state.rest.records, words),
        {name: _observed(f, target, *known) for name, f in (observe or {}).items()},
        _networks(*known) if record_weights else None,
    )


@eqx.filter_jit
def _learn(
    learner: Learner, trained: Any, target: Any, ticks: jax.Array, train_time: jax.Array
) -> Any:
    def to_next(carry: Any, at: tuple[jax.Array, jax.Array]) -> Any:
        state, tick = carry
        next_tick, time = at
        after = learner.advance(state, target, tick, next_tick)
        state, seen = look(learner, after, state.rnn, target, next_tick, time)
        return (state, next_tick), (seen, state.num_gradients, state.rnn)

    start = learner.start(trained, target)
    (state, _), (seen, counts, path) = jax.lax.scan(
        to_next, (start, jnp.zeros_like(ticks[0])), (ticks, train_time)
    )
    return state, seen, counts, path


# In programs of their own, as what is observed may use LAPACK. All are NaN where nothing was
# recorded: `good` is (R,).


@eqx.filter_jit
def _spectra(loss: AbstractLoss, path: Any, good: jax.Array) -> jax.Array:
    """Eigenvalues of the networks of all records, (R, N) complex."""

    def matrix(trained: Any) -> jax.Array:
        system = linear_system(network_of(loss, trained))
        return jnp.zeros((0, 0), dtype_of(trained)) if system is None else system.W

    return jnp.where(good[:, None], jnp.linalg.eigvals(jax.vmap(matrix)(path)), jnp.nan)


@eqx.filter_jit
def _observed(
    function: Callable[..., Any], target: Any, loss: AbstractLoss, path: Any, good: jax.Array
) -> jax.Array:
    def observe(at: tuple[Any, jax.Array]) -> jax.Array:
        trained, known = at
        found = function(network_of(loss, trained), target)
        inexact = jnp.issubdtype(found.dtype, jnp.inexact)
        return jnp.where(known, found if inexact else found.astype(dtype_of(trained)), jnp.nan)

    return jax.lax.map(observe, (path, good))


@eqx.filter_jit
def _networks(loss: AbstractLoss, path: Any, good: jax.Array) -> Any:
    def network(trained: Any, known: jax.Array) -> Any:
        trained = jax.tree.map(lambda x: jnp.where(known, x, jnp.nan), trained)
        return network_of(loss, trained)

    return eqx.filter_vmap(network)(path, good)
