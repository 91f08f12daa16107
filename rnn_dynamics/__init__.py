"""Learning dynamics of linear recurrent networks, computed instead of guessed.

Names are imported when they are first used, so that `import rnn_dynamics` and the command line's
`--help` start at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnn_dynamics import ode, theory
    from rnn_dynamics.comparison import overlay
    from rnn_dynamics.learning import (
        Rates,
        Status,
        Stop,
        StopReason,
        Trajectory,
        gradient_descent,
        gradient_flow,
    )
    from rnn_dynamics.loss import (
        AbstractLoss,
        ControlLoss,
        Evaluation,
        FrequencyLoss,
        Plant,
        PopulationLoss,
        SampledLoss,
        filtered_noise,
        lyapunov,
        ornstein_uhlenbeck,
    )
    from rnn_dynamics.model import (
        DiagonalRNN,
        LinearRNN,
        LowRankRNN,
        NonlinearRNN,
        StackedRNN,
        bulk_radius,
        damped_oscillator,
        edge_margin,
        fir,
        fit_response,
        is_outlier,
        leaky_integrator,
        match_eigenvalues,
        modes,
        parallel,
        random_rnn,
        track_eigenvalues,
    )
    from rnn_dynamics.plotting import figures as plot
    from rnn_dynamics.sweep.config.loading import ConfigError, load_experiment
    from rnn_dynamics.sweep.config.schema import Experiment
    from rnn_dynamics.sweep.engine.compile_cache import use_compile_cache
    from rnn_dynamics.sweep.plan.plan import plan
    from rnn_dynamics.sweep.run import Run, open_run, run
    from rnn_dynamics.sweep.storage.store import StoreError

_HOMES = {
    "model": (
        *("DiagonalRNN", "LowRankRNN", "StackedRNN"),
        *("LinearRNN", "random_rnn", "leaky_integrator", "damped_oscillator", "fir", "parallel"),
        "fit_response",
        "NonlinearRNN",
        *(
            "bulk_radius",
            "edge_margin",
            "is_outlier",
            "match_eigenvalues",
            "modes",
            "track_eigenvalues",
        ),
    ),
    "loss": (
        *("AbstractLoss", "ControlLoss", "Evaluation", "FrequencyLoss", "Plant"),
        *("PopulationLoss", "SampledLoss", "filtered_noise", "lyapunov", "ornstein_uhlenbeck"),
    ),
    "learning": (
        *("Rates", "Status", "Stop", "StopReason"),
        *("Trajectory", "gradient_descent", "gradient_flow"),
    ),
    "sweep.engine.compile_cache": ("use_compile_cache",),
    "sweep.config.schema": ("Experiment",),
    "sweep.config.loading": ("ConfigError", "load_experiment"),
    "sweep.plan.plan": ("plan",),
    "sweep.storage.store": ("StoreError",),
    "sweep.run": ("Run", "open_run", "run"),
    "comparison": ("overlay",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}
_ROOMS = {"ode": "ode", "theory": "theory", "plot": "plotting.figures"}

__all__ = [
    "AbstractLoss",
    "ConfigError",
    "ControlLoss",
    "DiagonalRNN",
    "Evaluation",
    "Experiment",
    "FrequencyLoss",
    "LinearRNN",
    "LowRankRNN",
    "NonlinearRNN",
    "Plant",
    "PopulationLoss",
    "Rates",
    "Run",
    "SampledLoss",
    "StackedRNN",
    "Status",
    "Stop",
    "StopReason",
    "StoreError",
    "Trajectory",
    "bulk_radius",
    "damped_oscillator",
    "edge_margin",
    "filtered_noise",
    "fir",
    "fit_response",
    "gradient_descent",
    "gradient_flow",
    "is_outlier",
    "leaky_integrator",
    "load_experiment",
    "lyapunov",
    "match_eigenvalues",
    "modes",
    "ode",
    "open_run",
    "ornstein_uhlenbeck",
    "overlay",
    "parallel",
    "plan",
    "plot",
    "random_rnn",
    "run",
    "theory",
    "track_eigenvalues",
    "use_compile_cache",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"rnn_dynamics.{_ROOMS[name]}")
    if name not in _HOME:
        raise AttributeError(f"Module `rnn_dynamics` has no name `{name}`.")
    value = getattr(importlib.import_module(f"rnn_dynamics.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
