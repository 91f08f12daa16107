"""Hundreds of random valid configs: each can be planned, printed and read back."""

import functools
import math
from typing import Any

import numpy as np
from config_keys import ALL_KEYS, ALL_KINDS, base, keys, put
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rnn_dynamics as rd
from rnn_dynamics.sweep.config.fields import Choice, Number
from rnn_dynamics.sweep.config.loading import make_experiment, to_toml
from rnn_dynamics.sweep.config.optimizers import OPTIMIZERS
from rnn_dynamics.sweep.config.recording import OBSERVABLES

MOST_AXES = 6


@functools.cache
def numbers(number: Number) -> st.SearchStrategy[Any]:
    """Numbers of a range, of a size that is planned at once."""
    if number.integer:
        low = int(max(number.minimum, -2))
        return st.integers(low, int(min(number.maximum, low + 40)))
    low = max(number.minimum, -5.0)
    zero = st.just(0.0) if low == 0 and not number.positive else st.nothing()
    low = max(low, 1e-3) if number.positive or low == 0 else low
    some = st.floats(low, min(number.maximum, low + 9.0)).filter(lambda x: abs(x) > 1e-9)
    return zero | some | st.just(min(max(low, 0.5), number.maximum))


def values(draw: Any, key: Any, axes: list[str]) -> Any:
    """A value that the key may have; numbers are axes at times."""
    mark = key.mark
    if isinstance(mark, Choice):
        return draw(st.sampled_from(mark.names))
    if not isinstance(mark, Number):
        return draw(st.text(st.characters(categories=["L", "N"]), min_size=1))
    one = numbers(mark)
    if not mark.axis or len(axes) >= MOST_AXES or not draw(st.booleans()):
        return draw(one)
    axes.append(key.name)
    if draw(st.booleans()):
        return draw(st.lists(one, min_size=1, max_size=2, unique=True))
    low = int(max(mark.minimum, 0)) + (0 if mark.integer else 0.25)
    spacing = draw(st.sampled_from(["linear", "log"])) if low > 0 else "linear"
    step = 1 if mark.integer or mark.maximum > 2 else 0.5
    return {"start": low, "stop": low + step, "num": 2, "spacing": spacing}


def drop(tables: Any, name: str) -> None:
    *path, last = name.split(".")
    for part in path:
        tables = tables.get(part, {})
    tables.pop(last, None)


def largest(value: Any, of: Any = max) -> Any:
    if isinstance(value, dict):
        return of(value["start"], value["stop"])
    return of(value) if isinstance(value, list) else value


@st.composite
def configs(draw: Any) -> dict[str, Any]:
    kinds = draw(st.sampled_from(ALL_KINDS))
    tables, axes = base(kinds), []
    for key in keys(kinds):
        if key.mark is None or key.many or key.name.startswith("record.weights"):
            continue
        if key.path[-1] == "optimizer_arguments":
            continue
        if key.required or draw(st.booleans()):
            put(tables, key.path, values(draw, key, axes))
    learning, network = tables["learning"], tables["network"]
    target, record = tables["target"], tables.setdefault("record", {})
    descent = kinds[1] == "gradient_descent"
    _fit_loss(draw, learning, target, descent)
    if largest(network["num_units"], min) < 2:
        network.pop("overlap", None)
    if "warm_start" not in network:
        network.pop("warm_start_record", None)
    _fit_record(draw, record, learning["num_steps"] if descent else learning["train_time"], descent)
    if descent:
        _fit_optimizer(draw, learning)
    theory = tables.setdefault("theory", {})
    models = next(key.mark for key in keys(kinds) if key.name == "theory.models").names
    theory["models"] = draw(st.lists(st.sampled_from(models), unique=True))
    return tables


