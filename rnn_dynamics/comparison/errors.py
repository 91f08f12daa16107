"""Theory beside simulation: errors per member and record, and the table of the largest ones."""

import csv
import io
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from rnn_dynamics.model import edge_margin, match_eigenvalues
from rnn_dynamics.sweep.config.fields import number_text
from rnn_dynamics.sweep.plan.applicability import theory_labels, why_not
from rnn_dynamics.sweep.run import Run, require_run
from rnn_dynamics.sweep.storage.files import temporary, writing
from rnn_dynamics.sweep.storage.manifest import TABLE
from rnn_dynamics.sweep.storage.outputs import put

QUANTITIES = ("weight_change", "input_norm", "output_norm", "overlap")
BATCH = 4096  # spectra matched per compiled call
SAME = (
    1e-6  # seeds that scatter less, relative to their mean, differ by rounding and tolerances alone
)
FLOOR = 1e-6  # radius of a bulk of weight scale 0: the zero eigenvalues are no outliers


def overlay(run: Run) -> xr.Dataset:
    """Simulation, theory and their difference for every theory, member and record.

    Outliers are compared once the theory's eigenvalue is outside the initial bulk, |λ| > (1 + √(log
    N / N)) · weight scale; before that there is none. Theory and simulation are matched by
    assignment. Nothing is compared where a theory does not apply.

    Args:
        run: a run whose config names theories.

    Returns:
        A dataset with dims (model, axes …, seed, record): `loss_simulation`, `loss_theory`,
        `loss_error` = |theory - simulation| / simulation's initial loss; `outlier_simulation`,
        `outlier_theory` (complex, the outlier of largest modulus) and `outlier_error`, the largest
        distance of any outlier from its partner; NaN where there is no outlier, or no result;
        `weight_change`, `input_norm`, `output_norm` and `overlap`, each with `_simulation` and
        `_theory`;
        without the dim seed, `loss_z`, `outlier_z` and so on: distance of the mean over seeds of
        the simulation from that of the theory, in standard errors of the former; NaN for a single
        seed, or where some seed has no outlier; without the dim record, `applies`, and `why_not`, a
        sentence where a theory does not.

    What the config leaves out of `record.observables` is not compared; without eigenvalues there is
    nothing of outliers.

    Raises:
        ValueError: if the config names no theory.
    """
    require_run(run)
    if not run.experiment.theory.models:
        raise ValueError("Key `theory.models` must name a theory for an overlay, but is empty.")
    simulation, theory = run.dataset, run.theory
    result = xr.Dataset()
    for name in ("loss", *(q for q in QUANTITIES if q in theory and q in simulation)):
        pair = xr.broadcast(theory[name], simulation[name])
        result[f"{name}_theory"], result[f"{name}_simulation"] = pair
    initial = result["loss_simulation"].isel(record=0, drop=True)
    result["loss_error"] = abs(result["loss_theory"] - result["loss_simulation"]) / initial
    dims = result["loss_theory"].dims
    if run.experiment.record.keeps("eigenvalues"):
        for name, value in _match(run, theory["eigenvalues"], simulation["eigenvalues"]).items():
            result[name] = (dims, value)
        result["outlier_error"].attrs = {"long_name": "distance of the outlier from the theory"}
    for name in [str(name).removesuffix("_theory") for name in result if "_theory" in str(name)]:
        result[f"{name}_z"] = _distance_of_means(result, name)
    reasons = [
        why_not(run.experiment, model, run.plan.values)
        for model, _ in theory_labels(run.experiment).values()
    ]
    shaped = np.stack(reasons).reshape((len(reasons), *run.plan.shape))
    result["why_not"] = (dims[:-1], shaped)
    result["applies"] = result["why_not"] == ""
    result["loss_error"].attrs = {"long_name": "loss error relative to the initial loss"}
    return result


def error_table(compared: xr.Dataset) -> list[dict[str, Any]]:
    """The largest errors over seeds, records and other axes: one row per weight scale and theory.

    `within` is the share of records after the first at which the mean loss over seeds is within 2
    standard errors of the theory; `why_not` is why the theory applies to none of the members, or to
    some only.
    """
    scales = (
        compared["weight_scale"].to_numpy().tolist() if "weight_scale" in compared.dims else [None]
    )
    rows = []
    for scale in scales:
        part = compared if scale is None else compared.sel(weight_scale=scale)
        for model in compared["model"].to_numpy().tolist():
            one = part.sel(model=model)
            z = one["loss_z"].isel(record=slice(1, None)).to_numpy()
            known = z[np.isfinite(z)]
            reasons = sorted(set(one["why_not"].to_numpy().ravel()) - {""})
            rows.append(
                {
                    "weight_scale": scale,
                    "theory": model,
                    "loss_error": _largest(one["loss_error"]),
                    "outlier_error": _largest(one["outlier_error"])
                    if "outlier_error" in one
                    else float("nan"),
                    "within": float(np.mean(known <= 2)) if known.size else float("nan"),
                    "why_not": "; ".join(reasons),
                }
            )
    return rows


def format_table(rows: list[dict[str, Any]]) -> str:
    """The error table as text."""
    width = max(len("theory"), *(len(row["theory"]) for row in rows))
    lines = [
        f"{'weight scale':>12}  {'theory':<{width}}  {'loss error':>10}  {'outlier error':>13}  "
        "within 2 s.e.",
    ]
    for row in rows:
        scale = "" if row["weight_scale"] is None else number_text(row["weight_scale"])
        errors = [_number(row[name]) for name in ("loss_error", "outlier_error")]
        within = "-" if np.isnan(row["within"]) else f"{row['within']:.0%}"
        line = (
            f"{scale:>12}  {row['theory']:<{width}}  {errors[0]:>10}  {errors[1]:>13}  {within:>13}"
        )
        if row["why_not"]:
            line = f"{line}  (not: {row['why_not']})"
        lines.append(line)
    lines += [
        "largest over seeds and records; loss relative to the initial loss, outlier once outside "
        "of the bulk;",
        "within 2 s.e.: records at which the mean loss over seeds is within 2 standard errors of "
        "the theory",
    ]
    return "\n".join(lines)


def save_table(rows: list[dict[str, Any]], run: Run) -> Path:
    """Write the error table as `overlay.csv` into a run's directory, in one piece.

    Raises:
        StoreError: if the directory cannot be written.
    """
    path = run.directory / TABLE
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    partial = temporary(path)
    with writing(run.directory):
        try:
            partial.write_text(text.getvalue(), encoding="utf-8", newline="")
            put(run.store, partial, TABLE)
        finally:
            partial.unlink(missing_ok=True)
    return path


def _distance_of_means(compared: xr.Dataset, name: str) -> xr.DataArray:
    """Distance of the means over seeds of theory and simulation, in standard errors of the
    simulation's.
    """
    theory, simulation = compared[f"{name}_theory"], compared[f"{name}_simulation"]
    theory, simulation = (x.where(np.isfinite(theory + simulation)) for x in (theory, simulation))
    mean, num_seeds = simulation.mean("seed", skipna=False), simulation.sizes["seed"]
    scatter = (abs(simulation - mean) ** 2).sum("seed", skipna=False)
    error = (scatter / max(num_seeds - 1, 1) / num_seeds) ** 0.5
    distance = abs((theory - simulation).mean("seed", skipna=False))
    return distance / error.where(error > SAME * abs(mean))


def _match(run: Run, theory: xr.DataArray, simulation: xr.DataArray) -> dict[str, np.ndarray]:
    """Outliers of theory and simulation and their largest distance, each (model, axes …, seed,
    record).
    """
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
