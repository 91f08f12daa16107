"""Plans in print. JAX is not needed."""

import os
from typing import TYPE_CHECKING

import numpy as np

from rnn_dynamics.sweep.config.fields import number_text
from rnn_dynamics.sweep.plan import costs
from rnn_dynamics.sweep.plan.applicability import theory_labels, why_not
from rnn_dynamics.sweep.plan.memory import host_bytes, size_text

if TYPE_CHECKING:
    from rnn_dynamics.sweep.plan.plan import Plan

MOST_LISTED = 10  # compile groups


def summary(plan: "Plan") -> str:
    """A plan as text: members, compile groups, chunks, memory, work, theories."""
    experiment = plan.experiment
    names = experiment.dimensions
    axes = [f"{names[key]} ({len(v)})" for key, v in experiment.axes.items()]
    axes.append(f"seed ({experiment.network.num_seeds})")
    learning = experiment.learning
    cores = os.cpu_count() or 1
    lines = [
        f"members         {plan.num_members} = {' x '.join(axes)}",
        f"target          {experiment.target.kind}",
        f"learning        {learning.method}, about {plan.num_gradients:.3g} gradients each",
        f"compile groups  {len(plan.groups)}",
        *(
            f"  {index}: {len(g.members)} members, {g.num_units} units, {len(g.ticks)} records "
            f"to {number_text(g.ticks[-1])}"
            for index, g in enumerate(plan.groups[:MOST_LISTED])
        ),
        *([f"  and {more} more"] if (more := len(plan.groups) - MOST_LISTED) > 0 else []),
        f"chunks          {len(plan.chunks)} of {plan.chunk_size} members",
        f"memory          about {size_text(plan.chunk_bytes)} per chunk",
        *_shortage_lines(plan),
        f"results         about {size_text(plan.result_bytes)}",
        f"work            about {plan.flops:.2g} floating-point operations",
        f"time            about {duration(plan.estimated_seconds)} on {cores} cores at "
        f"{costs.FLOPS_PER_SECOND_AND_CORE:.0e} operations per second each, compilation apart",
        *_warm_start_lines(plan),
        *_theory_lines(plan),
    ]
    return "\n".join(lines)


def _shortage_lines(plan: "Plan") -> list[str]:
    why = plan.shortage(host_bytes())
    return [f"  too much: {why}"] if why else []


def _warm_start_lines(plan: "Plan") -> list[str]:
    network = plan.experiment.network
    if network.warm_start is None:
        return []
    record = -1 if network.warm_start_record is None else network.warm_start_record
    return [f"start           networks of {network.warm_start} at record {record}"]


def _theory_lines(plan: "Plan") -> list[str]:
    """The theories, and why they leave members out."""
    lines = []
    for label, (model, _) in theory_labels(plan.experiment).items():
        reasons, counts = np.unique(
            why_not(plan.experiment, model, plan.values).astype(str), return_counts=True
        )
        left_out = [f"not to {n}: {why}" for why, n in zip(reasons, counts, strict=True) if why]
        lines.append("; ".join([label, *left_out]))
    head = ["theory          ", *[" " * 16] * len(lines)]
    return [start + line for start, line in zip(head, lines or ["none"], strict=False)]


def duration(seconds: float) -> str:
    """A time to two digits, in a unit in which it is not many."""
    if seconds < 99.5:
        return f"{seconds:.2g} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.2g} min"
    return f"{seconds / 3600:.3g} h"
