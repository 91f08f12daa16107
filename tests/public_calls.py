"""The public functions, right arguments of each, and wrong ones by the argument's name."""

import math
import os

import jax
import numpy as np
import optax
from hypothesis import strategies as st
from wrong_values import (
    COUNT,
    DTYPE,
    INFINITE,
    INITIAL,
    KEY,
    LENGTH,
    NO_ARRAY,
    NO_OBJECT,
    NO_REAL,
    NOT_FINITE,
    NOTHING,
    OVERLAP,
    POSITIVE,
    RATE,
    RNN,
    SPECTRUM,
    SQUARE,
    TIMES,
    TOLERANCE,
    UNSIGNED,
    UNSTABLE,
    WORD,
    net,
    target,
)

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.loading import make_experiment

theory, ode = rd.theory, rd.ode


SGD = optax.sgd(0.1)
FLOW = {"network": net, "target": target, "train_time": [0.0, 1.0]}
DESCENT = {"network": net, "target": target, "optimizer": SGD, "num_steps": 2}
SOLVER = {"rtol": TOLERANCE, "atol": TOLERANCE, "max_steps": COUNT}
LOSS = {"rnn": RNN, "target": UNSTABLE}
NETWORK = {"network": RNN, "target": UNSTABLE}
LIST = NO_ARRAY | st.sampled_from([3.0, [], [math.nan], np.ones((2, 2))])


def plant():
    return rd.Plant(-np.eye(2), np.ones(2), np.ones(2))


def low_rank():
    return rd.LowRankRNN(np.ones(3), np.eye(3)[:, :1], np.ones(3), np.eye(3)[:, :1])


def sampled(name):
    def call(network, target, key):
        return getattr(rd.SampledLoss(1.0, 0.5, 2), name)(network, target, key)

    return call


def minibatches():
    return rd.SampledLoss(1.0, 0.5, 2)


def field(t, y, args):
    return -y


def start_state():
    return ode.start(field, 0.0, 1.0)


def reduced(length):
    return theory.infinite_width(0.3, max_length=length)


def train(rnn):
    return rd.gradient_flow(rnn, target(), [0.0, 1.0])


def curve():
    return train(net())


