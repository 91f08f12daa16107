"""Theory against simulation, with error bars: how far each theory lies from the mean of finite
networks, in standard errors.

    width       infinite width (word lengths 0 and 4) against means of 32 networks at N = 64, 128,
                256; weight scale 0.3, decay 0.2
    bias        the same at word length 3 against 16 such means, whose networks are reduced to their
                words of length 3 first: what is left of the distance when chance is averaged out,
                how it falls with N, and how many of the means are within 2 standard errors;
                likewise at N = 256 for the cases of the next study
    regimes     infinite width against means of 12 networks at N = 256; decay 0.5, weight scales
                0.3, 0.6, 0.8
    oscillator  times of the pair's events against simulations with small weights; decay 0.3,
                frequency 1
    lazy        read-out training at infinite width against means of 32 networks at N = 512; decay
                0.4, weight scales 0.3 … 0.8

    python benchmarks/theory.py [width] [bias] [regimes] [oscillator] [lazy] [--members 32]

On two cores: about 10, 10, 8, 2 and 5 minutes. Each writes `theory_<name>_<platform>.jsonl`.
"""

import tempfile
from collections.abc import Callable
from typing import Any

import harness
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

import rnn_dynamics as rd
from rnn_dynamics.loss.gramian.doubling import difference
from rnn_dynamics.loss.gramian.energy import gramians
from rnn_dynamics.sweep.config.loading import make_experiment

Rows = list[dict[str, Any]]


def compared(tables: dict[str, Any]) -> xr.Dataset:
    """The overlay of an experiment."""
    with tempfile.TemporaryDirectory() as folder:
        run = rd.run(make_experiment(tables), folder, progress=False)
        assert not run.failed
        return rd.overlay(run).load()


def distances(part: xr.Dataset, name: str) -> dict[str, float]:
    """Distance of the seeds' mean from the theory over the records after the first, in standard
    errors and by itself.
    """
    z = part[f"{name}_z"].isel(record=slice(1, None)).to_numpy()
    gap = abs((part[f"{name}_theory"] - part[f"{name}_simulation"]).mean("seed", skipna=False))
    known, gap = z[np.isfinite(z)], gap.isel(record=slice(1, None)).to_numpy()
    gap = gap[np.isfinite(gap)]
    return {
        f"{name}_largest_z": float(known.max()) if known.size else np.nan,
        f"{name}_within_2": float(np.mean(known <= 2)) if known.size else np.nan,
        f"{name}_distance": float(gap.max()) if gap.size else np.nan,
    }


def width(members: int) -> Rows:
    """Both word lengths at three widths."""
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.2},
        "network": {
            "num_units": [64, 128, 256],
            "weight_scale": 0.3,
            "overlap": 0.0,
            "num_seeds": members,
        },
        "learning": {"learning_rate": 0.02, "num_steps": 500},
        "record": {"every": 25},
        "theory": {"models": ["infinite_width"], "infinite_width": {"max_length": [0, 4]}},
        "compute": {"chunk_size": min(8, members)},
    }
    result = compared(tables)
    rows = []
    for units in (64, 128, 256):
        for model in result["model"].to_numpy():
            part = result.sel(num_units=units, model=model)
            numbers = distances(part, "loss") | distances(part, "outlier")
            rows.append({"units": units, "theory": str(model), "members": members, **numbers})
    return rows


def bias(members: int) -> Rows:
    """Means of reduced networks: the truncation of the words is the same on both sides and
    cancels.
    """
    cases = [(units, 0.3, 0.2, 0.02, 500) for units in (64, 128, 256)]
    cases += [(256, scale, 0.5, 0.05, 400) for scale in (0.3, 0.6, 0.8)]
    return [_bias(members, *case) for case in cases]


def _bias(
    members: int, units: int, scale: float, decay: float, rate: float, num_steps: int
) -> dict[str, Any]:
    groups, length, target = 16, 3, rd.leaky_integrator(decay)
    names = ("loss", "weight_change", "overlap", "input_norm", "output_norm")

    def learn(rnn: rd.LinearRNN) -> dict[str, jax.Array]:
        curve = rd.gradient_descent(
            rnn, target, optimizer=optax.sgd(rate), num_steps=num_steps, record_every=25
        )
        return {name: getattr(curve, name)[1:] for name in names}

    def reduced(key: jax.Array) -> rd.LinearRNN:
        return rd.theory.word_subspace(rd.random_rnn(key, units, scale, overlap=0.0), length)

    theory = learn(rd.theory.infinite_width(scale, max_length=length))
    learn_all, reduce_all = jax.jit(jax.vmap(learn)), jax.jit(jax.vmap(reduced))
    found = []
    for group in range(groups):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), group), members)
        found.append({k: np.asarray(v) for k, v in learn_all(reduce_all(keys)).items()})
    row: dict[str, Any] = {"units": units, "weight_scale": scale, "decay": decay}
    row |= {"members": members, "groups": groups}
    for name in names:
        every, exact = np.stack([one[name] for one in found]), np.asarray(theory[name])
        gap = every.mean(axis=(0, 1)) - exact
        error = every.std(axis=(0, 1), ddof=1) / np.sqrt(groups * members)
        worst = int(np.argmax(abs(gap / exact)))
        row[f"{name}_bias"] = float(gap[worst] / exact[worst])
        row[f"{name}_bias_error"] = float(error[worst] / exact[worst])
        z = abs(every.mean(axis=1) - exact) / (every.std(axis=1, ddof=1) / np.sqrt(members))
        row[f"{name}_records_within_2"] = float(np.mean(z <= 2))
        row[f"{name}_means_within_2"] = float(np.mean((z <= 2).all(axis=1)))
    return row


