"""What learning costs, roughly: gradients of a member, operations of a gradient, and memory."""

import numpy as np

from rnn_dynamics.sweep.config.sampling import num_time_steps
from rnn_dynamics.sweep.config.schema import Experiment, GradientDescentTable, GradientFlowTable
from rnn_dynamics.sweep.plan.applicability import theory_labels

FLOPS_PER_SECOND_AND_CORE = 1e10  # assumed for the time estimate
# N × N products in one exact gradient in time steps; in Krylov bases it costs as much as about
# 60 / N, and of few units as much as about so many operations
PRODUCTS_PER_GRADIENT, PRODUCTS_TIMES_UNITS, LEAST_OPERATIONS = 36, 60, 3e4
# N × N matrices of a member's compiled segment, measured at 128 and 512 units: of an exact
# gradient over an infinite horizon and over a finite one; and besides, of a flow over an infinite
# and a finite one, and of sampled noise
INFINITE_MATRICES, FINITE_MATRICES = 23, 67
FLOW_MATRICES, FINITE_FLOW_MATRICES, SAMPLED_MATRICES = 10, 34, 21
SEQUENCES = 4, 8  # as long as the horizon, for each unit and for each trial of sampled noise
OF_WORDS = ("word_subspace", "infinite_width")
SAMPLED_PRODUCTS = 3  # N × N matrix-vector products per time step of a gradient on sampled noise


def gradients(experiment: Experiment, values: dict[str, np.ndarray]) -> np.ndarray:
    """Gradients of each member, (M,): the steps of a descent; for a flow an estimate from its
    fastest rate.

    Near a solution that decays at s the fastest rate is 1/(4 s³) (section 3.1 of docs/theory.md);
    a horizon T acts like a decay of 1/T. An explicit pair takes steps of at most 3.3 / rate, of 6
    gradients; the exponential method 300 for each power of ten of learning time times rate (at
    1e-8, benchmarks/flow.py).
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
    return np.minimum(explicit, np.maximum(600, 300 * np.log10(1 + stiffness)))


def flops_per_gradient(experiment: Experiment, values: dict[str, np.ndarray]) -> np.ndarray:
    """Floating-point operations of one gradient of each member, (M,)."""
    sizes, horizon = values["network.num_units"].astype(float), values["learning.horizon"]
    steps = num_time_steps(values)
    if experiment.learning.loss == "sampled":
        return 2 * SAMPLED_PRODUCTS * steps * sizes**2
    panels = np.where(steps > 0, steps, 1.4 * np.where(np.isinf(horizon), 1, horizon))
    averaged = experiment.learning.weighting != "uniform"
    products = (13 if averaged else 8) * np.ceil(np.log2(np.maximum(panels, 2)))
    in_bases = np.maximum(2 * PRODUCTS_TIMES_UNITS * sizes**2, LEAST_OPERATIONS)
    infinite = np.where(steps > 0, 2 * PRODUCTS_PER_GRADIENT * sizes**3, in_bases)
    return np.where(np.isinf(horizon), infinite, 2 * (products + 8) * sizes**3)


def bytes_per_number(experiment: Experiment) -> int:
    """Size of a real number."""
    return 8 if experiment.compute.dtype == "float64" else 4


def bytes_while_learning(experiment: Experiment, values: dict[str, np.ndarray]) -> np.ndarray:
    """Memory of each member's compiled segment, (M,): matrices, and sequences of sampled noise."""
    learning = experiment.learning
    # theories train networks of as many units as there are words
    lengths = [n for model, n in theory_labels(experiment).values() if model in OF_WORDS]
    sizes = np.maximum(values["network.num_units"], num_words(max(lengths, default=-1)))
    infinite = np.isinf(values["learning.horizon"])
    matrices = np.where(infinite, INFINITE_MATRICES, FINITE_MATRICES)
    if isinstance(learning, GradientFlowTable):
        matrices += np.where(infinite, FLOW_MATRICES, FINITE_FLOW_MATRICES)
    sampled = learning.loss == "sampled"
    numbers = (matrices + SAMPLED_MATRICES * sampled) * sizes.astype(float) ** 2
    if sampled:
        for_units, for_trials = SEQUENCES
        width = for_units * sizes + for_trials * values["learning.batch_size"]
        numbers += num_time_steps(values) * width
    return numbers * bytes_per_number(experiment)


def num_words(max_length: int) -> int:
    """Units of a theory of words of at most so many letters."""
    return 2 ** (max_length + 2) - 2
