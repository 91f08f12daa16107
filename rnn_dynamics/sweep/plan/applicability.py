"""Which theories a config asks for, and to which members each applies. JAX is not needed."""

from typing import Any

import numpy as np

from rnn_dynamics.sweep.config.schema import (
    DampedOscillator,
    Experiment,
    GradientDescentTable,
    Modes,
)

Values = dict[str, np.ndarray]
Reason = tuple[np.ndarray | bool, str]  # where it holds, and why a theory does not apply there


def theory_labels(experiment: Experiment) -> dict[str, tuple[str, int]]:
    """The theories of a config by label: (model, option), for example `word_subspace_2` →
    ("word_subspace", 2).
    """
    labels: dict[str, tuple[str, int]] = {}
    for model in experiment.theory.models:
        table: Any = getattr(experiment.theory, model, None)
        if table is None:
            labels[model] = (model, 0)
            continue
        lengths = table.max_length
        for length in lengths if isinstance(lengths, tuple) else (lengths,):
            labels[f"{model}_{length}"] = (model, length)
    return labels


def why_not(experiment: Experiment, model: str, values: Values) -> np.ndarray:
    """Why a theory does not apply to members, (M,) of strings: empty where it applies.

    Args:
        experiment: the config.
        model: name of the theory.
        values: numeric keys of the config, each (M,).
    """
    reasons = _reasons(experiment, model, values)
    if model != "population":
        reasons = _no_flow(experiment, values) + reasons
    return _first(reasons, len(values["network.weight_scale"]))


def why_no_flow(experiment: Experiment, values: Values) -> np.ndarray:
    """Why the learning of members is not that of the gradient flow, (M,) of strings: empty where it
    is, at least for small steps.
    """
    return _first(_no_flow(experiment, values), len(values["network.weight_scale"]))


def _first(reasons: list[Reason], count: int) -> np.ndarray:
    """The sentence of the first reason that holds for each member, (M,)."""
    answer = np.full(count, "", dtype=object)
    for holds, sentence in reasons:
        answer[(answer == "") & holds] = sentence
    return answer


def _no_flow(experiment: Experiment, values: Values) -> list[Reason]:
    learning = experiment.learning
    if not isinstance(learning, GradientDescentTable):
        return []
    ending = "which the flow that theories describe does not have"
    momentum = values.get("learning.optimizer_arguments.momentum", np.zeros(1))
    return [
        (
            learning.optimizer != "sgd",
            f"the optimiser is {learning.optimizer!r}, not plain gradient descent, whose flow "
            "the theories describe",
        ),
        (momentum > 0, f"gradient descent has momentum, {ending}"),
        (learning.clip_norm is not None, f"gradients are clipped, {ending}"),
        (values.get("learning.weight_decay", np.zeros(1)) > 0, f"weights decay, {ending}"),
    ]


def _reasons(experiment: Experiment, model: str, values: Values) -> list[Reason]:
    scale = values["network.weight_scale"]
    trained = {name: values[f"learning.rates.{name}"] > 0 for name in "Wuv"}
    unstable: Reason = (scale >= 1, "networks of weight scale 1 and more are unstable")
    continued: Reason = (
        experiment.network.warm_start is not None,
        "the networks are those of another run and no longer random",
    )
    eigenvalues, count = _target_modes(experiment, values)
    in_bulk: Reason = (
        scale >= abs(eigenvalues),
        "the bulk covers the target's eigenvalue, so no outlier forms",
    )
    limited: list[Reason] = [
        (np.isfinite(values["learning.horizon"]), "the horizon is finite"),
        ("learning.time_step" in values, "time is discrete"),
    ]
    if model == "population":
        return [(experiment.learning.loss == "population", "no noise is sampled")]
    if model == "single_outlier":
        return [(count != 1, "the target has more than one mode"), in_bulk]
    if model == "conjugate_pair":
        uneven = values["learning.rates.u"] != values["learning.rates.v"]
        return [
            (count != 2, "the target does not have two modes"),
            (uneven, "the rates of u and v differ"),
            in_bulk,
            *limited,
        ]
    if model == "infinite_width":
        return [continued, unstable]
    if model == "readout_only":
        return [
            (trained["W"], "W is trained"),
            (trained["u"], "u is trained"),
            (values["network.output_scale"] != 0, "the read-out does not start from 0"),
            continued,
            unstable,
            *limited,
        ]
    return []


def _target_modes(experiment: Experiment, values: Values) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalue of the target's slowest mode and its number of modes, a pair counting as two,
    each (M,).
    """
    target = experiment.target
    if isinstance(target, Modes):
        prefixes = [f"target.modes.{index}" for index in range(len(target.modes))]
    else:
        prefixes = ["target"]
    decays = np.stack([values[f"{prefix}.decay"] for prefix in prefixes])
    frequencies = np.zeros_like(decays)
    if isinstance(target, Modes | DampedOscillator):
        frequencies = np.stack([values[f"{prefix}.frequency"] for prefix in prefixes])
    slowest = np.argmin(decays, axis=0)[None, :]
    every = 1 - decays + 1j * frequencies
    return np.take_along_axis(every, slowest, 0)[0], np.sum(1 + (frequencies != 0), axis=0)
