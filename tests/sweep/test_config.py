import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.loading import make_experiment, to_toml
from rnn_dynamics.sweep.config.optimizers import OPTIMIZERS

GOOD = """
[target]
kind = "leaky_integrator"
decay = 0.2
[network]
num_units = 8
weight_scale = [0.05, 0.1, 0.3]
num_seeds = 2
[learning]
learning_rate = 0.02
num_steps = 40
"""


def load(tmp_path, text, *overrides):
    path = tmp_path / "config.toml"
    path.write_text(text)
    return rd.load_experiment(path, overrides)


def test_a_config_with_defaults_axes_and_overrides(tmp_path):
    experiment = load(
        tmp_path,
        GOOD,
        "network.input_scale={ start = 0.01, stop = 1, num = 3, spacing = 'log' }",
        "learning.optimizer=adam",
        "learning.rates.u=0",
    )
    assert experiment.axes == {
        "network.weight_scale": (0.05, 0.1, 0.3),
        "network.input_scale": (0.01, 0.1, 1.0),
    }
    assert experiment.learning.optimizer == "adam"
    assert experiment.learning.rates.u == 0
    assert experiment.learning.rates.v == 1
    assert experiment.num_members == 18


def test_the_resolved_config_is_the_same_experiment(tmp_path):
    experiment = load(tmp_path, GOOD, "theory.models=['word_subspace']")
    again = load(tmp_path, to_toml(experiment))
    assert again == experiment
    assert again.fingerprint() == experiment.fingerprint()
    other = load(tmp_path, GOOD, "network.num_units=9", "compute.seed=1")
    assert set(experiment.differences(other)) == {
        "network.num_units",
        "compute.seed",
        "theory.models",
    }


@pytest.mark.core
@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("target.decay=-0.1", "`target.decay` must be positive, but is -0.1"),
        ("target.decay=0", "`target.decay` must be positive, but is 0"),
        ("target.decay=nan", "`target.decay` must be finite, but is nan"),
        ("target.decay=abc", "`target.decay` must be a number, but is 'abc'"),
        ("target.kind=leaky", "`target.kind` must be 'leaky_integrator', 'damped_oscillator' or"),
        ("target.frequency=1.0", "`target.frequency` is unknown .*`target"),
        ("network.weight_scale=[]", "`network.weight_scale` must hold at least one value, but"),
        ("network.weight_scale=[0.1, 0.1]", "`network.weight_scale` must not repeat a value"),
        ("network.weight_scale=[0.1, -1]", "`network.weight_scale` must be positive or zero"),
        ("network.weight_scale={start=1}", "`network.weight_scale` must be a number, a list, or"),
        ("network.num_seeds=0", "`network.num_seeds` must be at least 1, but is 0"),
        ("network.num_seeds=[1, 2]", "`network.num_seeds` must be one number, not a sweep axis"),
        ("network.num_units=2.5", "`network.num_units` must be an integer, but is 2.5"),
        ("network.wieght_scale=1", "`network.wieght_scale` is unknown .*`network.weight_scale`"),
        (
            "network.learning_rate=1",
            "`network.learning_rate` is unknown .*`learning.learning_rate`",
        ),
        ("learning.optimizer=sgdd", r"`learning.optimizer` must be one of .* mean 'sgd'\?"),
        ("learning.learning_rate=true", "`learning.learning_rate` must be a number, but is True"),
        ("learning.train_time=3", "`learning.train_time` is unknown"),
        ("learning=3", "`learning` must be a table, but is 3"),
        ("record.every=0.5", "`record.every` must be a whole number of steps, but is 0.5"),
        ("record.every=1000", "`record.every` must be at most the number of steps, 40"),
        ("record.spacing=cubic", "`record.spacing` must be one of 'linear', 'log'"),
        ("theory.models=['outlier']", "`theory.models.0` must be one of 'single_outlier'"),
        ("theory.models=word_subspace", "`theory.models` must be a list, but is 'word_subspace'"),
        ("compute.dtype=float16", "`compute.dtype` must be one of 'float64', 'float32'"),
        ("compute.chunk_size=1", "`compute.chunk_size` must be at least 2, but is 1"),
        ("compute.seed=-1", "`compute.seed` must be positive or zero, but is -1"),
        ("bogus=1", "`bogus` is unknown"),
        ("network.num_units.x=1", "must lead through tables"),
        ("network.num_units", "must have the form KEY=VALUE, but is 'network.num_units'"),
    ],
)
def test_a_problem_names_its_key(tmp_path, override, problem):
    with pytest.raises(rd.ConfigError, match=problem):
        load(tmp_path, GOOD, override)


