"""Saved weights of a run as networks."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import xarray as xr

from rnn_dynamics.model import LinearRNN
from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.config.fields import number_text
from rnn_dynamics.sweep.plan.plan import Plan


def saved_network(
    layout: Plan, dataset: xr.Dataset, record: int, where: dict[str, Any]
) -> LinearRNN:
    """The network of the member at `where`, by the names of the dataset's dimensions, at a
    record.
    """
    member = _member(layout, dataset, where)
    if not layout.weights_records:
        raise ValueError(
            'Key `record.weights` must be "final", "all" or a list of records for a run to have '
            'networks, but is "none".'
        )
    name = layout.member_name(member)
    status = Status(int(dataset["status"].to_numpy().reshape(-1)[member]))
    if status == Status.not_run:
        raise ValueError(f"Member `{name}` must have run, but has not yet.")
    group = next(group for group in layout.groups if member in group.members)
    slot = weights_slot(layout, len(group.ticks), record)
    if slot < 0:
        saved = layout.experiment.record.weights_at(len(group.ticks))
        listed = ", ".join(map(str, saved))
        raise ValueError(
            f"Argument `record` must be a record with saved weights, of member `{name}` "
            f"{listed}, but is {record}."
        )
    n, size = group.num_units, len(layout.shape)
    arrays = (dataset[x].to_numpy() for x in ("W", "u", "v"))
    W, u, v = (x.reshape(-1, *x.shape[size:])[member, slot] for x in arrays)
    if not np.isfinite(u[:n]).all():
        raise ValueError(
            f"Member `{name}` must not have failed by record {record}, but it has: {status.name}."
        )
    return LinearRNN(jnp.asarray(W[:n, :n]), jnp.asarray(u[:n]), jnp.asarray(v[:n]))


def weights_slot(layout: Plan, num_records: int, record: int) -> int:
    """Position along `weights_record` of a record of a member with so many, negative ones from the
    end; -1 if none was saved.
    """
    index = record + num_records if record < 0 else record
    saved = layout.experiment.record.weights_at(num_records)
    return layout.weights_records.index(index) if index in saved else -1


def _member(layout: Plan, dataset: xr.Dataset, where: dict[str, Any]) -> int:
    """Index of a member by its values."""
    dims = [str(name) for name in dataset["status"].dims]
    unknown = [name for name in where if name not in dims]
    if unknown:
        raise ValueError(
            f"Arguments must be among {', '.join(f'`{name}`' for name in dims)}, but have "
            f"`{unknown[0]}`."
        )
    position = []
    for name in dims:
        values = dataset[name].to_numpy().tolist()
        if name not in where and len(values) > 1:
            raise ValueError(
                f"Argument `{name}` must be given, as the run has {len(values)} values of it."
            )
        value = where.get(name, values[0])
        if value not in values:
            listed = ", ".join(number_text(v) for v in values)
            raise ValueError(f"Argument `{name}` must be one of {listed}, but is {value!r}.")
        position.append(values.index(value))
    return int(np.ravel_multi_index(position, layout.shape))
