"""What an unknown key may mean, and that an experiment made in Python is checked as one from a
file.
"""

import pytest
from config_keys import ALL_KINDS, base, put

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.hints import SYNONYMS
from rnn_dynamics.sweep.config.loading import make_experiment, to_toml
from rnn_dynamics.sweep.config.problems import all_keys

DESCENT, FLOW = ALL_KINDS[0], ALL_KINDS[-1]
OSCILLATOR = next(kinds for kinds in ALL_KINDS if kinds[0] == "damped_oscillator")
COSINE = next(kinds for kinds in ALL_KINDS if kinds[2] == "cosine")


def changed(kinds, **changes):
    tables = base(kinds)
    for name, value in changes.items():
        put(tables, tuple(name.split("__")), value)
    return tables


def problem(kinds, **changes):
    with pytest.raises(rd.ConfigError) as caught:
        make_experiment(changed(kinds, **changes))
    (line,) = caught.value.problems
    return line


@pytest.mark.core
@pytest.mark.parametrize(
    ("kinds", "key", "hint"),
    [
        (DESCENT, "learning__lr", "the nearest known key is `learning.learning_rate`"),
        (DESCENT, "learning__learningRate", "the nearest known key is `learning.learning_rate`"),
        (DESCENT, "learning__EPOCHS", "the nearest known key is `learning.num_steps`"),
        (DESCENT, "learning__dt", "the nearest known key is `learning.time_step`"),
        (DESCENT, "learning__max-grad-norm", "the nearest known key is `learning.clip_norm`"),
        (DESCENT, "network__hidden_size", "the nearest known key is `network.num_units`"),
        (DESCENT, "network__N", "the nearest known key is `network.num_units`"),
        (DESCENT, "network__lr", "the nearest known key is `learning.learning_rate`"),
        (DESCENT, "learning__rates__w", "the nearest known key is `learning.rates.W`"),
        (DESCENT, "compute__precision", "the nearest known key is `compute.dtype`"),
        (DESCENT, "network__wieght_scale", "the nearest known key is `network.weight_scale`"),
        (DESCENT, "network__num_steps", "the nearest known key is `learning.num_steps`"),
        (FLOW, "learning__optimizer", "it belongs to gradient_descent"),
        (FLOW, "learning__num_steps", "it belongs to gradient_descent"),
        (FLOW, "learning__lr", "`learning_rate` belongs to gradient_descent"),
        (DESCENT, "learning__solver", "it belongs to gradient_flow, but `learning.method` is"),
        (OSCILLATOR, "target__modes", "it belongs to modes, but `target.kind` is 'damped_osc"),
        (DESCENT, "target__omega", "`frequency` belongs to damped_oscillator, but `target.kind`"),
        (
            COSINE,
            "learning__schedule__warmup_steps",
            "it belongs to warmup_cosine, but `learning.s",
        ),
        (COSINE, "learning__schedule__factor", "it belongs to exponential, but `learning.schedule"),
    ],
)
def test_an_unknown_key_says_what_it_may_mean(kinds, key, hint):
    line = problem(kinds, **{key: 1})
    assert f"Key `{key.replace('__', '.')}` is unknown ({hint}" in line


def test_words_and_arguments_are_hinted_likewise():
    assert "(did you mean 'adam'?)" in problem(DESCENT, learning__optimizer="Adam")
    line = problem(DESCENT, learning__optimizer="adam", learning__optimizer_arguments={"beta1": 1})
    assert "(the nearest known one is `b1`)" in line


def test_synonyms_are_of_keys_that_there_are_and_are_none_themselves():
    known = {key.rpartition(".")[2] for key in all_keys(rd.Experiment)} | {"b1", "b2", "eps"}
    assert set(SYNONYMS) <= known
    words = [word for words in SYNONYMS.values() for word in words]
    assert len(words) == len(set(words))


SAMPLED = {"learning__loss": "sampled", "learning__horizon": 2.0}
CONTRADICTIONS = [
    (DESCENT, {**SAMPLED, "learning__time_step": 0.1}),
    (FLOW, {**SAMPLED, "learning__time_step": 0.1, "learning__batch_size": 3}),
    (DESCENT, {"learning__time_step": 0.3, "learning__horizon": 1.0}),
    (DESCENT, {"target__decay": 0.0}),
    (DESCENT, {"record__weights": [0, 999]}),
    (DESCENT, {"network__num_units": 1, "network__overlap": 0.0}),
    (DESCENT, {"record__every": 0.5}),
    (DESCENT, {"network__warm_start_record": 0}),
    (DESCENT, {"learning__bogus": 1, "target__decay": -1.0}),
]


@pytest.mark.core
@pytest.mark.parametrize(("kinds", "changes"), CONTRADICTIONS)
def test_an_experiment_from_python_is_refused_as_one_from_a_file(kinds, changes):
    tables = changed(kinds, **changes)
    with pytest.raises(rd.ConfigError) as from_file:
        make_experiment(tables)
    with pytest.raises(rd.ConfigError) as from_python:
        rd.Experiment(**tables)
    assert from_python.value.problems == from_file.value.problems


def test_a_plan_refuses_a_copy_that_contradicts_itself(tmp_path):
    good = rd.Experiment(**changed(DESCENT))
    sampled = {"loss": "sampled", "horizon": 2.0, "time_step": 0.1}
    bad = good.model_copy(update={"learning": good.learning.model_copy(update=sampled)})
    for call in (rd.plan, lambda x: rd.run(x, tmp_path / "run")):
        with pytest.raises(rd.ConfigError, match=r"`learning.batch_size` must be given"):
            call(bad)
    assert not (tmp_path / "run").exists()


def test_an_experiment_is_made_from_its_own_sections():
    first = rd.Experiment(**changed(COSINE))
    again = rd.Experiment(target=first.target, network=first.network, learning=first.learning)
    assert again == first
    assert to_toml(again) == to_toml(make_experiment(first.tables()))
