"""Optimisers of sweeps: what the config names is what optax makes of it, one compilation for all of
its numbers.
"""

import inspect

import jax
import numpy as np
import optax
import pytest
from small_sweep import experiment

import rnn_dynamics as rd
from rnn_dynamics import cli
from rnn_dynamics.comparison import error_table
from rnn_dynamics.loss import PopulationLoss
from rnn_dynamics.sweep.config.loading import to_toml
from rnn_dynamics.sweep.config.optimizers import OPTIMIZERS
from rnn_dynamics.sweep.plan.applicability import why_not

RATE = 0.05
# a sweep within a sweep would only take longer
SMALL = {"network__weight_scale": 0.3, "network__num_seeds": 2, "learning__num_steps": 10}
QUANTITIES = ("weight_norm", "weight_change", "input_norm", "output_norm", "overlap")


def sweep(directory, **learning):
    changes = {f"learning__{name}": value for name, value in learning.items()}
    kept = {"record__observables": list(QUANTITIES)}
    return rd.run(experiment(**SMALL | kept | changes), directory, progress=False)


def by_hand(optimizer):
    """The network of seed 1 after ten steps, and its loss."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
    rnn, target = rd.random_rnn(key, 6, 0.3), rd.leaky_integrator(0.3)
    loss, state = rd.PopulationLoss(), optimizer.init(rnn)
    with jax.numpy_dtype_promotion("standard"):  # optax mixes counts of steps with real numbers
        for _ in range(10):
            _, gradient = loss.value_and_grad(rnn, target)
            updates, state = optimizer.update(gradient, state, rnn)
            rnn = optax.apply_updates(rnn, updates)
    return rnn, float(loss.value_and_grad(rnn, target)[0])


@pytest.fixture(scope="module")
def plain():
    return by_hand(optax.sgd(RATE))[1]


COSINE = optax.cosine_decay_schedule(RATE, 8, 0.1)
CASES = {
    "adam": (
        {"optimizer": "adam", "optimizer_arguments": {"b1": 0.5, "eps": 1e-3, "nesterov": True}},
        optax.adam(RATE, b1=0.5, eps=1e-3, nesterov=True),
    ),
    "momentum": (
        {"optimizer_arguments": {"momentum": 0.7, "nesterov": True}},
        optax.sgd(RATE, momentum=0.7, nesterov=True),
    ),
    "clipping": (
        {"clip_norm": 0.02},
        optax.chain(optax.clip_by_global_norm(0.02), optax.sgd(RATE)),
    ),
    "decay": (
        {"weight_decay": 0.4},
        optax.chain(optax.add_decayed_weights(0.4), optax.scale_by_learning_rate(RATE)),
    ),
    "decay beside adam": (
        {"optimizer": "adam", "weight_decay": 0.4, "clip_norm": 0.02},
        optax.chain(optax.clip_by_global_norm(0.02), optax.adamw(RATE, weight_decay=0.4)),
    ),
    "own decay": ({"optimizer": "adamw", "weight_decay": 0.4}, optax.adamw(RATE, weight_decay=0.4)),
    "schedule": (
        {"schedule": {"kind": "cosine", "end_factor": 0.1, "steps": 8}},
        optax.sgd(COSINE),
    ),
    "schedule of a momentum after the rate": (
        {
            "optimizer": "rmsprop",
            "optimizer_arguments": {"momentum": 0.5, "eps": 0.1},
            "schedule": {"kind": "cosine", "end_factor": 0.1, "steps": 8},
        },
        optax.rmsprop(COSINE, momentum=0.5, eps=0.1),
    ),
    "decay of a schedule": (
        {
            "optimizer": "adam",
            "weight_decay": 0.4,
            "schedule": {"kind": "linear", "end_factor": 0.2},
        },
        optax.adamw(lambda k: RATE * (1 - 0.08 * k.astype(float)), weight_decay=0.4),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_member_is_what_optax_makes_of_it(tmp_path, name, plain):
    learning, optimizer = CASES[name]
    data = sweep(tmp_path / "run", learning_rate=RATE, **learning).dataset.sel(seed=1)
    rnn, loss = by_hand(optimizer)
    expected = {"loss": loss, "weight_norm": np.linalg.norm(rnn.W), "overlap": rnn.u @ rnn.v}
    for quantity, value in expected.items():
        np.testing.assert_allclose(data[quantity][-1], value, rtol=1e-10)
    assert abs(data.loss[-1] - plain) > 1e-4  # and not what is there without it


@pytest.mark.core
def test_the_known_arguments_are_those_of_optax():
    """All real numbers and flags that optax has; arguments that only newer versions have are not
    offered.
    """
    others = {"learning_rate", "mask", "weight_decay_mask", "trust_ratio_mask"}
    newer = {"bias_correction_mu", "bias_correction_nu"}
    for name, known in OPTIMIZERS.items():
        parameters = inspect.signature(getattr(optax, name)).parameters.values()
        offered = [p for p in parameters if p.name not in others and "dtype" not in p.name]
        flags = {p.name for p in offered if isinstance(p.default, bool)}
        assert set(known.flags) == flags - newer, name
        assert set(known.numbers) == {p.name for p in offered} - flags, name


@pytest.mark.core
def test_all_numbers_of_an_optimizer_compile_once(tmp_path, monkeypatch):
    traces = []
    original = PopulationLoss.estimate

    def counted(self, rnn, target, *rest):
        traces.append(rnn.W.shape)
        return original(self, rnn, target, *rest)

    monkeypatch.setattr(PopulationLoss, "estimate", counted)
    jax.clear_caches()

    def traces_of(name, **learning):
        traces.clear()
        sweep(tmp_path / name, optimizer="adam", **learning)
        return len(traces)

    one = {
        "learning_rate": 0.01,
        "optimizer_arguments": {"b1": 0.9, "eps": 1e-3},
        "schedule": {"kind": "warmup_cosine", "warmup_steps": 3},
        "weight_decay": 0.1,
        "clip_norm": 1.0,
    }
    many = {
        "learning_rate": [0.01, 0.02],
        "optimizer_arguments": {"b1": [0.5, 0.9], "eps": 0.1},
        "schedule": {
            "kind": "warmup_cosine",
            "warmup_steps": [2, 4],
            "end_factor": 0.1,
            "steps": 9,
        },
        "weight_decay": [0.0, 0.3],
        "clip_norm": [0.1, 1.0],
    }
    assert traces_of("one", **one) >= 1
    assert traces_of("many", **many) == 0


def test_axes_are_named_after_arguments(tmp_path):
    learning = {
        "optimizer": "rmsprop",
        "optimizer_arguments": {"decay": [0.5, 0.9], "eps": 1e-3, "centered": True},
        "schedule": {"kind": "exponential", "factor": [0.1, 1.0]},
    }
    config = experiment(
        target__decay=[0.3, 0.4], **{f"learning__{key}": value for key, value in learning.items()}
    )
    assert list(config.dimensions.values()) == [
        *("decay", "weight_scale", "optimizer_decay", "factor"),
    ]
    assert "learning.optimizer_arguments.centered" not in config.numbers
    path = tmp_path / "config.toml"
    path.write_text(to_toml(config))
    again = rd.load_experiment(path)
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_a_rate_of_0_freezes_decaying_weights(tmp_path):
    learning = {"optimizer": "adam", "weight_decay": 0.5, "learning_rate": 0.1}
    data = sweep(tmp_path / "run", rates={"W": 0.0, "v": 0.0}, **learning).dataset
    assert (data.weight_change == 0).all()
    assert (data.output_norm == data.output_norm[..., :1]).all()
    assert (abs(data.input_norm.diff("record")) > 0).all()


def test_the_theory_is_laid_over_at_the_sum_of_the_learning_rates(tmp_path):
    """With a schedule the flow's time is not a multiple of the step, and the flow itself is
    followed at that time.
    """
    config = experiment(
        learning__learning_rate=[0.005, 0.01],
        learning__num_steps=400,
        learning__schedule={"kind": "linear", "end_factor": 0.1},
        theory__models=["single_outlier"],
    )
    run = rd.run(config, tmp_path / "run", progress=False)
    factors = 1 - 0.9 * np.arange(400) / 400
    for rate in (0.005, 0.01):
        times = run.dataset.train_time.sel(learning_rate=rate, weight_scale=0.3)
        expected = rate * np.array([0, factors[:200].sum(), factors.sum()])
        np.testing.assert_allclose(times, expected, rtol=1e-12)
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), 1), 0)
        rnn, target = rd.random_rnn(key, 6, 0.3), rd.leaky_integrator(0.3)
        flow = rd.gradient_flow(rnn, target, expected)
        loss = run.dataset.loss.sel(learning_rate=rate, weight_scale=0.3, seed=1)
        # Euler steps are of first order; a clock of rate times step would be off by up to half
        np.testing.assert_allclose(loss, flow.loss, rtol=2 * rate)
        start = rd.theory.outlier_start(rnn, target)
        theory = rd.theory.single_outlier(target, start, expected)
        found = run.theory.loss.sel(model="single_outlier", learning_rate=rate, weight_scale=0.3)
        np.testing.assert_allclose(found.sel(seed=1), theory.loss, rtol=1e-7)
    assert (run.theory.status == rd.Status.ok).all()


@pytest.mark.parametrize(
    ("learning", "reason", "applies"),
    [
        ({"optimizer": "adam"}, "the optimiser is 'adam', not plain gradient descent", [False]),
        (
            {"optimizer_arguments": {"momentum": [0.0, 0.5]}},
            "gradient descent has momentum",
            [True, False],
        ),
        ({"clip_norm": [0.5, 1.0]}, "gradients are clipped", [False, False]),
        ({"weight_decay": [0.0, 0.1]}, "weights decay", [True, False]),
    ],
)
def test_theories_of_the_flow_say_that_they_do_not_apply(tmp_path, learning, reason, applies):
    changes = {f"learning__{key}": value for key, value in learning.items()}
    models = ["word_subspace", "single_outlier"]
    config = experiment(**SMALL | changes, theory__models=models)
    layout = rd.plan(config)
    for model in models:
        answers = set(why_not(config, model, layout.values)) - {""}
        assert len(answers) == 1
        assert answers.pop().startswith(reason)
    if "momentum" not in reason:
        return  # the others are told in the same way
    run = rd.run(config, tmp_path / "run", progress=False)
    compared = rd.overlay(run)
    expected = np.repeat(applies, 2)
    for model in compared.model.to_numpy():
        one = compared.sel(model=model)
        np.testing.assert_array_equal(one.applies.to_numpy().ravel(), expected)
        np.testing.assert_array_equal(
            np.isfinite(one.loss_theory[..., -1]).values.ravel(), expected
        )
        sentences = set(one.why_not.to_numpy().ravel()) - {""}
        assert len(sentences) == 1
        assert sentences.pop().startswith(reason)
    assert all(reason in row["why_not"] for row in error_table(compared))
    # the clock is that of the flow where there is one, and counts steps elsewhere
    time = run.dataset.train_time.to_numpy().reshape(-1, 3)[:, -1]
    np.testing.assert_allclose(time, np.where(applies, 0.5, 10.0)[: len(time)])
    name = "learning time" if any(applies) else "number of steps"
    assert run.dataset.train_time.attrs["long_name"] == name
    label = rd.plot.loss_curves(run).axes[0].get_xlabel()
    assert label == ("learning time τ" if any(applies) else name)


def test_a_run_without_any_theory_that_applies_ends_cleanly(tmp_path, capsys):
    path = tmp_path / "adam.toml"
    path.write_text(
        to_toml(
            experiment(
                **SMALL,
                learning__optimizer="adam",
                theory__models=["single_outlier", "infinite_width"],
            )
        )
    )
    out = str(tmp_path / "run")
    assert cli.main(["run", str(path), "--out", out, "--quiet"]) == cli.DONE
    assert "(not: the optimiser is 'adam', not plain" in capsys.readouterr().out
    assert cli.main(["plan", str(path)]) == cli.DONE
    assert "not to 2: the optimiser is 'adam'" in capsys.readouterr().out


@pytest.mark.core
@pytest.mark.parametrize(
    ("learning", "problem"),
    [
        (
            {"optimizer": "adam", "optimizer_arguments": {"b3": 0.1}},
            r"`learning.optimizer_arguments.b3` is unknown to 'adam' \(the nearest known one is `b",
        ),
        (
            {"optimizer": "sign_sgd", "optimizer_arguments": {"b1": 0.1}},
            "`learning.optimizer_arguments.b1` is unknown to 'sign_sgd', which takes no arguments",
        ),
        (
            {"optimizer": "adam", "optimizer_arguments": {"b1": [0.1, -1]}},
            "`learning.optimizer_arguments.b1` must be positive or zero, but is -1",
        ),
        (
            {"optimizer": "adam", "optimizer_arguments": {"nesterov": 1.0}},
            "`learning.optimizer_arguments.nesterov` must be true or false, but is 1.0",
        ),
        (
            {"optimizer_arguments": {"nesterov": [True, False]}},
            r"`learning.optimizer_arguments.nesterov` must be true or false, but is "
            r"\[True, False\]",
        ),
        (
            {"optimizer_arguments": {"learning_rate": 1.0}},
            "`learning.optimizer_arguments.learning_rate` must be absent, as "
            "`learning.learning_rate`",
        ),
        ({"optimizer_arguments": 3}, "`learning.optimizer_arguments` must be a table, but is 3"),
        (
            {"momentum": 0.9},
            "`learning.momentum` is unknown .*`learning.optimizer_arguments.momentum`",
        ),
        ({"clip_norm": 0}, "`learning.clip_norm` must be positive, but is 0"),
        ({"weight_decay": -0.1}, "`learning.weight_decay` must be positive or zero, but is -0.1"),
        (
            {
                "optimizer": "adamw",
                "weight_decay": 0.1,
                "optimizer_arguments": {"weight_decay": 0.1},
            },
            "`learning.weight_decay` must be absent beside `learning.optimizer_arguments.weight_d",
        ),
        (
            {"schedule": {"kind": "cosin"}},
            "`learning.schedule.kind` must be 'constant', 'linear', 'cosine', 'exponential' or "
            "'warm"
            "up_cosine', but is 'cosin'",
        ),
        ({"schedule": {}}, "`learning.schedule.kind` must be .*, but is missing"),
        ({"schedule": "cosine"}, "`learning.schedule` must be a table, but is 'cosine'"),
        (
            {"schedule": {"kind": "cosine", "end_facto": 0.1}},
            r"`learning.schedule.end_facto` is unknown \(.*`learning.schedule.end_factor`\)",
        ),
        (
            {"schedule": {"kind": "cosine", "warmup_steps": 3}},
            r"`learning.schedule.warmup_steps` is unknown \(it belongs to warmup_cosine",
        ),
        (
            {"schedule": {"kind": "exponential"}},
            "`learning.schedule.factor` must be given, but is missing",
        ),
        (
            {"schedule": {"kind": "linear", "steps": 0}},
            "`learning.schedule.steps` must be at least 1, but is 0",
        ),
        (
            {"schedule": {"kind": "warmup_cosine", "warmup_steps": [3, 40]}},
            "`learning.schedule.warmup_steps` must be less than the steps of the schedule, 40, but",
        ),
        (
            {"optimizer": "rprop", "schedule": {"kind": "cosine"}},
            "`learning.schedule.kind` must be 'constant' for 'rprop'",
        ),
    ],
)
def test_a_problem_of_an_optimizer_names_its_key(learning, problem):
    with pytest.raises(rd.ConfigError, match=problem):
        experiment(**{f"learning__{key}": value for key, value in learning.items()})


def test_all_problems_of_an_optimizer_are_told_at_once():
    with pytest.raises(rd.ConfigError) as caught:
        experiment(
            target__decay=-1.0,
            learning__optimizer="adam",
            learning__optimizer_arguments={"b1": "much", "momentum": 0.9},
            learning__schedule={"kind": "linear", "stepz": 3},
            learning__clip_norm=-1,
        )
    keys = ("optimizer_arguments.b1", "optimizer_arguments.momentum", "schedule.stepz", "clip_norm")
    for key in ("target.decay", *(f"learning.{key}" for key in keys)):
        assert f"`{key}`" in str(caught.value)
    assert len(caught.value.problems) == 5
