"""Runs made up with known numbers, for tests of figures: every member differs, and so does every
theory.
"""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from rnn_dynamics.ode import Status
from rnn_dynamics.sweep.config.schema import Experiment

SCALES, MODELS = (0.0, 0.1, 0.5), ("word_subspace_2", "single_outlier")
SEEDS, RECORDS, UNITS = 4, 9, 20
INTEGRATOR = {"kind": "leaky_integrator", "decay": 0.2}
NOISE = {
    "weight_scale": 0.1,
    "models": ("population", "single_outlier"),
    "learning": {"loss": "sampled", "horizon": 4.0, "time_step": 0.1, "batch_size": (1, 4, 16)},
}
LENGTHS = {"weight_scale": 0.1, "learning": {"horizon": (2.0, 4.0, 8.0)}}
OSCILLATOR = {"kind": "damped_oscillator", "decay": 0.2, "frequency": 1.0}
STAIRS = {
    "weight_scale": (0.01, 0.1, 0.5),
    "tied": True,
    "learning": {"method": "gradient_flow", "train_time": 8.0},
}


@dataclasses.dataclass
class MadeUp:
    """What a figure reads of a run."""

    experiment: Experiment
    dataset: xr.Dataset
    theory: xr.Dataset
    directory: Path = Path("nowhere")


def made_up(
    target: dict[str, Any] = INTEGRATOR,
    weight_scale: Any = SCALES,
    *,
    models: tuple[str, ...] = MODELS,
    seeds: int = SEEDS,
    spacing: str = "linear",
    learning_rate: Any = 0.1,
    learning: dict[str, Any] | None = None,
    tied: bool = False,
) -> MadeUp:
    """A run whose leading eigenvalue grows to the target's, in theory a bit less; every member
    differs.
    """
    experiment = Experiment(
        target=target,
        network={"num_units": UNITS, "weight_scale": weight_scale, "num_seeds": seeds}
        | ({"input_scale": "weight_scale", "output_scale": "weight_scale"} if tied else {}),
        learning=learning
        if tied
        else {"learning_rate": learning_rate, "num_steps": 80} | (learning or {}),
        record={"num": RECORDS, "spacing": spacing, "weights": "all" if tied else "none"},
        theory={"models": tuple({re.sub(r"_\d$", "", m): None for m in models})},
    )
    dims = tuple(experiment.dimensions.values())
    shape = (*(len(values) for values in experiment.axes.values()), seeds)
    rng = np.random.default_rng(0)
    time = np.array([0.0, *np.geomspace(0.1, 8.0, RECORDS - 1)])
    factor = rng.uniform(0.5, 2.0, (*shape, 1))
    loss = factor * np.exp(-time)
    growth = (1 - np.exp(-time)) * rng.uniform(0.9, 1.1, (*shape, 1))
    goal = 0.8 + (1.0j if target["kind"] == "damped_oscillator" else 0)
    bulk = 0.02 * np.exp(2j * np.pi * rng.uniform(size=(*shape, RECORDS, UNITS)))
    bulk[..., 2::2] = np.conj(bulk[..., 3::2])
    bulk[..., 0], bulk[..., 1] = goal * growth, np.conj(goal) * growth
    network_time = np.linspace(0, 25, 11)
    response = factor * np.exp(-0.2 * network_time)
    residues = rng.normal(size=bulk.shape) + 1j * rng.normal(size=bulk.shape)
    change = growth * rng.uniform(1.0, 2.0, (*shape, 1))
    member, coordinates = (*dims, "seed"), {"record": np.arange(RECORDS)}
    coordinates |= {n: list(experiment.axes[k]) for k, n in experiment.dimensions.items()}
    coordinates["train_time"] = ("record", time)
    dataset = xr.Dataset(
        {
            "loss": ((*member, "record"), loss),
            "eigenvalues": ((*member, "record", "unit"), bulk),
            "residues": ((*member, "record", "unit"), residues),
            "weight_change": ((*member, "record"), change),
            "relative_change": ((*member, "record"), 0.5 * change),
            "gradient_error": ((*member, "record"), factor * (1 + growth)),
            "overlap": ((*member, "record"), growth),
            "status": (member, np.full(shape, int(Status.ok))),
            "impulse_initial": ((*member, "network_time"), 0.1 * response),
            "impulse_final": ((*member, "network_time"), response),
            "impulse_target": (
                (*member, "network_time"),
                response * 0 + np.exp(-0.2 * network_time),
            ),
        },
        coords=coordinates | {"network_time": network_time},
    )
    if tied:
        saved, of = (*member, "weights_record"), (*shape, RECORDS)
        dataset["W"] = ((*saved, "unit", "from_unit"), rng.normal(size=(*of, UNITS, UNITS)) / 9)
        for name in "uv":
            dataset[name] = ((*saved, "unit"), rng.normal(size=(*of, UNITS)))
        dataset.coords["weights_record"] = np.arange(RECORDS)
    if not models:
        return MadeUp(experiment, dataset, xr.Dataset(coords=coordinates | {"model": []}))
    less = np.array([0.9, 0.7])[: len(models)].reshape(-1, *(1,) * loss.ndim)
    padded = np.concatenate([bulk[..., :2], np.full_like(bulk[..., :1], np.nan)], axis=-1)
    theory = xr.Dataset(
        {
            "loss": (("model", *member, "record"), less * loss),
            "eigenvalues": (("model", *member, "record", "mode"), less[..., None] * padded),
            "weight_change": (("model", *member, "record"), less * change),
            "overlap": (("model", *member, "record"), less * growth),
        },
        coords=coordinates | {"model": list(models)},
    )
    return MadeUp(experiment, dataset, theory)


def lines(axes: Any) -> dict[str, Any]:
    """The lines of an axes by what they show."""
    return {line.get_gid(): line for line in axes.get_lines() if line.get_gid()}
