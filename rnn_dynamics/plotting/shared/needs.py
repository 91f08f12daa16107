"""What runs lack for figures, as sentences: nothing if a figure fits."""

import math

import numpy as np

from rnn_dynamics.plotting.shared.selection import (
    BATCH,
    HORIZON,
    swept_values,
    target_modes,
    weight_scales,
)
from rnn_dynamics.sweep.config.fields import TIED
from rnn_dynamics.sweep.run import Run


def lacks_frequency(run: Run) -> str:
    """A sentence if no target of a run oscillates, nothing if one does."""
    values = [v for k, v in run.experiment.numbers.items() if k.endswith("frequency")]
    if any(np.any(np.asarray(value) != 0) for value in values):
        return ""
    return "The run must have a target with a frequency for this figure, but has none."


def lacks_one_mode(run: Run) -> str:
    """A sentence if the target has several modes or a parameter is frozen, nothing if one mode can
    be learned.
    """
    numbers = run.experiment.numbers
    count = len(target_modes(numbers))
    if count > 1:
        return f"The run must have a target of one mode for this figure, but it has {count}."
    frozen = [x for x in "Wuv" if not np.all(np.asarray(numbers[f"learning.rates.{x}"]) > 0)]
    if frozen:
        return f"The run must train all parameters for this figure, but freezes {frozen[0]}."
    finite = [horizon for horizon in swept_values(run, HORIZON) if math.isfinite(horizon)]
    if finite:
        return (
            f"The run must have an infinite horizon for this figure, but has one of {finite[0]:g}."
        )
    if "learning.time_step" in numbers:
        return "The run must have continuous time for this figure, but has a time step."
    return ""


def lacks_weight_scales(run: Run) -> str:
    """A sentence if there is one weight scale, nothing if there are several."""
    if len(weight_scales(run)) > 1:
        return ""
    return "The run must have several weight scales for this figure, but has one."


def lacks_eigenvalues(run: Run) -> str:
    """A sentence if eigenvalues are not kept, nothing if they are."""
    return _lacks_kept(run, "eigenvalues")


def lacks_responses(run: Run) -> str:
    """A sentence if impulse responses are not kept, nothing if they are."""
    return _lacks_kept(run, "impulse_responses")


def lacks_pairs(run: Run) -> str:
    """A sentence if there are no eigenvalues of an oscillator, nothing if there are."""
    return lacks_frequency(run) or lacks_eigenvalues(run)


def lacks_plane(run: Run) -> str:
    """A sentence if there is not one mode to be learned, or gain and decay of the outlier are not
    kept, nothing otherwise.
    """
    gains = ["residues", *(["overlap"] if run.experiment.theory.models else [])]
    return lacks_one_mode(run) or _lacks_kept(run, "eigenvalues", *gains)


def lacks_regimes(run: Run) -> str:
    """A sentence if there is one weight scale, or outlier and change of W are not kept, nothing
    otherwise.
    """
    return lacks_weight_scales(run) or _lacks_kept(run, "eigenvalues", "weight_change")


def lacks_noise(run: Run) -> str:
    """A sentence if noise is not sampled, in batches of several sizes, or its population curve is
    missing, nothing otherwise.
    """
    learning, models = run.experiment.learning, run.experiment.theory.models
    if learning.loss != "sampled":
        return (
            f"The run must have sampled noise for this figure, but has the loss {learning.loss!r}."
        )
    if "population" not in models:
        named = " and ".join(f"`{model}`" for model in models) or "none"
        return f"The run must have the theory `population` for this figure, but has {named}."
    if BATCH not in run.experiment.axes:
        size = learning.batch_size
        return f"The run must have several batch sizes for this figure, but has one, {size}."
    return ""


def lacks_horizons(run: Run) -> str:
    """A sentence if there are no several finite horizons, or eigenvalues are not kept, nothing
    otherwise.
    """
    finite = [horizon for horizon in swept_values(run, HORIZON) if math.isfinite(horizon)]
    if len(finite) < 2:
        count = "one" if finite else "none"
        return f"The run must have several finite horizons for this figure, but has {count}."
    return _lacks_kept(run, "eigenvalues")


def lacks_staircase(run: Run) -> str:
    """A sentence if a run is no gradient flow from several small scales of W, u and v, over an
    infinite horizon, nothing if it is.
    """
    network, numbers = run.experiment.network, run.experiment.numbers
    tied = network.input_scale == network.output_scale == TIED
    rates = all(np.all(np.asarray(numbers[f"learning.rates.{x}"]) == 1) for x in "Wuv")
    flows = (
        run.experiment.learning.method == "gradient_flow" and "learning.time_step" not in numbers
    )
    wanted = {
        f'`input_scale` and `output_scale` of "{TIED}"': tied,
        "the gradient flow of rates 1": rates and flows,
        "an infinite horizon": np.all(np.isinf(numbers[HORIZON])),
        "weight scales from 0 to 1": all(0 < scale < 1 for scale in weight_scales(run)),
    }
    lacking = [
        f"The run must have {x} for this figure, but has not." for x in wanted if not wanted[x]
    ]
    return lacking[0] if lacking else lacks_weight_scales(run)


def lacks_zeros(run: Run) -> str:
    """A sentence if there is no staircase or weights are not saved, nothing otherwise."""
    saved = run.experiment.record.weights != "none"
    word = "The run must have saved weights for this figure, but has none (`record.weights`)."
    return lacks_staircase(run) or ("" if saved else word)


def _lacks_kept(run: Run, *names: str) -> str:
    left_out = [f"`{name}`" for name in names if not run.experiment.record.keeps(name)]
    if not left_out:
        return ""
    wanted = " and ".join(left_out)
    return (
        f"The run must have {wanted} recorded for this figure, but has not (`record.observables`)."
    )


def demand(lack: str) -> None:
    """Refuse a run that a figure does not fit.

    Raises:
        ValueError: with what the run lacks, if it lacks anything.
    """
    if lack:
        raise ValueError(lack)