# a function, right arguments (a function without arguments makes one), and strategies of wrong ones
# by name
CALLS = [
    (
        rd.LinearRNN,
        {"W": np.eye(2), "u": np.ones(2), "v": np.ones(2)},
        {"W": SQUARE}
        | dict.fromkeys("uv", SQUARE.filter(lambda x: getattr(x, "shape", 0) != (2, 3))),
    ),
    (
        lambda t: net().impulse_response(t),
        {"t": [0.0]},
        {"t": NOTHING | st.sampled_from([None, 1.0])},
    ),
    (lambda dtype: net().astype(dtype), {"dtype": "float32"}, {"dtype": DTYPE | st.none()}),
    (
        rd.random_rnn,
        {"key": jax.random.key, "num_units": 3, "weight_scale": 0.1},
        {"key": KEY | st.none(), "num_units": COUNT, "dtype": DTYPE}
        | dict.fromkeys(("weight_scale", "input_scale", "output_scale"), UNSIGNED)
        | {"overlap": OVERLAP.filter(lambda x: x is not None)}
        | dict.fromkeys(("num_inputs", "num_outputs"), COUNT.filter(lambda x: x is not None)),
    ),
    (rd.leaky_integrator, {"decay": 0.1}, {"decay": UNSIGNED, "amplitude": NO_REAL}),
    (rd.fir, {"values": [1.0]}, {"values": LIST}),
    (
        rd.fit_response,
        {"times": [0.0, 1.0, 2.0, 3.0], "values": [1.0, 0.5, 0.3, 0.2], "num_units": 1},
        {"times": LIST, "values": LIST, "num_units": COUNT},
    ),
    (
        rd.damped_oscillator,
        {"decay": 0.1, "frequency": 1.0},
        {"decay": UNSIGNED, "frequency": NO_REAL, "phase": NO_REAL, "amplitude": NO_REAL},
    ),
    (lambda rnns: rd.parallel(net(), rnns), {"rnns": net}, {"rnns": RNN}),
    (rd.modes, {"rnn": net}, {"rnn": RNN}),
    (rd.bulk_radius, {"W": np.eye(2)}, {"W": SQUARE}),
    (rd.edge_margin, {"num_units": 4}, {"num_units": COUNT}),
    (
        rd.is_outlier,
        {"eigenvalues": np.ones(2), "radius": 0.1},
        {
            "eigenvalues": NO_ARRAY,
            "radius": NOTHING | st.just(np.ones(3)),
            "margin": NO_REAL,
        },
    ),
    (
        rd.match_eigenvalues,
        {"reference": np.ones(1), "candidates": np.ones(2)},
        {"reference": SPECTRUM | st.just(np.ones((1, 1))), "candidates": SPECTRUM},
    ),
    (
        rd.track_eigenvalues,
        {"eigenvalues": np.ones((2, 2))},
        {"eigenvalues": SPECTRUM | st.just([])},
    ),
    (
        rd.NonlinearRNN,
        {"W": np.eye(2), "u": np.ones(2), "v": np.ones(2)},
        {"W": SQUARE}
        | {"activation": NO_OBJECT.filter(lambda x: not callable(x)) | st.none()}
        | {"gain": UNSIGNED.filter(lambda x: x is not None)},
    ),
    (
        rd.PopulationLoss,
        {"horizon": 2.0},
        {
            "horizon": POSITIVE.filter(lambda x: repr(x) not in INFINITE),
            "time_step": TOLERANCE,
            "weighting": WORD,
            "input": NO_OBJECT,
        },
    ),
    (
        rd.SampledLoss,
        {"horizon": 2.0, "time_step": 0.5, "batch_size": 2},
        {"horizon": POSITIVE, "time_step": POSITIVE, "batch_size": COUNT, "weighting": WORD}
        | {"num_steps": COUNT.filter(lambda x: x is not None)},
    ),
    (rd.PopulationLoss(), {"network": net, "target": target}, NETWORK),
    (rd.PopulationLoss().value_and_grad, {"network": net, "target": target}, NETWORK),
    (rd.PopulationLoss().gradient_and_error, {"network": net, "target": target}, NETWORK),
    (rd.PopulationLoss().estimate, {"network": net, "target": target}, NETWORK),
    (rd.PopulationLoss().reference, {"network": net, "target": target}, NETWORK),
    *(
        (
            sampled(name),
            {"network": net, "target": target, "key": jax.random.key},
            {"network": RNN, "target": RNN, "key": KEY | st.none()},
        )
        for name in ("__call__", "value_and_grad", "gradient_and_error")
    ),
    (
        lambda key, dtype: rd.SampledLoss(1.0, 0.5, 2).noise(key, dtype),
        {"key": jax.random.key, "dtype": "float32"},
        {"key": KEY | st.none(), "dtype": DTYPE},
    ),
    (
        rd.filtered_noise,
        {"rnn": target},
        {"rnn": UNSTABLE, "feedthrough": NOTHING | NOT_FINITE | st.just(np.ones(2))},
    ),
    (rd.ornstein_uhlenbeck, {"rate": 0.5}, {"rate": POSITIVE}),
    (rd.lyapunov, {"A": np.eye(2), "B": np.ones((2, 1))}, {"A": SQUARE, "B": NOTHING}),
    (
        rd.FrequencyLoss,
        {"frequencies": [1.0]},
        {"frequencies": LIST, "weights": LIST.filter(lambda x: x is not None)},
    ),
    (
        lambda network, target: rd.FrequencyLoss([1.0])(network, target),
        {"network": net, "target": target},
        {"network": RNN, "target": RNN},
    ),
    (
        rd.Plant,
        {"A": np.eye(2), "B": np.ones(2), "C": np.ones(2)},
        {"A": SQUARE, "B": NOTHING, "C": NOTHING},
    ),
    (
        rd.ControlLoss,
        {"plant": plant, "state_cost": np.eye(2), "control_cost": 0.1}
        | {"initial_covariance": np.eye(2)},
        {"plant": NO_OBJECT | st.none(), "state_cost": SQUARE, "initial_covariance": SQUARE}
        | {"control_cost": UNSIGNED, "time_step": TOLERANCE},
    ),
    (
        lambda key: rd.SampledLoss(1.0, 0.5, 2).fixed(key),
        {"key": jax.random.key},
        {"key": KEY | st.none()},
    ),
    (rd.Rates, {}, dict.fromkeys("Wuv", UNSIGNED)),
    (
        rd.Stop,
        {},
        {"loss": TOLERANCE, "train_time": TOLERANCE}
        | {"plateau": TOLERANCE | st.sampled_from([1, 1.0, np.array(2.0)])}
        | {"patience": TOLERANCE | st.sampled_from([0.5, np.array(0.9)])},
    ),
    (
        rd.gradient_flow,
        FLOW,
        {"network": RNN, "target": UNSTABLE, "train_time": TIMES, "loss": NO_OBJECT | st.none()}
        | {"rates": NO_OBJECT | st.none(), "stop": NO_OBJECT | st.none(), "method": NO_OBJECT}
        | SOLVER,
    ),
    (
        rd.gradient_descent,
        DESCENT,
        {"network": RNN, "target": UNSTABLE, "loss": NO_OBJECT | st.none(), "optimizer": NO_OBJECT}
        | {"rates": NO_OBJECT | st.none(), "stop": NO_OBJECT | st.none(), "key": KEY}
        | {"num_steps": COUNT, "record_every": COUNT, "learning_rate": RATE},
    ),
    (
        theory.single_outlier,
        {"target": target, "initial": (0.1, 0.1, 0.0), "train_time": [0.0, 1.0]},
        {"target": UNSTABLE, "initial": INITIAL, "train_time": TIMES, "rates": NO_OBJECT}
        | {"loss": NO_OBJECT | st.none()}
        | SOLVER,
    ),
    (
        theory.conjugate_pair,
        {"target": target, "initial": (0, 0, 0, 0.3, 0.1), "train_time": [0.0, 1.0]},
        {"target": UNSTABLE, "initial": INITIAL, "train_time": TIMES, "rates": NO_OBJECT} | SOLVER,
    ),
    (theory.best_one_mode, {"target": target}, {"target": UNSTABLE}),
    (
        theory.converged_length,
        {"reduce": lambda: reduced, "train": lambda: train, "tolerance": 0.1},
        {"reduce": NO_OBJECT.filter(lambda x: not callable(x)), "tolerance": POSITIVE}
        | {"train": NO_OBJECT.filter(lambda x: not callable(x)), "longest": COUNT | st.just(1)},
    ),
    (
        theory.event_times,
        {"target": target, "curve": curve},
        {"target": UNSTABLE | st.just(0).map(lambda _: rd.leaky_integrator(0.1)), "curve": RNN},
    ),
    (
        theory.gaussian_closure,
        {"network": low_rank, "target": target, "train_time": [0.0, 1.0]}
        | {"loss": lambda: rd.SampledLoss(1.0, 0.5, 2).fixed(jax.random.key(0))},
        {"network": RNN, "target": RNN, "train_time": TIMES, "loss": NO_OBJECT | st.none()}
        | SOLVER,
    ),
    (
        theory.infinite_width,
        {"weight_scale": 0.3},
        dict.fromkeys(("weight_scale", "input_scale", "output_scale"), UNSIGNED)
        | {"overlap": OVERLAP, "max_length": LENGTH | st.just(13)},
    ),
    (
        theory.low_rank_infinite_width,
        {"overlaps": np.eye(4), "weight_scale": 0.3},
        {"overlaps": SQUARE, "weight_scale": UNSIGNED, "max_length": LENGTH | st.just(13)},
    ),
    (
        theory.overlaps,
        {"network": low_rank, "target": target, "train_time": [0.0, 1.0]},
        {"network": RNN, "target": UNSTABLE, "train_time": TIMES, "loss": NO_OBJECT | st.none()}
        | {"rates": NO_OBJECT}
        | SOLVER,
    ),
    *(
        (
            function,
            {"rnn": target, "target": target, "loss": minibatches} | more,
            {"rnn": RNN, "target": RNN, "loss": NO_OBJECT | st.none()} | bad,
        )
        for function, more, bad in (
            (theory.gradient_covariance, {}, {}),
            (theory.gradient_covariance_product, {"vector": target}, {"vector": RNN}),
            (
                theory.minibatch_loss,
                {"learning_rate": 0.1, "num_steps": 2},
                {"learning_rate": POSITIVE, "num_steps": COUNT, "rates": NO_OBJECT},
            ),
        )
    ),
    (
        theory.largest_learning_rate,
        {"rnn": target, "target": target},
        {**LOSS, "batch_size": COUNT.filter(lambda x: x is not None), "rates": NO_OBJECT},
    ),
    (theory.linearised_rates, {"rnn": target, "target": target}, {**LOSS, "rates": NO_OBJECT}),
    (
        theory.outlier_rates,
        {"decay": 0.3},
        {"decay": POSITIVE, "gain_ratio": POSITIVE, "rates": NO_OBJECT},
    ),
    (
        theory.outlier_start,
        {"rnn": net, "target": target},
        {"rnn": RNN, "target": RNN, "rates": NO_OBJECT},
    ),
    (
        theory.pair_start,
        {"rnn": net, "target": target},
        {"rnn": RNN, "target": RNN, "rates": NO_OBJECT, "train_time": POSITIVE},
    ),
    (
        theory.readout_only,
        {"target": target, "weight_scale": 0.3, "train_time": [0.0, 1.0]},
        {"target": UNSTABLE, "weight_scale": UNSIGNED | st.sampled_from([1, 1.5])}
        | {"train_time": TIMES, "input_scale": UNSIGNED},
    ),
    *(
        (
            function,
            {"target": target, "weight_scale": 0.3},
            {"target": RNN, "weight_scale": UNSIGNED},
        )
        for function in (theory.required_readout_norm, theory.learnable)
    ),
    *(
        (
            function,
            {"rnn": net, "gradient": net},
            {"rnn": RNN, "gradient": RNN | st.just(0).map(lambda _: target()), "rates": NO_OBJECT},
        )
        for function in (theory.spectral_motion, theory.eigenvalue_velocity)
    ),
    (theory.minimal_norm, {"rnn": target}, {"rnn": RNN}),
    (
        theory.staircase,
        {"target": target, "max_modes": 1},
        {"target": UNSTABLE, "max_modes": COUNT.filter(lambda x: x is not None)}
        | {"loss": NO_OBJECT | st.none()},
    ),
    (
        theory.escape,
        {"rnn": net, "target": target},
        {**LOSS, "loss": NO_OBJECT | st.none()},
    ),
    (theory.word_subspace, {"rnn": net, "max_length": 1}, {"rnn": RNN, "max_length": LENGTH}),
    (theory.num_words, {"max_length": 1}, {"max_length": LENGTH, "num_columns": COUNT}),
    (
        ode.solve,
        {"vector_field": lambda: field, "y0": 1.0, "ts": [0.0, 1.0]},
        {
            "vector_field": NO_OBJECT.filter(lambda x: not callable(x)),
            "ts": TIMES.filter(lambda x: repr(x) != "[-1.0, 0.0]"),
        }
        | {
            "y0": NOTHING.filter(lambda x: not isinstance(x, list))
            | st.sampled_from([None, 3, True, math.nan, np.array(1)])
        }
        | {"method": NO_OBJECT | st.none()}
        | SOLVER,
    ),
    (
        ode.advance,
        {"vector_field": lambda: field, "state": start_state, "t1": 1.0},
        {"state": NO_OBJECT | st.none(), "t1": NO_REAL, "method": NO_OBJECT | st.none()} | SOLVER,
    ),
    (
        ode.start,
        {"vector_field": lambda: field, "t0": 0.0, "y0": 1.0},
        {"t0": NO_REAL, "rtol": TOLERANCE, "atol": TOLERANCE},
    ),
    (
        rd.load_experiment,
        {"path": os.devnull},
        {"path": NO_OBJECT.filter(lambda x: not isinstance(x, str)) | st.none()}
        | {
            "overrides": st.sampled_from(
                [None, 3, "a=1", [3], [None], object(), [b"a=1"], 1.5, True]
            )
        },
    ),
    (
        make_experiment,
        {"tables": {}},
        {"tables": st.sampled_from([None, 3, [], "a", (), object(), 1j])},
    ),
]
