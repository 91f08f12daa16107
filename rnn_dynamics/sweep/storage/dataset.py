"""Chunks on disk as labelled datasets on the sweep's axes."""

from typing import Any

import numpy as np
import xarray as xr

from rnn_dynamics.learning import StopReason
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.config.record_times import network_time
from rnn_dynamics.sweep.config.schema import GradientDescentTable
from rnn_dynamics.sweep.plan.applicability import theory_labels, why_no_flow, why_not
from rnn_dynamics.sweep.plan.learning_time import train_times
from rnn_dynamics.sweep.plan.plan import Plan
from rnn_dynamics.sweep.storage.gather import Source, fill_value
from rnn_dynamics.sweep.storage.store import Store

LONG_NAMES = {
    "loss": "loss L",
    "gradient_norm": "norm of the gradient of L",
    "gradient_error": "estimated relative error of the gradient",
    "weight_norm": "Frobenius norm of W",
    "weight_change": "Frobenius norm of W - W(0)",
    "relative_change": "Frobenius norm of W - W(0), relative to W(0)",
    "input_norm": "norm of u",
    "output_norm": "norm of v",
    "overlap": "u . v",
    "conserved_drift": "relative change of the conserved matrix",
    "eigenvalues": "eigenvalues of W",
    "residues": "residues of the eigenvalues in the impulse response",
    "num_gradients": "gradients evaluated so far",
    "impulse_initial": "impulse response before learning",
    "impulse_final": "impulse response after learning",
    "impulse_target": "impulse response of the target",
    "status": "status of the member",
    "stop_reason": "why the member came to rest",
    "stop_record": "record at which the member came to rest, -1 if it did not",
    "W": "recurrent weights W",
    "u": "input weights u",
    "v": "read-out weights v",
}
NOISE_NAMES = {"gradient_error": "relative noise of the sampled gradient"}
FLAGS: dict[str, Any] = {"status": Status, "stop_reason": StopReason}
TRAILING = {
    "eigenvalues": ("record", "unit"),
    "residues": ("record", "unit"),
    "status": (),
    "stop_reason": (),
    "stop_record": (),
    "W": ("weights_record", "unit", "from_unit"),
    "u": ("weights_record", "unit"),
    "v": ("weights_record", "unit"),
    "impulse_initial": ("network_time",),
    "impulse_final": ("network_time",),
    "impulse_target": ("network_time",),
}  # every other variable: ("record",)
THEORY_TRAILING: dict[str, tuple[str, ...]] = {"eigenvalues": ("record", "mode"), "status": ()}


def simulation_source(plan: Plan, store: Store) -> Source:
    """Where the variables of the simulation come from."""
    return Source(plan, store, {"simulation": np.ones(plan.num_members, bool)})


def theory_source(plan: Plan, store: Store) -> Source:
    """Where the variables of the theories come from."""
    labels = {
        f"theory/{label}": why_not(plan.experiment, model, plan.values) == ""
        for label, (model, _) in theory_labels(plan.experiment).items()
    }
    return Source(plan, store, labels, label_axis=True)


def dataset_of(source: Source) -> xr.Dataset:
    """All members in memory; what is not computed yet is NaN with status `not_run`."""
    return labelled(source, source.rows(0, source.plan.num_members))


def template_of(source: Source) -> xr.Dataset:
    """The same dataset with nothing in it, in no memory to speak of."""
    rows = (*source.leading, source.plan.num_members)
    return labelled(
        source,
        {
            name: np.broadcast_to(np.asarray(fill_value(name, dtype), dtype), (*rows, *shape))
            for name, (shape, dtype) in source.shapes.items()
        },
    )


def labelled(source: Source, arrays: dict[str, np.ndarray]) -> xr.Dataset:
    """Variables of all members on the sweep's axes: dims ([model,] axes …, seed, record[,
    unit]).
    """
    plan, in_theory = source.plan, bool(source.leading)
    trailing = THEORY_TRAILING if in_theory else TRAILING
    variables: dict[str, Any] = {}
    sampled = plan.experiment.learning.loss == "sampled"
    long_names = LONG_NAMES | (NOISE_NAMES if sampled else {})
    for name, values in arrays.items():
        # reshaping the member axis alone keeps a broadcast array one
        shape = (*source.leading, *plan.shape, *source.shapes[name][0])
        dims = (*(("model",) if in_theory else ()), *_member_dims(plan))
        attributes = {"long_name": long_names[name] + (" in theory" if in_theory else "")}
        own = trailing.get(name, ("record",))
        variables[name] = ((*dims, *own), values.reshape(shape), attributes)
    dataset = _labelled(plan, variables)
    if in_theory:
        names = [label.removeprefix("theory/") for label in source.labels]
        dataset = dataset.assign_coords(model=np.array(names, dtype=object))
    return dataset


def _labelled(plan: Plan, variables: dict[str, Any]) -> xr.Dataset:
    experiment = plan.experiment
    coordinates: dict[str, Any] = {
        experiment.dimensions[key]: (experiment.dimensions[key], list(values), {"key": key})
        for key, values in experiment.axes.items()
    }
    coordinates["seed"] = np.arange(plan.shape[-1])
    num_records = max(len(group.ticks) for group in plan.groups)
    coordinates["record"] = np.arange(num_records)
    ticks = np.full((plan.num_members, num_records), np.nan)
    for group in plan.groups:
        ticks[group.members, : len(group.ticks)] = group.ticks
    if isinstance(experiment.learning, GradientDescentTable):
        coordinates["step"] = _by_axes(plan, ticks, "number of steps")
    times = np.full(ticks.shape, np.nan)
    for group in plan.groups:
        own = train_times(experiment, group.ticks, plan.values_of(group.members))
        times[group.members, : len(group.ticks)] = own
    flows = (why_no_flow(experiment, plan.values) == "").any()
    name = "learning time" if flows else "number of steps"
    coordinates["train_time"] = _by_axes(plan, times, name)
    if any("network_time" in dims for dims, *_ in variables.values()):
        attributes = {"long_name": "network time", "units": "leak time constants"}
        coordinates["network_time"] = ("network_time", network_time(experiment), attributes)
    if any("weights_record" in dims for dims, *_ in variables.values()):
        attributes = {"long_name": "record at which weights are saved"}
        records = np.array(plan.weights_records, dtype=np.int64)
        coordinates["weights_record"] = ("weights_record", records, attributes)
    dataset = xr.Dataset(variables, coords=coordinates)
    for name, words in FLAGS.items():
        if name in dataset:
            names = " ".join(word.name for word in words)
            flags = {"flag_values": [int(word) for word in words], "flag_meanings": names}
            dataset[name].attrs |= flags
    return dataset


def _by_axes(plan: Plan, values: np.ndarray, name: str) -> Any:
    """A coordinate of records: along `record` alone if all members share it, else along the axes
    too.
    """
    attributes = {"long_name": name}
    if np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True):
        return ("record", values[0], attributes)
    shaped = values.reshape(plan.shape + values.shape[1:])[..., 0, :]  # the same for all seeds
    return ((*_member_dims(plan)[:-1], "record"), shaped, attributes)


def _member_dims(plan: Plan) -> tuple[str, ...]:
    return (*(plan.experiment.dimensions[key] for key in plan.experiment.axes), "seed")
