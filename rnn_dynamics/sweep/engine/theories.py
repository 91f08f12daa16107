"""The theories of members, on the same records as their simulation.

A theory that follows from a member's own initial network is computed for every member; one of
infinite width is the same for all seeds, so it is computed once for every cell, that is for every
combination of the sweep's axes.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from rnn_dynamics import theory
from rnn_dynamics.learning import Rates, State
from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.model import LinearRNN
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.config.schema import Experiment, GradientDescentTable
from rnn_dynamics.sweep.engine import programs
from rnn_dynamics.sweep.engine.training import Records, Watch, train
from rnn_dynamics.sweep.plan.applicability import Values, theory_labels, why_not
from rnn_dynamics.sweep.plan.learning_time import rate_sums, train_times
from rnn_dynamics.sweep.plan.plan import Plan

PREDICTED = (
    *("loss", "eigenvalues", "status"),
    *("weight_change", "input_norm", "output_norm", "overlap"),
)
TRAINED = ("population", "word_subspace", "infinite_width")  # trained like the simulated ones
OF_CELLS = ("infinite_width", "readout_only")


def theory_records(
    layout: Plan,
    group: int,
    members: np.ndarray,
    rnns: LinearRNN,
    targets: LinearRNN,
    watch: Watch,
) -> Records:
    """What every theory of the config predicts for members: arrays by `label/name`, members first.

    Members to which a theory does not apply get NaN and the status `not_run`.

    Args:
        layout: the plan.
        group: the members' compile group.
        members: their indices, padded to the width of the program.
        rnns, targets: their initial networks and their targets.
        watch: called at each record of a small network that is trained.
    """
    experiment, ticks = layout.experiment, layout.groups[group].ticks
    found: Records = {}
    everyone = np.arange(len(members))
    for label, (model, option) in theory_labels(experiment).items():
        applies = why_not(experiment, model, layout.values_of(members)) == ""
        if not applies.any():
            empty = _nothing(len(members), len(ticks))
            found |= {f"{label}/{name}": empty[name] for name in _wanted(experiment)}
            continue
        rows, places = _cells(layout, members) if model in OF_CELLS else (None, everyone)
        of = members if rows is None else members[rows]
        own = (
            targets if rows is None else jax.tree.map(lambda x, at=rows: np.asarray(x)[at], targets)
        )
        values = layout.values_of(of)
        curves = _curves(experiment, ticks, model, option, values, rnns, own, watch)
        for name in _wanted(experiment):
            predicted = np.array(curves[name][places])
            predicted[~applies] = int(Status.not_run) if name == "status" else np.nan
            found[f"{label}/{name}"] = predicted
    return found


def num_trainings(experiment: Experiment) -> int:
    """How many theories train a small network of their own."""
    return sum(model in TRAINED for model, _ in theory_labels(experiment).values())


def _wanted(experiment: Experiment) -> list[str]:
    """What is kept of a theory."""
    return [name for name in PREDICTED if experiment.record.keeps(name)]


def _cells(layout: Plan, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The row of one member of each cell, padded to one shape for all chunks, and each member's
    position among them.
    """
    num_seeds, width = layout.experiment.network.num_seeds, len(members)
    _, rows, places = np.unique(members // num_seeds, return_index=True, return_inverse=True)
    most = min(width, (width - 2) // num_seeds + 2)
    return np.resize(rows, max(2, most)), places


def _nothing(count: int, num_records: int) -> Records:
    empty = {name: np.full((count, num_records), np.nan) for name in PREDICTED}
    empty["eigenvalues"] = np.full((count, num_records, 1), complex(np.nan, np.nan))
    return empty | {"status": np.full(count, int(Status.not_run), np.int32)}


def _curves(
    experiment: Experiment,
    ticks: np.ndarray,
    model: str,
    option: int,
    values: Values,
    rnns: LinearRNN,
    targets: LinearRNN,
    watch: Watch,
) -> Records:
    """One theory of a batch of members or cells, arrays by name, (B, R) and so on."""
    wanted = _wanted(experiment)
    learner = programs.in_expectation(programs.make_learner(experiment, values))
    names = ("weight_scale", "input_scale", "output_scale", "overlap")
    zero = np.zeros_like(values["network.weight_scale"])
    scales = [np.asarray(values.get(f"network.{name}", zero), rnns.dtype) for name in names]
    if model in TRAINED:
        own = scales if model == "infinite_width" else rnns
        state = _start(model, option, learner, own, targets)
        clock = train_times(experiment, ticks, values)
        return train(*(learner, state, targets, ticks, clock, watch), wanted.__contains__)
    times = _flow_times(experiment, ticks, values).astype(rnns.dtype)
    if model == "readout_only":
        curve = _readouts(targets, scales[0], times, learner.rates.v, scales[1])
    else:
        of = (rnns, targets, learner.rates, times, learner.loss)
        curve = _from_starts(model, *of)
    return {name: np.asarray(getattr(curve, name)) for name in wanted}


def _flow_times(experiment: Experiment, ticks: np.ndarray, values: Values) -> np.ndarray:
    """Learning times, (B, R), also of members of momentum and so on, whose own clock counts steps:
    a theory would take as many more.
    """
    if isinstance(experiment.learning, GradientDescentTable):
        return rate_sums(experiment.learning, ticks, values)
    return train_times(experiment, ticks, values)


@partial(jax.jit, static_argnums=0)
def _from_starts(
    model: str,
    rnns: LinearRNN,
    targets: LinearRNN,
    rates: Rates,
    times: jax.Array,
    loss: PopulationLoss,
) -> theory.TheoryCurve:
    def one(
        rnn: LinearRNN, target: LinearRNN, rates: Rates, times: jax.Array, loss: PopulationLoss
    ) -> Any:
        if model == "single_outlier":
            start = theory.outlier_start(rnn, target, rates)
            return theory.single_outlier(target, start, times, rates, loss=loss)
        pair = theory.pair_start(rnn, target, rates, times[-1])
        return theory.conjugate_pair(target, pair, times, rates)

    return jax.vmap(one)(rnns, targets, rates, times, loss)


@partial(jax.jit, static_argnums=(0, 1))
def _start(model: str, max_length: int, learner: Any, own: Any, targets: LinearRNN) -> State:
    """The states of the small networks of a theory that follow from `own`, networks or scales."""
    if model == "word_subspace":
        own = jax.vmap(lambda rnn: theory.word_subspace(rnn, max_length))(own)
    if model == "infinite_width":
        own = jax.vmap(partial(theory.infinite_width, max_length=max_length))(*own)
    return programs.start(learner, own, targets)


@jax.jit
def _readouts(
    targets: LinearRNN, weight: jax.Array, times: jax.Array, rate: jax.Array, input: jax.Array
) -> theory.TheoryCurve:
    return jax.vmap(theory.readout_only)(targets, weight, times * rate[:, None], input)


def release_programs() -> None:
    """Let go of the compiled programs of simulations and theories."""
    own: tuple[Any, ...] = (_from_starts, _start, _readouts)
    for program_of in (*programs.PROGRAMS, *own):
        program_of.clear_cache()
