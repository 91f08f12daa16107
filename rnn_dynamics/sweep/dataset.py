"""Chunks on disk as labelled datasets on the sweep's axes."""

from typing import Any

import numpy as np
import xarray as xr

from rnn_dynamics.learning import StopReason
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.applicability import theory_labels, why_no_flow
from rnn_dynamics.sweep.descent import train_times
from rnn_dynamics.sweep.experiment import GradientDescentTable
from rnn_dynamics.sweep.plan import Chunk, Plan
from rnn_dynamics.sweep.store import Store
from rnn_dynamics.sweep.ticks import network_time

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


def simulation_dataset(plan: Plan, store: Store) -> xr.Dataset:
    """The simulation: dims (axes …, seed, record[, unit]); what is not computed yet is NaN with status `not_run`."""
    members = _collect(plan, store, "simulation")
    dims = _member_dims(plan)
    variables = {}
    for name, values in members.items():
        shaped = values.reshape(plan.shape + values.shape[1:])
        attributes = {"long_name": LONG_NAMES[name]}
        variables[name] = (dims + TRAILING.get(name, ("record",)), shaped, attributes)
    return _labelled(plan, variables)


def theory_dataset(plan: Plan, store: Store) -> xr.Dataset:
    """The theories: dims (model, axes …, seed, record[, mode])."""
    labels = list(theory_labels(plan.experiment))
    each = [_collect(plan, store, f"theory/{label}") for label in labels]
    variables: dict[str, Any] = {}
    for name in dict.fromkeys(name for found in each for name in found):
        arrays = [found[name] for found in each if name in found]
        if not arrays:
            continue
        size = np.max([array.shape for array in arrays], axis=0)
        stacked = np.stack([_padded(array, tuple(size)) for array in arrays])
        trailing = {"eigenvalues": ("record", "mode"), "status": ()}.get(name, ("record",))
        shaped = stacked.reshape((len(labels), *plan.shape, *stacked.shape[2:]))
        dims = ("model", *_member_dims(plan), *trailing)
        variables[name] = (dims, shaped, {"long_name": f"{LONG_NAMES[name]} in theory"})
    return _labelled(plan, variables).assign_coords(model=np.array(labels, dtype=object))


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
    """A coordinate of records: along `record` alone if all members share it, else along the axes too."""
    attributes = {"long_name": name}
    if np.array_equal(values, np.broadcast_to(values[:1], values.shape), equal_nan=True):
        return ("record", values[0], attributes)
    shaped = values.reshape(plan.shape + values.shape[1:])[..., 0, :]  # the same for all seeds
    return ((*_member_dims(plan)[:-1], "record"), shaped, attributes)


def _member_dims(plan: Plan) -> tuple[str, ...]:
    return (*(plan.experiment.dimensions[key] for key in plan.experiment.axes), "seed")


def _collect(plan: Plan, store: Store, prefix: str) -> dict[str, np.ndarray]:
    """The arrays of all members under a prefix, (M, …); members without results hold the fill value."""
    parts: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
    for chunk in plan.chunks:
        if store.is_done(chunk.index):
            arrays = store.read(chunk.index)
            own = {
                name.removeprefix(prefix + "/"): value
                for name, value in arrays.items()
                if name.startswith(prefix + "/")
            }
            own |= _on_all_records(plan, chunk, own)
            parts.append((chunk.members, own))
    collected: dict[str, np.ndarray] = {}
    for name in parts[0][1] if parts else ():
        arrays_of = [own[name] for _, own in parts]
        size = (
            np.max([array.shape[1:] for array in arrays_of], axis=0)
            if arrays_of[0].ndim > 1
            else ()
        )
        full = np.full(
            (plan.num_members, *(int(n) for n in size)),
            _fill(name, arrays_of[0].dtype),
            arrays_of[0].dtype,
        )
        for members, own in parts:
            value = own[name]
            place: Any = (members, *(slice(0, n) for n in value.shape[1:]))
            full[place] = value
        collected[name] = full
    if "status" not in collected:
        collected["status"] = np.full(plan.num_members, int(Status.not_run), np.int32)
    return collected


def _on_all_records(
    plan: Plan, chunk: Chunk, arrays: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The weights of a chunk, (M, K, …), on the records at which any member of the sweep has some, NaN where it has none."""
    record, num_records = plan.experiment.record, len(plan.groups[chunk.group].ticks)
    slots = np.searchsorted(plan.weights_records, record.weights_at(num_records))
    found: dict[str, np.ndarray] = {}
    for name in ("W", "u", "v"):
        if name in arrays:
            value = arrays[name]
            shape = (len(value), len(plan.weights_records), *value.shape[2:])
            found[name] = np.full(shape, np.nan, value.dtype)
            found[name][:, slots] = value
    return found


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    full = np.full(shape, _fill("", array.dtype), array.dtype)
    full[tuple(slice(0, n) for n in array.shape)] = array
    return full


def _fill(name: str, dtype: np.dtype) -> Any:
    if name in FLAGS:
        return int(Status.not_run if name == "status" else StopReason.none)
    return np.nan if dtype.kind in "fc" else -1