def regimes(members: int) -> Rows:
    """From rich to lazy: all that infinite width predicts."""
    members = min(members, 12)
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.5},
        "network": {
            "num_units": 256,
            "weight_scale": [0.3, 0.6, 0.8],
            "overlap": 0.0,
            "num_seeds": members,
        },
        "learning": {"learning_rate": 0.05, "num_steps": 400},
        "record": {"every": 20},
        "theory": {"models": ["infinite_width"], "infinite_width": {"max_length": 5}},
        "compute": {"chunk_size": min(6, members)},
    }
    result = compared(tables).isel(model=0)
    names = ("loss", "outlier", "weight_change", "overlap", "input_norm", "output_norm")
    rows = []
    for scale in (0.3, 0.6, 0.8):
        part = result.sel(weight_scale=scale)
        for name in names:
            last = part.isel(record=-1)
            simulated = abs(last[f"{name}_simulation"])
            numbers = {
                "theory_at_end": float(abs(last[f"{name}_theory"]).mean()),
                "mean_at_end": float(simulated.mean()),
                "error_at_end": float(simulated.std(ddof=1) / np.sqrt(members)),
            }
            found = {k.removeprefix(f"{name}_"): v for k, v in distances(part, name).items()}
            rows.append({"weight_scale": scale, "quantity": name, **numbers, **found})
    return rows


def lazy(members: int) -> Rows:
    """The read-out's flow is linear, so each network's is solved exactly, from one Gramian."""
    units, decay, input_scale = 512, 0.4, 1.0
    target, times = rd.leaky_integrator(decay), jnp.asarray([0.0, 1, 3, 10, 30, 100, 300, 1000])

    @jax.jit
    def parts(seed: jax.Array, scale: jax.Array) -> Any:
        key = jax.random.fold_in(jax.random.key(0), seed)
        rnn = rd.random_rnn(key, units, scale, input_scale, 1.0, overlap=0.0)
        G = gramians(difference(rnn, target))
        return G.P[:units, :units], G.P[:units, units]

    rows = []
    for scale in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        losses = []
        for seed in range(members):
            P, x = (np.asarray(part) for part in parts(jnp.asarray(seed), jnp.asarray(scale)))
            rates, axes = np.linalg.eigh(P)
            # v' = x - P v from v = 0: each axis of P relaxes by itself
            share = (axes.T @ x) ** 2 * -np.expm1(
                -2 * np.clip(rates, 0, None)[None, :] * np.asarray(times)[:, None]
            )
            losses.append(
                0.25 / decay - 0.5 * np.sum(np.where(rates > 1e-14, share / rates, 0), axis=1)
            )
        mean = np.mean(losses, axis=0)
        error = np.std(losses, axis=0, ddof=1) / np.sqrt(members)
        theory = np.asarray(rd.theory.readout_only(target, scale, times, input_scale).loss)
        for time, *numbers in zip(
            np.asarray(times)[1:], theory[1:], mean[1:], error[1:], strict=True
        ):
            names = ("theory", "mean", "standard_error")
            row = {"weight_scale": scale, "train_time": float(time)}
            row |= dict(zip(names, map(float, numbers), strict=True))
            rows.append(row | {"z": abs(row["mean"] - row["theory"]) / row["standard_error"]})
    return rows


def oscillator(members: int) -> Rows:
    """Event times of the pair, of simulations whose weights shrink."""
    target, times = rd.damped_oscillator(0.3, 1.0), jnp.linspace(0.0, 120.0, 1201)
    members, units = min(members, 4), 24
    rows = []
    for weight_scale in (0.0, 1e-3, 1e-2, 3e-2, 1e-1):
        for seed in range(members):
            rnn = rd.random_rnn(jax.random.key(seed), units, weight_scale, 0.1, 0.1, overlap=0.6)
            full = rd.gradient_flow(rnn, target, times)
            theory = rd.theory.conjugate_pair(target, rnn, times)
            seen = rd.theory.event_times(target, full)
            for name, time in theory.events.items():
                row = {"weight_scale": weight_scale, "seed": seed, "event": name}
                row |= {"theory": float(time), "simulation": float(seen[name])}
                rows.append(row | {"difference": abs(row["simulation"] / row["theory"] - 1)})
    return rows


STUDIES: dict[str, Callable[[int], Rows]] = {
    study.__name__: study for study in (width, bias, regimes, oscillator, lazy)
}


def main() -> None:
    """Run the studies that are named, all by default."""
    options = harness.parser(__doc__ or "")
    options.add_argument("studies", nargs="*", choices=[[], *STUDIES], default=[])
    options.add_argument("--members", type=int, default=32, help="networks of each kind, at most")
    chosen = options.parse_args()
    jax.config.update("jax_enable_x64", True)
    for name in chosen.studies or STUDIES:
        harness.write(f"theory_{name}", STUDIES[name](chosen.members), chosen.out)


if __name__ == "__main__":
    main()
