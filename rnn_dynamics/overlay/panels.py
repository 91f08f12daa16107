"""What a figure shows of a run: one panel per combination of the axes other than weight scale, one curve per weight scale."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from rnn_dynamics.model import edge_margin
from rnn_dynamics.overlay.style import few
from rnn_dynamics.sweep.run import Run

MAX_PANELS = 6


@dataclass(frozen=True)
class Panel:
    """One combination of the axes other than weight scale.

    Attributes:
        selection: value of each of these axes.
        title: the combination in words; empty if there is only one.
        target: eigenvalues of the target, (K,) complex.
    """

    selection: dict[str, float]
    title: str
    target: np.ndarray


@dataclass(frozen=True)
class Curves:
    """The members of one weight scale in one panel.

    Attributes:
        scale: the weight scale.
        data: the simulation, dims (seed, record, …).
        theory: the theories, dims (model, seed, record, …); None if the config has none.
        radius: radius of the initial bulk, the edge's fluctuations included.
    """

    scale: float
    data: xr.Dataset
    theory: xr.Dataset | None
    radius: float

    @property
    def time(self) -> np.ndarray:
        """Learning time of the records, (R,)."""
        return self.data["train_time"].to_numpy()

    def models(self) -> Iterator[tuple[str, xr.Dataset]]:
        """The theories by name."""
        if self.theory is not None:
            for name in self.theory["model"].to_numpy().tolist():
                yield name, self.theory.sel(model=name)


def panels(run: Run) -> list[Panel]:
    """At most `MAX_PANELS` panels, evenly chosen; their titles say which."""
    axes = {
        run.experiment.dimensions[key]: values
        for key, values in run.experiment.axes.items()
        if key != "network.weight_scale"
    }
    combinations = list(itertools.product(*axes.values()))
    result = []
    for values in few(combinations, MAX_PANELS):
        selection = dict(zip(axes, values, strict=True))
        title = ", ".join(f"{name.replace('_', ' ')} = {v:g}" for name, v in selection.items())
        result.append(Panel(selection, title, _target_eigenvalues(run, selection)))
    return result


def curves(run: Run, panel: Panel) -> list[Curves]:
    """The weight scales of a panel, in order."""
    data = run.dataset.sel(panel.selection)
    theory = run.theory.sel(panel.selection) if run.experiment.theory.models else None
    scales = run.experiment.network.weight_scale
    several = isinstance(scales, tuple)
    units = panel.selection.get("num_units", run.experiment.network.num_units)
    result = []
    for scale in scales if isinstance(scales, tuple) else (scales,):
        chosen: dict[str, Any] = {"weight_scale": scale} if several else {}
        result.append(
            Curves(
                float(scale),
                data.sel(chosen),
                None if theory is None else theory.sel(chosen),
                float(scale) * (1 + edge_margin(int(units))),  # type: ignore[arg-type]
            )
        )
    return result


def leading_outlier(eigenvalues: np.ndarray, radius: float) -> np.ndarray:
    """The eigenvalue of largest modulus outside of the bulk, the upper one of a pair, (…, N) → (…) complex; NaN if there is none."""
    modulus = np.where(np.isnan(eigenvalues), -1.0, np.abs(eigenvalues))
    rank = modulus + 1e-9 * np.sign(eigenvalues.imag)
    index = np.argmax(np.nan_to_num(rank, nan=-1.0), axis=-1)[..., None]
    leader = np.take_along_axis(eigenvalues, index, axis=-1)[..., 0]
    outside = np.take_along_axis(modulus, index, axis=-1)[..., 0] > max(radius, 1e-6)
    return np.where(outside, leader, np.nan)


def _target_eigenvalues(run: Run, selection: dict[str, float]) -> np.ndarray:
    names = {name: key for key, name in run.experiment.dimensions.items()}
    numbers = dict(run.experiment.numbers)
    numbers |= {names[name]: value for name, value in selection.items()}
    found = []
    for key, decay in numbers.items():
        if key.startswith("target.") and key.endswith("decay"):
            frequency = numbers.get(key.removesuffix("decay") + "frequency", 0.0)
            found += [1 - decay + 1j * frequency, 1 - decay - 1j * frequency]
    return np.unique(np.array(found))
