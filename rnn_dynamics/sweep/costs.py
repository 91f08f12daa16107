"""What learning costs, roughly: gradients of a member, and floating-point operations of a gradient."""

import numpy as np

from rnn_dynamics.sweep.experiment import Experiment, GradientDescentTable
from rnn_dynamics.sweep.sampling import num_time_steps

FLOPS_PER_SECOND_AND_CORE = 1e10  # assumed for the time estimate
# N × N products in one exact gradient by doubling; where Krylov bases are used, it costs as much as about 60 / N
PRODUCTS_PER_GRADIENT, PRODUCTS_TIMES_UNITS, LEAST_UNITS = 36, 60, 24
SAMPLED_PRODUCTS = 3  # N × N matrix-vector products per time step of a gradient on sampled noise


def gradients(experiment: Experiment, values: dict[str, np.ndarray]) -> np.ndarray:
    """Gradients of each member, (M,): the steps of a descent; for a flow an estimate from its fastest rate.

    Near a solution that decays at s the fastest rate is 1/(4 s³) (section 3.1 of the theory note); a horizon T acts like a decay of
    1/T. An explicit pair takes steps of at most 3.3 / rate, of 6 gradients; stabilised methods need 6.7 times the square root of
    learning time and rate (measured at a tolerance of 1e-5), and what is stiff in few directions only 300 for each power of ten of them
    (at 1e-8, benchmarks/flow.py).
    """
    learning = experiment.learning
    if isinstance(learning, GradientDescentTable):
        return values["learning.num_steps"].astype(float)
    decays = [v for k, v in values.items() if k.startswith("target.") and "decay" in k]
    slowest = np.min(np.stack(decays), axis=0) + 1 / values["learning.horizon"]
    stiffness = values["learning.train_time"] / (4 * slowest**3)
    explicit = 600 + 6 * stiffness / 3.3
    if learning.solver == "tsit5":
        return explicit
    stabilised = 300 + 6.7 * np.sqrt(stiffness)
    few = np.maximum(600, 300 * np.log10(1 + stiffness))
    return stabilised if learning.solver == "rkg3" else np.minimum(explicit, few)


def flops_per_gradient(experiment: Experiment, values: dict[str, np.ndarray]) -> np.ndarray:
    """Floating-point operations of one gradient of each member, (M,)."""
    sizes, horizon = values["network.num_units"].astype(float), values["learning.horizon"]
    steps = num_time_steps(values)
    if experiment.learning.loss == "sampled":
        return 2 * SAMPLED_PRODUCTS * steps * sizes**2
    panels = np.where(steps > 0, steps, 1.4 * np.where(np.isinf(horizon), 1, horizon))
    averaged = experiment.learning.weighting != "uniform"
    products = (13 if averaged else 8) * np.ceil(np.log2(np.maximum(panels, 2)))
    infinite = np.where(
        (sizes < LEAST_UNITS) | (steps > 0), PRODUCTS_PER_GRADIENT, PRODUCTS_TIMES_UNITS / sizes
    )
    return 2 * np.where(np.isinf(horizon), infinite, products + 8) * sizes**3