def test_all_problems_are_told_at_once(tmp_path):
    text = GOOD.replace("0.2", "-0.2").replace("num_steps = 40", "num_stepz = 40")
    with pytest.raises(rd.ConfigError) as caught:
        load(tmp_path, text, "network.num_seeds=0", "theory.models=[1]")
    keys = ("target.decay", "learning.num_steps", "learning.num_stepz", "network.num_seeds")
    for key in (*keys, "theory.models.0"):
        assert f"`{key}`" in str(caught.value)
    assert len(caught.value.problems) == 5


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xff\xfe\x00", "must be UTF-8 text"),
        (b"a = [", "must be TOML, but is not"),
        (b"", "`target` must be given, but is missing|`target.kind` must be"),
    ],
)
def test_files_that_are_no_config(tmp_path, content, problem):
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(rd.ConfigError, match=problem):
        rd.load_experiment(path)
    with pytest.raises(rd.ConfigError, match="The file cannot be read: No such file"):
        rd.load_experiment(tmp_path / "absent.toml")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        *("target", "target.decay", "target.kind", "target.modes", "network", "network.num_units"),
        *("network.weight_scale", "network.overlap", "network.num_seeds", "learning"),
        *("learning.method", "learning.optimizer", "learning.learning_rate", "learning.rates"),
        *("learning.optimizer_arguments", "learning.optimizer_arguments.momentum"),
        *("learning.optimizer_arguments.nesterov", "learning.schedule", "learning.schedule.kind"),
        *("learning.schedule.steps", "learning.clip_norm", "learning.weight_decay"),
        *("record", "record.every", "record.num", "theory", "theory.models", "compute.chunk_size"),
        *(
            "record.observables",
            "record.weights",
            "network.warm_start",
            "network.warm_start_record",
        ),
        *("theory.word_subspace.max_length", "compute", "compute.seed", "unheard.of"),
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_nested_garbage_is_an_error_that_names_a_key_or_a_plan(changes):
    tables = {
        "target": {"kind": "leaky_integrator", "decay": 0.2},
        "network": {"num_units": 4, "weight_scale": 0.1},
        "learning": {
            "learning_rate": 0.1,
            "num_steps": 10,
            "optimizer_arguments": {},
            "schedule": {"kind": "linear"},
        },
        "record": {},
        "theory": {"models": ["word_subspace"], "word_subspace": {}},
        "compute": {},
        "unheard": {},
    }
    for key, value in changes.items():
        *path, last = key.split(".")
        table = tables
        for part in path:
            table = table[part] if isinstance(table.get(part), dict) else {}
        table[last] = value
    if not tables["unheard"]:
        del tables["unheard"]
    try:
        experiment = make_experiment(tables)
    except rd.ConfigError as error:
        assert all("`" in problem for problem in error.problems)
    else:
        if experiment.num_members < 10_000:
            assert rd.plan(experiment).num_members == experiment.num_members


def test_every_named_optimizer_exists_and_takes_a_learning_rate():
    import jax
    import jax.numpy as jnp
    import optax

    parameters = {"W": jnp.eye(3), "u": jnp.ones(3)}
    with jax.numpy_dtype_promotion("standard"):
        for name in OPTIMIZERS:
            optimizer = getattr(optax, name)(learning_rate=jnp.asarray(0.1))
            state = optimizer.init(parameters)
            updates, _ = optimizer.update(parameters, state, parameters)
            assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(updates)), name


def test_scales_of_u_and_v_can_be_that_of_W(tmp_path):
    tied = ("network.input_scale=weight_scale", "network.output_scale=weight_scale")
    experiment = load(tmp_path, GOOD, *tied)
    assert experiment.num_members == 6
    assert load(tmp_path, to_toml(experiment)) == experiment
    values = rd.plan(experiment).values
    for name in ("input_scale", "output_scale"):
        np.testing.assert_array_equal(values[f"network.{name}"], values["network.weight_scale"])
    with pytest.raises(rd.ConfigError, match=r"`network.input_scale` must be a number"):
        load(tmp_path, GOOD, "network.input_scale=weight_scal")