def _fit_loss(draw: Any, learning: Any, target: Any, descent: bool) -> None:
    losses = ["infinite", "infinite steps", "finite", "steps", *(["sampled"] if descent else [])]
    loss = draw(st.sampled_from(losses))
    learning["loss"] = "sampled" if loss == "sampled" else "population"
    if loss != "sampled":
        learning.pop("batch_size", None)
    elif "batch_size" not in learning:
        learning["batch_size"] = 4
    if "steps" in loss or loss == "sampled":
        learning["time_step"] = draw(st.sampled_from([0.1, 0.05, [0.1, 0.2]]))
    else:
        learning.pop("time_step", None)
    if "infinite" in loss:
        learning["horizon"] = math.inf
        learning.pop("weighting", None)
        for mode in target.get("modes", [target]):
            if largest(mode["decay"], min) <= 0:
                mode["decay"] = 0.3
    else:
        learning["horizon"] = draw(st.sampled_from([2.0, 5, [1.0, 4.0]]))


def _fit_record(draw: Any, record: Any, end: Any, descent: bool) -> None:
    shortest = largest(end, min)
    record.pop("num" if draw(st.booleans()) else "every", None)
    if "every" in record:
        record.pop("num", None)
        record.pop("spacing", None)
        record["every"] = draw(st.integers(1, shortest)) if descent else shortest / 7
    choices = ["none", "final", "all", [0, -1], [], [-2]]
    record["weights"] = draw(st.sampled_from(choices))
    if draw(st.booleans()):
        record["observables"] = draw(st.lists(st.sampled_from(OBSERVABLES), unique=True))


def _fit_optimizer(draw: Any, learning: Any) -> None:
    schedule = learning["schedule"]
    if learning.get("optimizer") == "rprop" and schedule["kind"] != "constant":
        learning["optimizer"] = "sgd"
    if schedule["kind"] == "warmup_cosine":
        length = largest(schedule.get("steps", learning["num_steps"]), min)
        schedule["warmup_steps"] = draw(st.integers(0, length - 1) | st.just([0]))
    known = OPTIMIZERS[learning.get("optimizer", "sgd")]
    given: dict[str, Any] = {name: draw(st.booleans()) for name in known.flags}
    given |= {name: draw(st.just(0.0) | st.floats(1e-9, 1)) for name in known.numbers}
    if given and draw(st.booleans()):
        given[draw(st.sampled_from(known.numbers or list(given)))] = (
            [0.25, 0.5] if known.numbers else True
        )
    names = draw(st.lists(st.sampled_from(list(given)), unique=True)) if given else []
    learning["optimizer_arguments"] = {name: given[name] for name in names}
    if "weight_decay" in names:
        learning.pop("weight_decay", None)


def leaves(tables: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tables, list) and tables and isinstance(tables[0], dict):
        tables = dict(enumerate(tables))
    if not isinstance(tables, dict) or {"start", "stop"} <= set(tables):
        return {prefix: tables}
    return {
        name: leaf
        for key, value in tables.items()
        for name, leaf in leaves(value, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def test_valid_configs_are_planned_and_read_back(tmp_path):
    path, count, planned, axes = tmp_path / "config.toml", 0, set(), set()

    @settings(
        max_examples=700,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(configs())
    def check(tables):
        nonlocal count
        experiment = make_experiment(tables)
        layout = rd.plan(experiment)
        text = str(layout)
        assert layout.num_members == experiment.num_members == np.prod(layout.shape)
        assert sum(len(chunk.members) for chunk in layout.chunks) == layout.num_members
        assert f"members         {layout.num_members} = " in text
        assert f"\ntarget          {experiment.target.kind}\n" in text
        path.write_text(to_toml(experiment), encoding="utf-8")
        again = rd.load_experiment(path)
        assert again.differences(experiment) == []
        assert again == experiment
        assert again.fingerprint() == experiment.fingerprint()
        count += 1
        planned.update(leaves(tables))
        axes.update(experiment.axes)

    check()
    assert count >= 500
    every = {key.name for key in ALL_KEYS if key.mark}
    arguments = {name for name in planned if name.startswith("learning.optimizer_arguments.")}
    assert {name for name in planned if name in every} >= every - {"learning.optimizer_arguments"}
    assert len(arguments) > 12
    numeric = {key.name for key in ALL_KEYS if isinstance(key.mark, Number) and key.mark.axis}
    assert axes >= {name for name in numeric if not name.startswith("theory.")}
