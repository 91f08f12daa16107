"""Theory beside simulation: errors per member and record, and the table of the largest ones."""

import csv
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from rnn_dynamics.model import edge_margin, match_eigenvalues
from rnn_dynamics.sweep.run import Run
from rnn_dynamics.sweep.store import writing

BATCH = 4096  # spectra matched per compiled call
FLOOR = 1e-6  # radius of a bulk of weight scale 0: the zero eigenvalues are no outliers


def overlay(run: Run) -> xr.Dataset:
    """Simulation, theory and their difference for every theory, member and record.

    Outliers are compared once the theory's eigenvalue is outside the initial bulk, |λ| > (1 + √(log N / N)) · weight scale; before
    that there is none. Theory and simulation are matched by assignment.

    Args:
        run: a run whose config names theories.

    Returns:
        A dataset with dims (model, axes …, seed, record):
        `loss_simulation`, `loss_theory`, `loss_error` = |theory - simulation| / simulation's initial loss;
        `outlier_simulation`, `outlier_theory` (complex, the outlier of largest modulus) and `outlier_error`, the largest distance of any
        outlier from its partner; NaN where there is no outlier, or no result.

    Raises:
        ValueError: if the config names no theory.
    """
    if not run.experiment.theory.models:
        raise ValueError("Key `theory.models` must name a theory for an overlay, but is empty.")
    simulation, theory = run.dataset, run.theory
    loss_theory, loss_simulation = xr.broadcast(theory["loss"], simulation["loss"])
    loss_error = abs(loss_theory - loss_simulation) / loss_simulation.isel(record=0, drop=True)
    matched = _match(run, theory["eigenvalues"], simulation["eigenvalues"])
    result = xr.Dataset(
        {
            "loss_simulation": loss_simulation,
            "loss_theory": loss_theory,
            "loss_error": loss_error,
            **{name: (loss_theory.dims, value) for name, value in matched.items()},
        }
    )
    result["loss_error"].attrs = {"long_name": "loss error relative to the initial loss"}
    result["outlier_error"].attrs = {"long_name": "distance of the outlier from the theory"}
    return result


def error_table(compared: xr.Dataset) -> list[dict[str, Any]]:
    """The largest errors over seeds, records and other axes: one row per weight scale and theory."""
    scales = (
        compared["weight_scale"].to_numpy().tolist() if "weight_scale" in compared.dims else [None]
    )
    rows = []
    for scale in scales:
        part = compared if scale is None else compared.sel(weight_scale=scale)
        for model in compared["model"].to_numpy().tolist():
            one = part.sel(model=model)
            rows.append(
                {
                    "weight_scale": scale,
                    "theory": model,
                    "loss_error": _largest(one["loss_error"]),
                    "outlier_error": _largest(one["outlier_error"]),
                }
            )
    return rows


def format_table(rows: list[dict[str, Any]]) -> str:
    """The error table as text."""
    lines = [
        f"{'weight scale':>12}  {'theory':<18}  {'loss error':>12}  {'outlier error':>13}",
    ]
    for row in rows:
        scale = "" if row["weight_scale"] is None else f"{row['weight_scale']:g}"
        errors = [_number(row[name]) for name in ("loss_error", "outlier_error")]
        lines.append(f"{scale:>12}  {row['theory']:<18}  {errors[0]:>12}  {errors[1]:>13}")
    lines.append(
        "largest over seeds and records; loss relative to the initial loss, outlier once outside of the bulk"
    )
    return "\n".join(lines)


def save_table(rows: list[dict[str, Any]], directory: Path) -> Path:
    """Write the error table as `overlay.csv` into a run's directory, in one piece."""
    path = directory / "overlay.csv"
    with writing(directory):
        partial = path.with_name("overlay.csv.partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(path)
    return path


def _match(run: Run, theory: xr.DataArray, simulation: xr.DataArray) -> dict[str, np.ndarray]:
    """Outliers of theory and simulation and their largest distance, each (model, axes …, seed, record)."""
    shape = theory.shape[:-1]
    records = shape[-1]
    predicted = theory.to_numpy().reshape(-1, theory.shape[-1])
    seen = np.broadcast_to(simulation.to_numpy(), (shape[0], *simulation.shape)).reshape(
        -1, simulation.shape[-1]
    )
    short = predicted.shape[1] - seen.shape[1]
    if short > 0:  # a network of fewer units than the theory has: no partners beyond its own
        seen = np.pad(seen, ((0, 0), (0, short)), constant_values=np.nan)
    values = run.plan.values
    margins = np.array([edge_margin(int(n)) for n in values["network.num_units"]])
    radius = np.maximum(values["network.weight_scale"] * (1 + margins), FLOOR)
    radii = np.tile(np.repeat(radius, records), shape[0])
    names = ("outlier_theory", "outlier_simulation", "outlier_error")
    parts: list[list[np.ndarray]] = [[], [], []]
    for low in range(0, len(radii), BATCH):
        rows = np.resize(np.arange(low, min(low + BATCH, len(radii))), min(BATCH, len(radii)))
        found = _match_outliers(predicted[rows], seen[rows], radii[rows])
        for part, array in zip(parts, found, strict=True):
            part.append(np.asarray(array)[: len(radii) - low])
    return {
        name: np.concatenate(part).reshape(shape) for name, part in zip(names, parts, strict=True)
    }


@jax.jit
@jax.vmap
def _match_outliers(
    theory: jax.Array, simulation: jax.Array, radius: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    outside = jnp.abs(theory) > radius
    partners = simulation[match_eigenvalues(jnp.where(outside, theory, jnp.nan), simulation)]
    distance = jnp.where(outside, jnp.abs(theory - partners), -1)
    # the upper one of a conjugate pair leads
    rank = jnp.where(outside, jnp.abs(theory) + 1e-9 * jnp.sign(theory.imag), -1)
    leader = jnp.argmax(rank)
    any_outside = jnp.any(outside)
    return (
        jnp.where(any_outside, theory[leader], jnp.nan),
        jnp.where(any_outside, partners[leader], jnp.nan),
        jnp.where(any_outside, jnp.max(distance), jnp.nan),
    )


def _largest(values: xr.DataArray) -> float:
    array = values.to_numpy()
    return float(np.nanmax(array)) if np.isfinite(array).any() else float("nan")


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.1e}"
